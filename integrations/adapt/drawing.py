"""Draw of the queries that an adaptation learns from: by seed, and kept in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from hero_plugin.integrations.annotations import detect_format, read_annotations, write_annotations
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.train_config import TrainConfig

Item = TypeVar("Item")


def draw_queries(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Return ``count`` of the items, drawn by seed, and the others, both in their order; 0 draws all."""
    if count == 0:
        return list(items), []
    chosen = set(torch.randperm(len(items), generator=_generator(seed))[:count].tolist())
    return (
        [item for place, item in enumerate(items) if place in chosen],
        [item for place, item in enumerate(items) if place not in chosen],
    )


def mix_rehearsal(
    new: Sequence[Item], old: Sequence[Sequence[Item]], total: int, share: float, seed: int
) -> list[Item]:
    """Return ``total`` items, a ``share`` of them old: equally many from each list of old ones, whatever its length."""
    replayed = min(round(total * share / len(old)), total // len(old)) if old else 0
    items = _rounds(new, total - replayed * len(old), seed)
    for each in old:
        items += _rounds(each, replayed, seed)
    return items


def read_labelled(path: Path, settings: TrainConfig) -> list[Record]:
    """Read the queries of a file that have a moment, as the run reads its own.

    Raises:
        UserError: none has a moment.
    """
    records = read_annotations(path, durations=settings.durations, on_broken=settings.on_broken)
    found = [record for record in records if record.moments]
    if not found:
        raise UserError(f"{path}: none of its {len(records)} queries has a moment to learn or to measure with")
    return found


def write_like(source: Path, records: Sequence[Record], path: Path) -> Path:
    """Write records in the format of the file that they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_annotations(records, path, format=detect_format(source))
    return path


def _rounds(items: Sequence[Any], count: int, seed: int) -> list[Any]:
    """Return ``count`` items: all in a random order, again and again."""
    generator, drawn = _generator(seed), []
    while len(drawn) < count:
        drawn += [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]
    return drawn[:count]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
