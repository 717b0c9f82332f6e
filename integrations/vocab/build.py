"""`hero-plugin vocab build` and `apply`: open-vocabulary rewordings of an annotation file, with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hero_plugin.integrations.annotations import ReadReport, load_durations, read_annotations, write_annotations
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.annotations.detect import format_name
from hero_plugin.integrations.data_cli import bar
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.interrupts import Interrupted, Interrupts
from hero_plugin.integrations.records import REWORDED, Record
from hero_plugin.integrations.vocab.building import Builder, Journal, Limits, checksum, choose
from hero_plugin.integrations.vocab.chat import Chat, ChatConfig
from hero_plugin.integrations.vocab.checking import CheckConfig, Checks, Files, make_checks
from hero_plugin.integrations.vocab.decisions import Undecided, apply_decisions, load_decisions
from hero_plugin.integrations.vocab.rewording import is_reworded, reworded_record
from hero_plugin.integrations.vocab.sources import Paraphrases, Source
from hero_plugin.integrations.vocab.swaps import WordSwaps
from hero_plugin.integrations.vocab.thesaurus import LexiconThesaurus, WordNetThesaurus
from hero_plugin.integrations.vocab.wordnet import open_wordnet

__all__ = ["ApplyConfig", "BuildConfig", "apply", "build", "manifest_path", "read_built"]

_KEEPS_LINKS = {"charades-sta": "captions"}
"""Charades-STA text has no place for the link to the original query."""

SourceName = Literal["lexicon", "wordnet", "chat", "paraphrases"]
Relation = Literal["synonym", "hypernym"]


@dataclass(frozen=True)
class BuildConfig:
    """Make open-vocabulary rewordings of an annotation file: each says a word that training never had, means the same
    as its original, and keeps the original's moments. OUTPUT.manifest.json says how it came about."""

    input: Path
    """Annotations to reword, any format."""
    output: Path
    """The file to write; OUTPUT.manifest.json comes with it."""
    check: Annotated[CheckConfig, tyro.conf.arg(name="")]
    source: SourceName = "lexicon"
    """Where rewordings come from: a lexicon file, WordNet, a language model, or a file of ready paraphrases."""
    lexicon: Path | None = None
    """JSON of words and their synonyms, for --source lexicon."""
    relations: tuple[Relation, ...] = ("synonym",)
    """Hypernyms ("wine" to "alcohol") are many more, and more often wrong."""
    paraphrases: Path | None = None
    """For --source paraphrases: lines of JSON {"query" or "original", "sentence"}, or original, tab, paraphrase."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)
    seed: int = 0
    """Another seed, another choice among what passes."""
    to: str = ""
    """Format of the output: the input's, or captions where that is charades-sta, which has no place for the link to the
    original query."""
    durations: Files = ()
    """Video lengths where the input has none (Charades-STA text)."""
    on_broken: OnBroken = "drop"
    """Queries that cannot be used: leave them out, or stop."""
    decisions: Path | None = None
    """What a reviewer decided (the review page's export), applied to the result."""
    undecided: Undecided = "keep"
    """What becomes of rewordings without a decision."""
    resume: bool = False
    """Continue a stopped build."""
    overwrite: bool = False
    """Replace an existing output."""


def manifest_path(output: Path) -> Path:
    return output.with_name(output.name + ".manifest.json")


def build(config: BuildConfig) -> None:
    """Run the command. Raises Interrupted where it was stopped; the journal then holds what is done."""
    _claim(config)
    report = ReadReport()
    with bar(f"reading {config.input.name}") as progress:
        records = read_annotations(
            config.input,
            durations=load_durations(list(config.durations)) if config.durations else None,
            on_outside="keep",
            on_broken=config.on_broken,
            report=report,
            progress=progress,
        )
    checks = make_checks(config.check)
    source = _source(config, checks)
    target = format_name(config.to) if config.to else _KEEPS_LINKS.get(report.format, report.format)
    facts = {
        "input": {"file": config.input.name, "sha256": checksum(config.input), "format": report.format},
        "source": source.describe(),
        **checks.facts,
    }
    builder = Builder(source, checks.filters, checks.unseen, checks.tagger, config.limits.max_changes)
    identity = json.dumps([facts, config.limits.max_changes, config.on_broken], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    config.output.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(config.output.with_name(config.output.name + ".journal"), fingerprint, config.resume)
    try:
        with Interrupts() as interrupts, bar("rewording") as progress:
            whole = builder.run(records, journal, lambda: interrupts.requested, progress)
        if not whole:
            raise Interrupted(
                f"stopped after {journal.done} of {len(records)} queries; the same command with --resume goes on"
            )
        rows = list(journal.rows())
    finally:
        journal.close()
    chosen, left_out = choose(records, [passed for passed, _ in rows], config.limits, config.seed)
    counts: Counter[str] = sum((each for _, each in rows), Counter())
    counts.update(left_out)
    built = [
        reworded_record(record, rewording, number, source.name)
        for record, rewordings in zip(records, chosen, strict=True)
        for number, rewording in enumerate(rewordings, 1)
    ]
    if not built:
        most = ", ".join(f"{name} {count}" for name, count in counts.most_common(5))
        raise UserError(f"no rewording passed ({most}); journal: {journal.path}; another source, or looser filters?")
    decided: dict[str, Any] | None = None
    if config.decisions is not None:
        built, decided = _decide(built, config.decisions, config.undecided, checks, records)
    write_annotations(built, config.output, format=target)
    manifest = {
        **facts,
        "seed": config.seed,
        "limits": {"per_query": config.limits.per_query, "per_word": config.limits.per_word},
        "max_changes": config.limits.max_changes,
        "queries": len(records),
        "queries_left_out": len(report.dropped),
        "turned_down": {name: counts[name] for name in sorted(counts) if name != "proposed"},
        "proposed": counts["proposed"],
        "passed": sum(len(passed) for passed, _ in rows),
        "decisions": decided,
        **_summary(built),
    }
    _finish(config.output, target, manifest)
    journal.close(remove=True)
    print(f"{config.output}: {len(built)} rewordings of {len({r.extra[REWORDED]['query'] for r in built})} queries")
    _print(manifest)


@dataclass(frozen=True)
class ApplyConfig:
    """Apply a reviewer's decisions to a built file: accepted stay, rejected go, edited are checked anew."""

    input: Path
    """A file that `vocab build` made."""
    decisions: Path
    """What the review page exported."""
    output: Path
    """The file to write, with a manifest."""
    check: Annotated[CheckConfig, tyro.conf.arg(name="")]
    undecided: Undecided = "keep"
    """What becomes of rewordings without a decision."""
    overwrite: bool = False
    """Replace an existing output."""


def apply(config: ApplyConfig) -> None:
    """Run the command."""
    _claim(config)
    report = ReadReport()
    built = read_built(config.input, report)
    checks = make_checks(config.check)
    kept, decided = _decide(built, config.decisions, config.undecided, checks, ())
    write_annotations(kept, config.output, format=report.format)
    before = manifest_path(config.input)
    manifest = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else dict(checks.facts)
    manifest |= {"decisions": decided, **_summary(kept)}
    _finish(config.output, report.format, manifest)
    print(f"{config.output}: {len(kept)} of {len(built)} rewordings")
    _print(manifest)


def read_built(path: Path, report: ReadReport | None = None) -> list[Record]:
    """The queries of a file that `vocab build` made. Raises ``UserError`` where none has a link to its original."""
    records = read_annotations(path, on_outside="keep", report=report)
    if not any(map(is_reworded, records)):
        raise UserError(f"{path} has no links to original queries: expected a file of `hero-plugin vocab build`")
    return records


def _claim(config: BuildConfig | ApplyConfig) -> None:
    """Raise ``UserError`` where the output would take the place of a file that was not given up."""
    if config.output.exists() and (not config.overwrite or config.output.resolve() == config.input.resolve()):
        raise UserError(f"{config.output} exists already: add --overwrite, or name another file (never the input)")


def _source(config: BuildConfig, checks: Checks) -> Source:
    if config.source == "lexicon":
        if config.lexicon is None:
            raise UserError("--source lexicon needs --lexicon FILE (JSON of words and their synonyms)")
        return WordSwaps(LexiconThesaurus(config.lexicon, checksum(config.lexicon)), config.relations)
    if config.source == "wordnet":
        wordnet = checks.wordnet or open_wordnet(config.check.wordnet)
        return WordSwaps(WordNetThesaurus(wordnet), config.relations)
    if config.source == "chat":
        return Chat(config.chat, config.seed)
    if config.paraphrases is None:
        raise UserError("--source paraphrases needs --paraphrases FILE")
    return Paraphrases(config.paraphrases, checksum(config.paraphrases))


def _decide(
    built: Sequence[Record], file: Path, undecided: Undecided, checks: Checks, originals: Sequence[Record]
) -> tuple[list[Record], dict[str, Any]]:
    decisions = load_decisions(file)
    kept, counts, complaints = apply_decisions(
        built, decisions, checks.filters, checks.unseen, checks.tagger, undecided, originals
    )
    for complaint in complaints:
        print(f"  edit turned down: {complaint}")
    if not kept:
        raise UserError(f"{file} leaves no rewording")
    return kept, {
        "file": file.name,
        "sha256": checksum(file),
        "undecided_are": undecided,
        **dict(sorted(counts.items())),
    }


def _summary(built: Sequence[Record]) -> dict[str, Any]:
    links = [record.extra[REWORDED] for record in built if REWORDED in record.extra]
    words = Counter(word for link in links for word in link["unseen"])
    return {
        "rewordings": len(links),
        "reworded_queries": len({link["query"] for link in links}),
        "by_kind": dict(sorted(Counter(link["kind"] for link in links).items())),
        "by_unseen_words": {str(n): c for n, c in sorted(Counter(len(link["unseen"]) for link in links).items())},
        "new_words": len(words),
        "most_used": dict(words.most_common(20)),
    }


def _finish(output: Path, target: str, manifest: dict[str, Any]) -> None:
    manifest["output"] = {"file": output.name, "format": target, "sha256": checksum(output)}
    write_text(manifest_path(output), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _print(manifest: dict[str, Any]) -> None:
    if "proposed" in manifest:
        down = ", ".join(f"{name} {count:,}" for name, count in manifest["turned_down"].items())
        print(f"  {manifest['proposed']:,} proposed, {manifest['passed']:,} passed; turned down: {down}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
    words = ", ".join(f"{word} {count}" for word, count in list(manifest["most_used"].items())[:8])
    print(f"  {kinds}; {manifest['new_words']} new words, most often {words}")
    if manifest.get("decisions"):
        numbers = {key: value for key, value in manifest["decisions"].items() if isinstance(value, int)}
        print("  decisions: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items()))
