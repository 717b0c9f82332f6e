"""Review of rewordings by people: a page to decide in, decisions to apply, a sample to label.

The commands ``hero-plugin vocab review``, ``sample`` and ``rate``; ``vocab build`` and ``apply`` apply decisions.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tyro

from hero_plugin.integrations.data import ReadReport, Record, is_reworded, read_annotations
from hero_plugin.integrations.data.records import REWORDED, original_record, reworded_record
from hero_plugin.integrations.support import UserError, checksum, write_text
from hero_plugin.integrations.support.errors import not_utf8
from hero_plugin.integrations.support.files import check_free
from hero_plugin.integrations.tools.vocab.english import make_query
from hero_plugin.integrations.tools.vocab.filters import Checks, first_reason
from hero_plugin.integrations.tools.vocab.sources import draw, paraphrase


def read_built(path: Path, report: ReadReport | None = None) -> list[Record]:
    """Read a file made by ``vocab build``; raise ``UserError`` where no query has a link to its original."""
    records = read_annotations(path, on_outside="keep", report=report)
    if not any(map(is_reworded, records)):
        raise UserError(f"{path} has no links to original queries: expected a file of `hero-plugin vocab build`")
    return records


@dataclass(frozen=True)
class ReviewConfig:
    """Make a page to review rewordings in a browser: accept, reject or edit each by a key, then export the decisions.

    The page is one file, asks for nothing else and sends nothing; the browser keeps what was decided. The exported
    decisions go into `vocab apply`, or into `vocab build --decisions`.
    """

    input: Path
    """A file that `vocab build` made."""
    output: Path
    """The HTML file to write."""
    overwrite: bool = False
    """Replace an existing output."""


def review(config: ReviewConfig) -> None:
    """Write the page of ``hero-plugin vocab review``."""
    check_free(config.output, config.overwrite, config.input)
    records = read_built(config.input)
    write_text(config.output, review_page(records, config.input.name, checksum(config.input)))
    print(f"{config.output}: {sum(map(is_reworded, records))} rewordings; open it in a browser")


def review_page(records: Sequence[Record], file: str, checksum: str) -> str:
    """Return the HTML page for reworded records; by the ``checksum`` of their ``file`` the browser keeps decisions."""
    items = [_shown(record) for record in records if is_reworded(record)]
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


Undecided = Literal["keep", "drop"]


class Decision(NamedTuple):
    """Decision about one rewording: ``accept``, ``reject`` or ``edit``, and what the reviewer made of the sentence."""

    verdict: str
    sentence: str = ""
    of: str = ""
    """The rewording that the reviewer saw; empty in files of earlier pages."""


def load_decisions(path: Path) -> dict[str, Decision]:
    """Load what the review page exports: ``{"decisions": {id: {"verdict", "sentence", "of"}}}``.

    Raises ``UserError`` where the file has another form.
    """
    shape = 'expected {"decisions": {ID: {"verdict": "accept", "reject" or "edit", "sentence": TEXT}}}'
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))["decisions"]
        found = {
            key: Decision(value["verdict"], value.get("sentence", ""), value.get("of", ""))
            for key, value in raw.items()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no decisions ({error}); {shape}, as the review page exports") from error
    for key, decision in found.items():
        if decision.verdict not in ("accept", "reject") and (decision.verdict != "edit" or not decision.sentence):
            raise UserError(f"{path}: {key}: {decision}; {shape}")
    return found


def apply_decisions(
    built: Sequence[Record], file: Path, checks: Checks, undecided: Undecided, originals: Sequence[Record] = ()
) -> tuple[list[Record], dict[str, Any]]:
    """Apply a file of decisions to built records.

    Edited sentences must pass the filters like any paraphrase; why one does not is printed. Records without a link to
    an original stay as they are. ``originals`` are all queries of the file that was reworded, if at hand: an edit must
    not say what another one says.

    Returns:
        The records that stay, and the facts for the manifest.

    Raises:
        UserError: No record stays, or a decision is about none of them, or about another sentence.
    """
    decisions = load_decisions(file)
    kept: list[Record] = []
    counts: Counter[str] = Counter(accepted=0, edited=0, rejected=0, undecided=0, edits_turned_down=0)
    by_video: dict[str, list[Record]] = defaultdict(list)
    for record in originals or map(original_record, built):
        by_video[record.video_id].append(record)
    unknown = set(decisions)
    for record in built:
        if not is_reworded(record):
            kept.append(record)
            continue
        link = record.extra[REWORDED]
        unknown.discard(link["id"])
        decision = decisions.get(link["id"])
        if decision is not None and decision.of and decision.of != record.sentence:
            raise UserError(
                f"{file}: the decision on {link['id']} is about {decision.of!r}, and the rewording is "
                f"{record.sentence!r} now: it was built again, with other inputs; review it again"
            )
        if decision is None:
            counts["undecided"] += 1
            kept += [record] if undecided == "keep" else []
        elif decision.verdict == "reject":
            counts["rejected"] += 1
        elif decision.verdict == "accept":
            counts["accepted"] += 1
            kept.append(record)
        elif (edited := _edited(record, decision.sentence, by_video[record.video_id], checks)) is not None:
            counts["edited"] += 1
            kept.append(edited)
        else:
            counts["edits_turned_down"] += 1
    if unknown:
        first = ", ".join(sorted(unknown)[:3])
        raise UserError(f"{len(unknown)} decisions are about rewordings that are not in this file, such as {first}")
    if not kept:
        raise UserError(f"{file} leaves no rewording")
    facts = {"file": file.name, "sha256": checksum(file), "undecided_are": undecided}
    return kept, {**facts, **dict(sorted(counts.items()))}


def _edited(record: Record, sentence: str, siblings: Sequence[Record], checks: Checks) -> Record | None:
    """Return the record with the reviewer's sentence; None, with the reason printed, if a filter turns it down."""
    original, link = original_record(record), record.extra[REWORDED]
    query = make_query(original, siblings, checks.tagger)
    edited = paraphrase(query, sentence)
    why = first_reason(checks.filters, query, edited) if edited else ("edit", "it is the original sentence")
    if edited is None or why is not None:
        print(f"  edit turned down: {link['id']}: {sentence!r}: {': '.join(why or ())}")
        return None
    finished = replace(edited, unseen=checks.unseen.words(edited.sentence))
    number = int(link["id"].rpartition("~")[2])
    made = reworded_record(original, finished, number, f"{link['source']}, edited")
    return made.replace(query_id=record.query_id)


LABELS = ("ok", "agreement", "sense", "no word", "meaning", "odd")
"""ok; wrong agreement; wrong sense; not a word; changed meaning; odd but understandable."""
ERRORS = ("agreement", "sense", "no word", "meaning")
_HEAD = "label\tid\tchange\toriginal\treworded"


@dataclass(frozen=True)
class SampleConfig:
    """Draw rewordings to read and label, so that `vocab rate` can say how often the builder errs."""

    input: tuple[Path, ...]
    """Files that `vocab build` made; the sample is of all of them together."""
    output: Path
    """The table to write, tab-separated, its first column empty for the label."""
    number: int = 200
    """Rewordings in the sample."""
    seed: int = 0
    """Another seed, another sample."""
    overwrite: bool = False
    """Replace an existing output, and the labels in it."""


def sample(config: SampleConfig) -> None:
    """Write the table of ``hero-plugin vocab sample``."""
    if config.number < 1:
        raise UserError(f"--number must be at least 1, got {config.number}")
    check_free(config.output, config.overwrite, *config.input)
    built = [record for file in config.input for record in read_annotations(file, on_outside="keep")]
    drawn = draw_sample(built, config.number, config.seed)
    lines = [f"# write a label in the first column: {', '.join(LABELS)}", _HEAD]
    for record in drawn:
        link = record.extra[REWORDED]
        changes = "; ".join(f"{change['old']} -> {change['new']}" for change in link["changes"])
        lines.append("\t".join(("", link["id"], changes, link["sentence"], record.sentence)))
    write_text(config.output, "\n".join(lines) + "\n")
    print(f"{config.output}: {len(drawn)} rewordings; label each with one of {', '.join(LABELS)}")


def draw_sample(records: Sequence[Record], number: int, seed: int) -> list[Record]:
    """Return ``number`` rewordings drawn by a seed, in the order drawn; all of them if there are fewer."""
    reworded = [record for record in records if is_reworded(record)]
    if not reworded:
        raise UserError("no rewordings here: expected a file of `hero-plugin vocab build`")
    return sorted(reworded, key=lambda record: draw(seed, record.extra[REWORDED]["id"]))[:number]


@dataclass(frozen=True)
class RateConfig:
    """Say how often the builder errs, by the labels of samples."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Tables of `vocab sample`, labelled."""


def rate(config: RateConfig) -> None:
    """Print the error rates of ``hero-plugin vocab rate``."""
    from scipy.stats import binomtest

    for file in config.files:
        counts = read_labels(file)
        number, errors = counts.total(), sum(counts[label] for label in ERRORS)
        interval = binomtest(errors, number).proportion_ci(method="wilson")
        print(f"{file.name}: " + ", ".join(f"{counts[label]} {label}" for label in LABELS))
        share, between = f"{100 * errors / number:.1f} %", f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
        print(f"  {errors} errors in {number}: {share}, 95 % interval {between}")


def read_labels(path: Path) -> Counter[str]:
    """Return the labels of a sample that somebody has read.

    Raises ``UserError`` where a label is missing or unknown, or the file is not UTF-8.
    """
    counts: Counter[str] = Counter()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {not_utf8(error)}: save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#") or line == _HEAD or not line.strip():
            continue
        label = line.partition("\t")[0].strip()
        if label not in LABELS:
            raise UserError(f"{path}:{number}: the label must be one of {', '.join(LABELS)}, got {label!r}")
        counts[label] += 1
    if not counts:
        raise UserError(f"{path} holds no labels")
    return counts
