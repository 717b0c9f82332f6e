"""Ranking of all videos per query."""

from __future__ import annotations

import heapq
import json
from pathlib import Path
from typing import Any

from hero_plugin.integrations.files import atomic_write
from hero_plugin.integrations.submissions import WINDOWS


class Ranking:
    """The best videos per query, collected while predictions go by; memory grows with queries and ``top``."""

    def __init__(self, top: int) -> None:
        self.top = top
        self._best: dict[str, list[tuple[float, int, str, list[float]]]] = {}
        self._sentences: dict[str, str] = {}
        self._count = 0

    def add(self, lines: bytes) -> None:
        """Add predictions of pairs, one JSON line each."""
        for line in lines.splitlines():
            row = json.loads(line)
            query = row["qid"][: -len(row["vid"]) - 1]  # QID@VIDEO
            *window, _ = row[WINDOWS][0]
            best = self._best.setdefault(query, [])
            self._sentences.setdefault(query, row["query"])
            self._count += 1
            entry = (row["score"], -self._count, row["vid"], window)  # of equal scores, the earlier video
            if len(best) < self.top:
                heapq.heappush(best, entry)
            else:
                heapq.heappushpop(best, entry)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per query, in the order of the file."""
        return [
            {
                "qid": query,
                "query": self._sentences[query],
                "videos": [
                    {"vid": video, "score": score, "window": window}
                    for score, _, video, window in sorted(best, reverse=True)
                ],
            }
            for query, best in self._best.items()
        ]

    def write(self, path: Path) -> None:
        """Write the rows as JSON lines."""
        with atomic_write(path) as stream:
            stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows())
