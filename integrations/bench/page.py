"""Tables in a page of the documentation, between comments that say what stands there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hero_plugin.integrations.bench.report import Report
from hero_plugin.integrations.bench.tables import comparison, markdown, settings_of, verdicts
from hero_plugin.integrations.bench.targets import judge
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text


def write_page(page: Path, reports: Sequence[Report]) -> None:
    """Renew the parts of a page that these reports have something for: ``cpu``, ``cuda`` and ``targets``.

    Raises:
        UserError: the page has none of these parts.
    """
    text, written = page.read_text(encoding="utf-8"), parts(reports)
    if not any(start in text and end in text for start, end in map(marks, written)):
        start, end = marks(next(iter(written)))
        raise UserError(f"{page} has no place to write into; add the two lines {start} and {end}")
    for name, part in written.items():
        text = replaced(text, name, part)
    write_text(page, text)


def parts(reports: Sequence[Report]) -> dict[str, str]:
    """Text by the name of its part."""
    written: dict[str, str] = {}
    for report in reports:
        for device in dict.fromkeys(each.setting.device for each in report.measurements):
            groups = settings_of([each for each in report.measurements if each.setting.device == device])
            tables = [markdown(comparison(group)) for group in groups]
            written[device] = "\n".join([written.get(device, ""), *tables, source(report)]).strip()
    results = verdicts(judge([each for report in reports for each in report.measurements]))
    return {**written, "targets": "\n".join([markdown(results), *map(source, reports)])}


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
