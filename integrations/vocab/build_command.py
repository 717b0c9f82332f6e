"""Command ``hero-plugin vocab build``: open-vocabulary rewordings of an annotation file, with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hero_plugin.integrations.annotations import ReadReport, load_durations, read_annotations, write_annotations
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.annotations.detect import Format, format_name
from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.interrupts import Interrupted, Interrupts
from hero_plugin.integrations.progress_bar import bar
from hero_plugin.integrations.records import REWORDED
from hero_plugin.integrations.vocab.apply_command import apply_decision_file
from hero_plugin.integrations.vocab.builder import Builder
from hero_plugin.integrations.vocab.built_file import check_overwrite, print_summary, summary, write_manifest
from hero_plugin.integrations.vocab.chat import Chat, ChatConfig
from hero_plugin.integrations.vocab.checking import BuildChecks, CheckConfig, Files, make_checks
from hero_plugin.integrations.vocab.choice import ChoiceLimits, choose
from hero_plugin.integrations.vocab.decisions import Undecided
from hero_plugin.integrations.vocab.journal import BuildJournal
from hero_plugin.integrations.vocab.phrase_swaps import PhraseSwaps
from hero_plugin.integrations.vocab.phrasebook import PHRASEBOOK, read_phrasebook
from hero_plugin.integrations.vocab.rewording import reworded_record
from hero_plugin.integrations.vocab.sources import CombinedSource, Paraphrases, Source
from hero_plugin.integrations.vocab.swaps import WordSwaps
from hero_plugin.integrations.vocab.thesaurus import LexiconThesaurus, WordNetThesaurus
from hero_plugin.integrations.vocab.wordnet import open_wordnet

__all__ = ["BuildConfig", "build"]

_KEEPS_LINKS = {"charades-sta": "captions"}
"""Charades-STA text has no place for the link to the original query."""

SourceName = Literal["phrasebook", "lexicon", "wordnet", "chat", "paraphrases"]
Relation = Literal["synonym", "hypernym"]


@dataclass(frozen=True)
class BuildConfig:
    """Make open-vocabulary rewordings of an annotation file.

    Each says a word that training never had, means the same as its original and keeps the original's moments.
    OUTPUT.manifest.json says how they came about. Ctrl-C stops; the same command with --resume goes on.
    """

    input: Path
    """Annotations to reword, any format."""
    output: Path
    """The file to write; OUTPUT.manifest.json comes with it."""
    check: Annotated[CheckConfig, tyro.conf.arg(name="")]
    source: tuple[SourceName, ...] = ("lexicon",)
    """Where rewordings come from, one or several: the package's phrasebook, a lexicon file, WordNet, a language model,
    a file of ready paraphrases."""
    phrasebook: Path = PHRASEBOOK
    """Another phrasebook, for --source phrasebook."""
    lexicon: Path | None = None
    """JSON of words and their synonyms, for --source lexicon."""
    relations: tuple[Relation, ...] = ("synonym",)
    """Hypernyms ("wine" to "alcohol") are many more, and more often wrong."""
    paraphrases: Path | None = None
    """For --source paraphrases: lines of JSON {"query" or "original", "sentence"}, or original, tab, paraphrase."""
    chat: ChatConfig = field(default_factory=ChatConfig)
    limits: Annotated[ChoiceLimits, tyro.conf.arg(name="")] = field(default_factory=ChoiceLimits)
    seed: int = 0
    """Another seed, another choice among what passes."""
    to: Format | None = None
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


def build(config: BuildConfig) -> None:
    """Run the command.

    Raises:
        Interrupted: it was stopped; the journal holds what is finished.
    """
    check_overwrite(config.output, config.input, config.overwrite)
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
    journal = BuildJournal(config.output.with_name(config.output.name + ".journal"), fingerprint, config.resume)
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
        reworded_record(record, rewording, number, rewording.source or source.name)
        for record, rewordings in zip(records, chosen, strict=True)
        for number, rewording in enumerate(rewordings, 1)
    ]
    if not built:
        most = ", ".join(f"{name} {count}" for name, count in counts.most_common(5))
        raise UserError(f"no rewording passed ({most}); journal: {journal.path}; another source, or looser filters?")
    decided: dict[str, Any] | None = None
    if config.decisions is not None:
        built, decided = apply_decision_file(built, config.decisions, config.undecided, checks, records)
    write_annotations(built, config.output, format=target)
    manifest = {
        **facts,
        "seed": config.seed,
        "limits": asdict(config.limits),
        "queries": len(records),
        "queries_left_out": len(report.dropped),
        "turned_down": {name: counts[name] for name in sorted(counts) if name != "proposed"},
        "proposed": counts["proposed"],
        "passed": sum(len(passed) for passed, _ in rows),
        "decisions": decided,
        **summary(built),
    }
    write_manifest(config.output, target, manifest)
    journal.close(remove=True)
    print(f"{config.output}: {len(built)} rewordings of {len({r.extra[REWORDED]['query'] for r in built})} queries")
    print_summary(manifest)


def _source(config: BuildConfig, checks: BuildChecks) -> Source:
    found = [_one_source(name, config, checks) for name in dict.fromkeys(config.source)]
    return found[0] if len(found) == 1 else CombinedSource(found)


def _one_source(name: SourceName, config: BuildConfig, checks: BuildChecks) -> Source:
    if name == "phrasebook":
        return PhraseSwaps(read_phrasebook(config.phrasebook), config.phrasebook.name, checksum(config.phrasebook))
    if name == "lexicon":
        if config.lexicon is None:
            raise UserError("--source lexicon needs --lexicon FILE (JSON of words and their synonyms)")
        return WordSwaps(LexiconThesaurus(config.lexicon, checksum(config.lexicon)), config.relations)
    if name == "wordnet":
        wordnet = checks.wordnet or open_wordnet(config.check.wordnet)
        return WordSwaps(WordNetThesaurus(wordnet), config.relations)
    if name == "chat":
        return Chat(config.chat, config.seed)
    if config.paraphrases is None:
        raise UserError("--source paraphrases needs --paraphrases FILE")
    return Paraphrases(config.paraphrases, checksum(config.paraphrases))
