"""Command ``hero-plugin vocab build``: open-vocabulary rewordings of an annotation file, with their manifest."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hero_plugin.integrations.data.annotations import (
    Format,
    format_name,
    read_annotations,
    read_sentences,
    write_annotations,
)
from hero_plugin.integrations.data.checks import OnBroken, ReadReport, load_durations
from hero_plugin.integrations.data.records import REWORDED, Record, reworded_record
from hero_plugin.integrations.data.words import load_word_vectors, open_tokenizer
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import checksum
from hero_plugin.integrations.support.process import Interrupted, Interrupts
from hero_plugin.integrations.tools.vocab.builder import (
    Builder,
    BuildJournal,
    ChoiceLimits,
    check_overwrite,
    choose,
    manifest_path,
    print_summary,
    read_built,
    summary,
    write_manifest,
)
from hero_plugin.integrations.tools.vocab.english import Tagger, find_tagger, need_english, versions
from hero_plugin.integrations.tools.vocab.filters import (
    CollisionFilter,
    Filter,
    KnownWordsFilter,
    ProtectedFilter,
    SenseFilter,
    SimilarityFilter,
    UnseenFilter,
)
from hero_plugin.integrations.tools.vocab.grammar import AgreementFilter
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordNet, WordSimilarity, find_wordnet, open_wordnet
from hero_plugin.integrations.tools.vocab.phrasebook import PHRASEBOOK, PhraseSwaps, read_phrasebook
from hero_plugin.integrations.tools.vocab.review import Undecided, apply_decisions, load_decisions
from hero_plugin.integrations.tools.vocab.sources import Chat, ChatConfig, CombinedSource, Paraphrases, Source
from hero_plugin.integrations.tools.vocab.swaps import LexiconThesaurus, WordNetThesaurus, WordSwaps

# Training vocabulary and filters of a build, from their flags.


Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]


@dataclass(frozen=True)
class CheckConfig:
    """Settings of the filters that a rewording must pass."""

    train: Files
    """Training annotations: a rewording must say a word that they do not."""
    words: Path
    """Word vectors, GloVe text or .npz: new words must be near the old ones, and have a vector at all."""
    tokenizer: str = "words"
    """What a word is: words, treebank, whitespace, stripped, letters, or MODULE:FUNCTION."""
    wordnet: Path | None = None
    """Folder of WordNet's files; nltk's data and Debian's wordnet-base are found by themselves."""
    use_wordnet: bool = True
    """Judge senses, fixed expressions and what verbs take by WordNet. Without it only commonest senses pass."""
    frequency: float = 2.5
    """How common a new word must be: Zipf scale, 2.5 is one in three million words."""
    similarity: float = 0.61
    """Least cosine of a word and its synonym."""
    hypernym_similarity: float = 0.65
    """Least cosine of a word and its hypernym."""
    sentence_similarity: float = 0.8
    """Least cosine of a sentence and its paraphrase."""
    sense: float = 0.5
    """Least probability that the old word has the shared sense in its query; a verb needs 0.1 more."""
    own_sense: float = 0.45
    """Least share of the shared sense in the new word's uses."""


@dataclass(frozen=True)
class BuildChecks:
    """The filters, in the order in which they judge, and what else they need."""

    filters: Sequence[Filter]
    unseen: UnseenFilter
    tagger: Tagger
    wordnet: WordNet | None
    facts: dict[str, Any]
    """For the manifest."""


def make_checks(config: CheckConfig) -> BuildChecks:
    """Read the training files, the vectors and WordNet, and make the filters.

    Raises:
        UserError: something is missing.
    """
    need_english()
    tokenizer = open_tokenizer(config.tokenizer)
    training = [record for file in config.train for record in read_sentences(file)]
    vocabulary = training_vocabulary(tokenizer(record.sentence) for record in training)
    tagger = find_tagger()
    assert tagger is not None  # lemminflect is there
    folder = find_wordnet(config.wordnet) if config.use_wordnet else None
    if config.use_wordnet and folder is None:
        how = "install Debian's wordnet-base or nltk's wordnet data, or name its folder with --wordnet"
        raise UserError(f"no WordNet on this machine: {how}, or go without (--no-use-wordnet), with more errors")
    wordnet = None if folder is None else WordNet(folder)
    meaning = WordSimilarity(load_word_vectors(config.words))
    contexts = SenseJudge(wordnet, meaning)
    unseen = UnseenFilter(vocabulary, tokenizer)
    filters: list[Filter] = [
        unseen,
        KnownWordsFilter(config.frequency),
        ProtectedFilter(wordnet),
        AgreementFilter(wordnet),
        SimilarityFilter(
            meaning,
            contexts.context,
            word=config.similarity,
            hypernym=config.hypernym_similarity,
            sentence=config.sentence_similarity,
        ),
        SenseFilter(contexts if wordnet else None, config.sense, config.own_sense),
        CollisionFilter(meaning),
    ]
    facts = {
        "training": [{"file": file.name, "sha256": checksum(file)} for file in config.train],
        "training_words": len(vocabulary),
        "tokenizer": config.tokenizer,
        "word_vectors": {"file": config.words.name, "sha256": checksum(config.words)},
        "wordnet": None if folder is None else {"data.noun sha256": checksum(folder / "data.noun")},
        "tagger": tagger.name,
        "packages": versions(),
        "filters": {each.name: each.describe() for each in filters},
    }
    return BuildChecks(filters, unseen, tagger, wordnet, facts)


# Command ``hero-plugin vocab apply``: apply a reviewer's decisions to a built file.


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
    check_overwrite(config.output, config.input, config.overwrite)
    report = ReadReport()
    built = read_built(config.input, report)
    checks = make_checks(config.check)
    kept, decided = apply_decision_file(built, config.decisions, config.undecided, checks, ())
    write_annotations(kept, config.output, format=report.format)
    before = manifest_path(config.input)
    manifest = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else dict(checks.facts)
    manifest |= {"decisions": decided, **summary(kept)}
    write_manifest(config.output, report.format, manifest)
    print(f"{config.output}: {len(kept)} of {len(built)} rewordings")
    print_summary(manifest)


def apply_decision_file(
    built: Sequence[Record], file: Path, undecided: Undecided, checks: BuildChecks, originals: Sequence[Record]
) -> tuple[list[Record], dict[str, Any]]:
    """Apply a file of decisions to built records; return what stays, and the facts for the manifest."""
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
