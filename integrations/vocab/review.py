"""Review page: one HTML file that contains the rewordings, loads no other file and sends nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

from hero_plugin.integrations.records import REWORDED, Record

__all__ = ["review_page"]


def review_page(records: Sequence[Record], file: str, checksum: str) -> str:
    """Return the HTML page for reworded records.

    Args:
        records: the records.
        file: name of their file.
        checksum: SHA-256 of their file, under which the browser keeps decisions.
    """
    items = [_shown(record) for record in records if REWORDED in record.extra]
    data = json.dumps({"file": file, "sha256": checksum, "items": items}, ensure_ascii=False, separators=(",", ":"))
    template = (resources.files(__package__) / "review.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data.replace("<", "\\u003c"), 1)  # "</script>" in a query must end nothing


def _shown(record: Record) -> dict[str, object]:
    link = record.extra[REWORDED]
    return {
        "id": link["id"],
        "video": record.video_id,
        "moment": [list(moment) for moment in record.moments],
        "original": link["sentence"],
        "reworded": record.sentence,
        "kind": link["kind"],
        "part": link.get("part", ""),
        "unseen": link["unseen"],
        "changes": [{"old": change["old"], "new": change["new"]} for change in link["changes"]],
        "source": link["source"],
    }
