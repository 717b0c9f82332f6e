"""Bases that the promises of a wrapped model are held to, each with a batch: ours by hand, and the adapters'."""

from __future__ import annotations

from tests.core import detr, emb
from tests.core.bases import dict_base, inputs, tuple_base

CASES = {
    "tuple": (tuple_base, inputs),
    "dict": (dict_base, inputs),
    "emb": (emb.emb, emb.batch),
    "moment_detr": (detr.moment_detr, detr.batch),
    "qd_detr": (detr.qd_detr, detr.batch),
}
