"""Problems in the user's data: what is wrong, where, and what to do, all of it at once."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path


class UserError(Exception):
    """An error on the user's side: its message alone is shown, and says what was expected, what came, what to do.

    Attributes:
        hard: End the process as soon as the message is shown, skipping Python's own shutdown; see ``end_at_once``.
    """

    hard = False


_SHOWN = 20  # lines of a message that a person still reads; the exception carries every problem


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: ``file:line``, or ``file: video X``.
        what: What was expected and what came.
        fix: What to do.
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" -> {self.fix}" if self.fix else "")


class DataError(ValueError):
    """Data that cannot be used. ``problems`` holds everything found, not only the first thing."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        if not self.problems:
            raise ValueError("DataError needs at least one problem")
        fixes = {problem.fix for problem in self.problems if problem.fix}
        once = fixes.pop() if len(fixes) == 1 and len(self.problems) > 1 else ""  # said once, at the end
        lines = [str(replace(problem, fix="") if once else problem) for problem in self.problems[:_SHOWN]]
        if len(self.problems) > _SHOWN:
            lines.append(f"... and {len(self.problems) - _SHOWN} more")
        if once:
            lines.append(f"-> {once}")
        many = [f"{len(self.problems)} problems:"]
        super().__init__(lines[0] if len(lines) == 1 else "\n  ".join(many + lines))

    def __reduce__(self) -> "tuple[type[DataError], tuple[list[Problem]]]":
        return type(self), (self.problems,)  # so that it survives the trip back from a worker process


class Problems(list[Problem]):
    """What readers found wrong while they went on reading; ``raise_if_any`` ends the reading."""

    def add(self, where: str, what: str, fix: str = "") -> None:
        """Remember one problem."""
        self.append(Problem(where, what, fix))

    def of(self, path: Path | str) -> Callable[[str, str, str], None]:
        """Return an ``add`` for places in one file."""
        return lambda place, what, fix: self.add(f"{path}{place}", what, fix)

    @contextmanager
    def collecting(self, flag: str = "") -> Iterator[None]:
        """Note what a ``DataError`` in the block holds, and go on; likewise that a file of the ``flag`` is missing."""
        try:
            yield
        except DataError as error:
            self.extend(error.problems)
        except FileNotFoundError as error:
            if not flag:
                raise
            self.add(flag, str(error))

    def raise_if_any(self) -> None:
        """Raise ``DataError`` with everything found so far, if anything was."""
        if self:
            raise DataError(self)


def not_utf8(error: UnicodeDecodeError) -> str:
    """Describe why a text cannot be decoded."""
    return f"not UTF-8 text ({error.reason} at byte {error.start})"
