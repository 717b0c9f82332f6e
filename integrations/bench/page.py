"""Tables in a page of the documentation, between comments that say what stands there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hero_plugin.integrations.bench.report import Report
from hero_plugin.integrations.bench.tables import comparison, markdown, narrowed, settings_of, verdicts
from hero_plugin.integrations.bench.targets import judge
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text


def write_page(page: Path, parts: Mapping[str, str]) -> None:
    """Renew the parts of a page, those that it has.

    Raises:
        UserError: it has none of them.
    """
    text = page.read_text(encoding="utf-8")
    if not any(start in text and end in text for start, end in map(marks, parts)):
        start, end = marks(next(iter(parts), "cpu"))
        raise UserError(f"{page} has no place to write into; add the two lines {start} and {end}")
    for name, part in parts.items():
        text = replaced(text, name, part)
    write_text(page, text)


def device_parts(reports: Sequence[Report]) -> dict[str, str]:
    """What was measured on each device, by the part's name: ``cpu``, ``cuda``."""
    written: dict[str, list[str]] = {}
    for report in reports:
        for device in dict.fromkeys(each.setting.device for each in report.measurements):
            groups = settings_of([each for each in report.measurements if each.setting.device == device])
            tables = [markdown(narrowed(comparison(group))) for group in groups]
            written.setdefault(device, []).extend([*tables, source(report)])
    return {device: "\n".join(tables) for device, tables in written.items()}


def targets_part(reports: Sequence[Report]) -> dict[str, str]:
    """Which targets are met, as the part ``targets``."""
    results = verdicts(judge([each for report in reports for each in report.measurements]))
    return {"targets": "\n".join([markdown(results), *map(source, reports)])}


def source(report: Report) -> str:
    return f"(`{report.command}`; {report.conditions})\n"


def replaced(text: str, name: str, part: str) -> str:
    """The text with another part between its comments, or as it is where they are not."""
    start, end = marks(name)
    before, found, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    return f"{before}{start}\n\n{part.strip()}\n\n{end}{after}" if found and closed else text


def marks(name: str) -> tuple[str, str]:
    return f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
