"""Journal of a build: what passed per query, so that a stopped build continues.

JSON lines, kept by hand: SQLite would need the same checks of the build and of the order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.vocab.rewording import Rewording

__all__ = ["BuildJournal"]


class BuildJournal:
    """JSON lines of what passed, one per query, in order. The first line says what build it belongs to."""

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path, self.done = path, 0
        if path.exists() and not resume:
            raise UserError(f"{path} is what a stopped build left: continue it with --resume, or delete it")
        lines = self._whole_lines(fingerprint) if path.exists() else []
        self.done = max(len(lines) - 1, 0)
        self._stream = open(path, "a" if lines else "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        if not lines:
            self._stream.write(json.dumps({"build": fingerprint}) + "\n")

    def _whole_lines(self, fingerprint: str) -> list[str]:
        """Return the lines of a journal; a last one that was cut off is removed."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            self.path.write_bytes(whole)
        lines = whole.decode().splitlines()
        if lines and json.loads(lines[0]).get("build") != fingerprint:
            raise UserError(f"{self.path} belongs to a build of other files or settings: use those, or delete it")
        return lines

    def add(self, index: int, passed: Sequence[Rewording], counts: Counter[str]) -> None:
        """Add what passed for the next query."""
        if index != self.done:
            raise ValueError(f"the journal's next query is {self.done}, got {index}")
        row = {"passed": [rewording.to_json() for rewording in passed], "counts": dict(sorted(counts.items()))}
        self._stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.done += 1
        if self.done % 50 == 0:
            self._stream.flush()

    def flush(self) -> None:
        """Hand everything added to the operating system."""
        self._stream.flush()

    def rows(self) -> Iterator[tuple[list[Rewording], Counter[str]]]:
        """Iterate over queries: what passed, and the counts."""
        self.flush()
        with open(self.path, encoding="utf-8") as stream:
            next(stream)
            for line in stream:
                row = json.loads(line)
                yield [Rewording.from_json(each) for each in row["passed"]], Counter(row["counts"])

    def close(self, remove: bool = False) -> None:
        """Close the file, and delete it if ``remove``."""
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)
