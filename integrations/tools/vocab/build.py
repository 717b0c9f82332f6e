"""Rewordings of an annotation file, with their manifest: the commands ``vocab build`` and ``vocab apply``."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
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
from hero_plugin.integrations.data.records import REWORDED, Record, Rewording, is_reworded, reworded_record
from hero_plugin.integrations.data.words import load_word_vectors, open_tokenizer, tokenize
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import checksum, write_json
from hero_plugin.integrations.support.process import Interrupted, Interrupts
from hero_plugin.integrations.tools.vocab.builder import Builder, BuildJournal, ChoiceLimits, choose
from hero_plugin.integrations.tools.vocab.english import find_tagger, package_versions
from hero_plugin.integrations.tools.vocab.filters import (
    AgreementFilter,
    Checks,
    CollisionFilter,
    KnownWordsFilter,
    ProtectedFilter,
    SenseFilter,
    SimilarityFilter,
    UnseenFilter,
)
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordNet, WordSimilarity, find_wordnet
from hero_plugin.integrations.tools.vocab.phrasebook import PHRASEBOOK, PhraseSwaps, read_phrasebook
from hero_plugin.integrations.tools.vocab.review import Files, Undecided, apply_decisions, check_overwrite, read_built
from hero_plugin.integrations.tools.vocab.sources import Chat, ChatConfig, CombinedSource, Paraphrases, Source
from hero_plugin.integrations.tools.vocab.swaps import LexiconThesaurus, WordNetThesaurus, WordSwaps


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


def make_checks(config: CheckConfig) -> Checks:
    """Read the training files, the vectors and WordNet, and make the filters.

    Raises:
        UserError: Something is missing.
    """
    packages = package_versions()
    tokenizer = open_tokenizer(config.tokenizer)
    training = [record for file in config.train for record in read_sentences(file)]
    vocabulary = training_vocabulary(tokenizer(record.sentence) for record in training)
    tagger = find_tagger()
    assert tagger is not None  # lemminflect is there
    wordnet = WordNet(find_wordnet(config.wordnet)) if config.use_wordnet else None
    meaning = WordSimilarity(load_word_vectors(config.words))
    judge = SenseJudge(wordnet, meaning)
    unseen, collision = UnseenFilter(vocabulary, tokenizer), CollisionFilter(meaning)
    thresholds = (config.similarity, config.hypernym_similarity, config.sentence_similarity)
    similarity = SimilarityFilter(meaning, judge.context, *thresholds)
    filters = (
        unseen,
        KnownWordsFilter(config.frequency),
        ProtectedFilter(wordnet),
        AgreementFilter(wordnet),
        similarity,
        SenseFilter(judge if wordnet else None, config.sense, config.own_sense),
        collision,
    )
    facts = {
        "training": [_file_facts(file) for file in config.train],
        "training_words": len(vocabulary),
        "tokenizer": config.tokenizer,
        "word_vectors": _file_facts(config.words),
        "wordnet": wordnet and {"data.noun sha256": checksum(wordnet.folder / "data.noun")},
        "tagger": tagger.name,
        "packages": packages,
        "filters": {each.name: each.settings for each in filters},
    }
    return Checks(filters, unseen, similarity, collision, tagger, wordnet, facts)


def _file_facts(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": checksum(path)}


_KEEPS_LINKS = {"charades-sta": "captions", "json-array": "qvhighlights"}
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
    """Write the file of ``hero-plugin vocab build``.

    Raises:
        Interrupted: It was stopped; the journal holds what is finished.
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
    sources = [_source(name, config, checks) for name in dict.fromkeys(config.source)]
    source = sources[0] if len(sources) == 1 else CombinedSource(sources)
    facts = {
        "input": {**_file_facts(config.input), "format": report.format},
        "source": source.describe(),
        **checks.facts,
    }
    passed, counts, journal = _passed(config, records, Builder(source, checks, config.limits.max_changes), facts)
    chosen, left_out = choose(records, passed, config.limits, config.seed)
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
        built, decided = apply_decisions(built, config.decisions, checks, config.undecided, records)
    target = format_name(config.to) if config.to else _KEEPS_LINKS.get(report.format, report.format)
    write_annotations(built, config.output, format=target)
    summary = _summary(built)
    print(f"{config.output}: {len(built)} rewordings of {summary['reworded_queries']} queries")
    manifest = {
        **facts,
        "seed": config.seed,
        "limits": asdict(config.limits),
        "queries": len(records),
        "queries_left_out": len(report.dropped),
        "turned_down": {name: counts[name] for name in sorted(counts) if name != "proposed"},
        "proposed": counts["proposed"],
        "passed": sum(map(len, passed)),
        "decisions": decided,
        **summary,
    }
    _write_manifest(config.output, target, manifest)
    journal.close(remove=True)


def _passed(
    config: BuildConfig, records: Sequence[Record], builder: Builder, facts: dict[str, Any]
) -> tuple[list[list[Rewording]], Counter[str], BuildJournal]:
    """Return what passed the filters per query, the counts of what did not, and the journal that holds both."""
    identity = json.dumps([facts, config.limits.max_changes, config.on_broken], sort_keys=True)
    fingerprint = hashlib.sha256(identity.encode()).hexdigest()
    config.output.parent.mkdir(parents=True, exist_ok=True)
    journal = BuildJournal(config.output.with_name(config.output.name + ".journal"), fingerprint, config.resume)
    try:
        with Interrupts() as interrupts, bar("rewording") as progress:
            if not builder.run(records, journal, lambda: interrupts.requested, progress):
                done = f"{journal.done} of {len(records)} queries"
                raise Interrupted(f"stopped after {done}; the same command with --resume goes on")
        rows = list(journal.rows())
    finally:
        journal.close()
    return [passed for passed, _ in rows], sum((counts for _, counts in rows), Counter()), journal


def _source(name: SourceName, config: BuildConfig, checks: Checks) -> Source:
    if name == "phrasebook":
        return PhraseSwaps(read_phrasebook(config.phrasebook), config.phrasebook.name, checksum(config.phrasebook))
    if name == "lexicon":
        if config.lexicon is None:
            raise UserError("--source lexicon needs --lexicon FILE (JSON of words and their synonyms)")
        return WordSwaps(LexiconThesaurus(config.lexicon, checksum(config.lexicon)), config.relations)
    if name == "wordnet":
        wordnet = checks.wordnet or WordNet(find_wordnet(config.check.wordnet))
        return WordSwaps(WordNetThesaurus(wordnet), config.relations)
    if name == "chat":
        return Chat(config.chat, config.seed)
    if config.paraphrases is None:
        raise UserError("--source paraphrases needs --paraphrases FILE")
    return Paraphrases(config.paraphrases, checksum(config.paraphrases))


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
    """Write the file of ``hero-plugin vocab apply``."""
    check_overwrite(config.output, config.input, config.overwrite)
    report = ReadReport()
    built = read_built(config.input, report)
    checks = make_checks(config.check)
    kept, decided = apply_decisions(built, config.decisions, checks, config.undecided)
    write_annotations(kept, config.output, format=report.format)
    before = _manifest_path(config.input)
    manifest = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else checks.facts
    manifest = {**manifest, "decisions": decided, **_summary(kept)}
    print(f"{config.output}: {len(kept)} of {len(built)} rewordings")
    _write_manifest(config.output, report.format, manifest)


def _manifest_path(output: Path) -> Path:
    return output.with_name(output.name + ".manifest.json")


def _summary(built: Sequence[Record]) -> dict[str, Any]:
    """Return counts of the rewordings, for the manifest."""
    links = [record.extra[REWORDED] for record in built if is_reworded(record)]
    words = Counter(word for link in links for word in _new_words(link))
    return {
        "rewordings": len(links),
        "reworded_queries": len({link["query"] for link in links}),
        "by_kind": _counts(link["kind"] for link in links),
        "by_part": _counts(link.get("part") or "unknown" for link in links),
        "by_changes": _counts(len(link["changes"]) for link in links),
        "by_unseen_words": _counts(len(link["unseen"]) for link in links),
        "new_words": len(words),
        "most_used": dict(words.most_common(20)),
    }


def _counts(labels: Iterable[Any]) -> dict[str, int]:
    return {str(label): count for label, count in sorted(Counter(labels).items())}


def _new_words(link: dict[str, Any]) -> list[str]:
    """Return the unseen words that the changes brought; others stood in the original."""
    brought = {word for change in link["changes"] for word in tokenize(change["new"])}
    return [word for word in link["unseen"] if word in brought]


def _write_manifest(output: Path, target: str, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the output's checksum, and print its counts."""
    facts = {"file": output.name, "format": target, "sha256": checksum(output)}
    write_json(_manifest_path(output), {**manifest, "output": facts}, indent=1, ascii=False)
    if "proposed" in manifest:
        down = ", ".join(f"{name} {count:,}" for name, count in manifest["turned_down"].items())
        print(f"  {manifest['proposed']:,} proposed, {manifest['passed']:,} passed; turned down: {down}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
    parts = ", ".join(f"{count} {part}" for part, count in manifest["by_part"].items())
    words = ", ".join(f"{word} {count}" for word, count in list(manifest["most_used"].items())[:8])
    print(f"  {kinds}; {parts}; {manifest['new_words']} new words, most often {words}")
    if manifest.get("decisions"):
        numbers = {key: value for key, value in manifest["decisions"].items() if isinstance(value, int)}
        print("  decisions: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items()))
