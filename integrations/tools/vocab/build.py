"""Rewordings of an annotation file, with their manifest: the commands ``vocab build`` and ``vocab apply``.

A query's proposals are filtered one query at a time, into a journal that a stopped build continues. When every query
is there, ``choose`` takes some of each, so that no new word serves too often.
"""

import hashlib
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hero_plugin.integrations import data
from hero_plugin.integrations.data import Record, Rewording, is_reworded, tokenize
from hero_plugin.integrations.data.annotations import format_name
from hero_plugin.integrations.data.records import REWORDED, reworded_record
from hero_plugin.integrations.support import Interrupted, Interrupts, UserError, checksum, write_json
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.files import check_free
from hero_plugin.integrations.tools.vocab import filters, sources
from hero_plugin.integrations.tools.vocab.english import TaggedQuery, make_query
from hero_plugin.integrations.tools.vocab.filters import Checks
from hero_plugin.integrations.tools.vocab.meaning import WordNet, find_wordnet
from hero_plugin.integrations.tools.vocab.phrasebook import PHRASEBOOK, PhraseSwaps, read_phrasebook
from hero_plugin.integrations.tools.vocab.review import Undecided, apply_decisions, read_built


class BuildJournal:
    """JSON lines of what passed, one per query, in order. The first line says what build it belongs to.

    Kept by hand: SQLite would need the same checks of the build and of the order.

    Attributes:
        rows: Of each query, what passed and the counts, as they are read from a file.
    """

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path = path
        whole = b""
        if path.exists():
            if not resume:
                raise UserError(f"{path} is what a stopped build left: continue it with --resume, or delete it")
            raw = path.read_bytes()
            whole = raw[: raw.rfind(b"\n") + 1]
            if whole and json.loads(whole.partition(b"\n")[0]).get("build") != fingerprint:
                raise UserError(f"{path} belongs to a build of other files or settings: use those, or delete it")
            if len(whole) < len(raw):  # a last line that was cut off
                path.write_bytes(whole)
        self.rows = [self._row(line) for line in whole.decode().split("\n")[1:-1]]
        self._stream = open(path, "a", encoding="utf-8", newline="\n")  # noqa: SIM115
        if not whole:
            self._stream.write(json.dumps({"build": fingerprint}) + "\n")

    def add(self, passed: Sequence[Rewording], counts: Counter[str]) -> None:
        """Add what passed for the next query."""
        row = {"passed": [rewording.to_json() for rewording in passed], "counts": dict(sorted(counts.items()))}
        line = json.dumps(row, ensure_ascii=False)
        self._stream.write(line + "\n")
        self.rows.append(self._row(line))
        if len(self.rows) % 50 == 0:
            self._stream.flush()

    @staticmethod
    def _row(line: str) -> tuple[list[Rewording], Counter[str]]:
        row = json.loads(line)
        return [Rewording.from_json(each) for each in row["passed"]], Counter(row["counts"])

    def close(self, remove: bool = False) -> None:
        """Close the file, and delete it if ``remove``."""
        self._stream.close()
        if remove:
            self.path.unlink(missing_ok=True)


def _proposals(
    several: Sequence[sources.Source], queries: Iterator[TaggedQuery]
) -> Iterator[tuple[TaggedQuery, list[Rewording]]]:
    """Iterate over queries with what the sources propose, in order; a language model gets several queries at once.

    Nothing else runs in its threads: WordNet's reader would lose its place in its files.
    """
    chat = next((source for source in several if isinstance(source, sources.Chat)), None)
    jobs = chat.jobs if chat else 1
    with ThreadPoolExecutor(jobs) as pool:

        def ask(query: TaggedQuery) -> tuple[TaggedQuery, Future[list[Rewording]] | None]:
            return query, pool.submit(list, chat.propose(query)) if chat else None

        asked = deque(map(ask, islice(queries, jobs)))
        while asked:
            query, answer = asked.popleft()
            proposals: list[Rewording] = []
            for source in several:
                found = answer.result() if answer and source is chat else source.propose(query)
                proposals += [replace(each, source=source.name) for each in found]
            yield query, proposals
            asked.extend(map(ask, islice(queries, 1)))


def _passing(
    query: TaggedQuery, proposals: Sequence[Rewording], checks: Checks, max_changes: int
) -> tuple[list[Rewording], Counter[str]]:
    """Return the rewordings that pass every filter, each once, and how many each filter turned down.

    Swaps that pass are combined, up to ``max_changes`` in one rewording: ``combined`` counts these.
    """
    counts: Counter[str] = Counter(proposed=len(proposals))
    kept: dict[str, Rewording] = {}
    swaps: list[sources.Swap] = []
    for proposal in proposals:
        turned_down = filters.first_reason(checks.filters, query, proposal)
        if turned_down is not None:
            counts[turned_down[0]] += 1
            continue
        if proposal.sentence.lower() in kept:
            counts["duplicate"] += 1
            continue
        if isinstance(proposal, sources.Swap):
            cosine = checks.similarity.cosine(proposal)
            change = replace(proposal.changes[0], similarity=None if cosine is None else round(cosine, 3))
            proposal = replace(proposal, changes=(change,))
            swaps.append(proposal)
        kept[proposal.sentence.lower()] = proposal
    for combination in sources.combine(query, swaps, max_changes):
        said = combination.sentence.lower()
        if said not in kept and checks.collision.reason(query, combination) is None:
            kept[said] = combination
            counts["combined"] += 1
    return [replace(each, unseen=checks.unseen.words(each.sentence)) for each in kept.values()], counts


_FEW = 3
"""Times that a word may serve in the smallest of files."""


@dataclass(frozen=True)
class ChoiceLimits:
    """Limits on how many rewordings are chosen."""

    per_query: int = 1
    """Rewordings of one query with each number of changes."""
    per_word: int = 200
    """Rewordings that one new word may serve; 0 for any number. Every Charades query has a person in it."""
    word_share: float = 1.0
    """Largest share of the file's rewordings that one new word may serve, over and above --per-word."""
    max_changes: int = 1
    """Changes in one rewording, where words and expressions are swapped: 2 gives rewordings with one and with two."""


def choose(
    records: Sequence[Record], passed: Sequence[Sequence[Rewording]], limits: ChoiceLimits, seed: int
) -> tuple[list[list[Rewording]], Counter[str]]:
    """Choose rewordings for the file.

    Queries come in an order drawn by the seed, so that a word with a limit is spread over the file; of a query's
    rewordings the one whose new words were used least comes first. Rewordings with one change are chosen first, then
    those with two. The share of a word is of the file that results: if frequent words make the file smaller, it is
    chosen anew with less of each.

    Returns:
        The rewordings to keep per record, and how many ``duplicate`` and ``per word`` left out.
    """
    most = limits.per_word or sum(map(len, passed))
    while True:
        chosen, counts, uses = _choose(records, passed, limits, seed, most)
        allowed = max(_FEW, int(limits.word_share * sum(map(len, chosen))))
        if uses <= allowed:
            return chosen, counts
        most = min(most - 1, max(allowed, uses - max(1, (uses - allowed) // 2)))


def _choose(
    records: Sequence[Record], passed: Sequence[Sequence[Rewording]], limits: ChoiceLimits, seed: int, most: int
) -> tuple[list[list[Rewording]], Counter[str], int]:
    """Return what is kept if a word is used at most ``most`` times, what is left out, and the most uses of a word."""
    chosen: list[list[Rewording]] = [[] for _ in records]
    counts: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    taken: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for record in records:
        taken[record.video_id].add(tuple(tokenize(record.sentence)))
    order = sorted(range(len(records)), key=lambda index: sources.draw(seed, records[index].query_id))

    def rank(query: str, rewording: Rewording) -> tuple[int, bytes]:
        served = max((uses[word] for word in rewording.unseen), default=0)
        return served, sources.draw(seed, f"{query} {rewording.sentence}")

    for number in range(1, limits.max_changes + 1):
        for index in order:
            record = records[index]
            some = [each for each in passed[index] if min(len(each.changes), limits.max_changes) == number]
            kept = 0
            for rewording in sorted(some, key=partial(rank, record.query_id)):
                if kept == limits.per_query:
                    break
                words = tuple(tokenize(rewording.sentence))
                if words in taken[record.video_id]:
                    counts["duplicate"] += 1
                elif any(uses[word] >= most for word in rewording.unseen):
                    counts["per word"] += 1
                else:
                    taken[record.video_id].add(words)
                    uses.update(rewording.unseen)
                    chosen[index].append(rewording)
                    kept += 1
    return chosen, counts, max(uses.values(), default=0)


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
    check: Annotated[filters.CheckConfig, tyro.conf.arg(name="")]
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
    chat: sources.ChatConfig = field(default_factory=sources.ChatConfig)
    limits: Annotated[ChoiceLimits, tyro.conf.arg(name="")] = field(default_factory=ChoiceLimits)
    seed: int = 0
    """Another seed, another choice among what passes."""
    to: data.Format | None = None
    """Format of the output: the input's, or captions where that is charades-sta, which has no place for the link to the
    original query."""
    durations: tuple[Path, ...] = ()
    """Video lengths where the input has none (Charades-STA text)."""
    on_broken: data.OnBroken = "drop"
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

    Raises ``Interrupted`` where it was stopped: the journal holds what is finished.
    """
    limits = config.limits
    if min(limits.per_query, limits.max_changes) < 1 or limits.per_word < 0 or not 0 < limits.word_share <= 1:
        raise UserError(
            "--per-query and --max-changes must be at least 1, --per-word at least 0, and --word-share, a share of the "
            f"file, between 0 and 1; got {limits.per_query}, {limits.max_changes}, {limits.per_word} and "
            f"{limits.word_share:g}"
        )
    lists = (config.phrasebook, config.lexicon, config.paraphrases, config.decisions)
    check_free(
        config.output, config.overwrite, config.input, *config.check.files, *config.durations, *filter(None, lists)
    )
    report = data.ReadReport()
    durations = data.load_durations(list(config.durations)) if config.durations else None
    records = data.read_many(
        [config.input], durations=durations, on_outside="keep", on_broken=config.on_broken, report=report
    )
    if report.dropped:
        print(f"{config.input}: left out {len(report.dropped)} queries that cannot be used; first {report.dropped[0]}")
    checks = Checks(config.check)
    several = [_source(name, config, checks) for name in dict.fromkeys(config.source)]
    of_each = [source.facts for source in several]
    facts = {
        "input": {**filters.file_facts(config.input), "format": report.format},
        "source": of_each[0] if len(of_each) == 1 else {"kind": "several", "sources": of_each},
        **checks.facts,
    }
    passed, counts, journal = _passed(config, records, several, checks, facts)
    chosen, left_out = choose(records, passed, limits, config.seed)
    proposed, combined = counts.pop("proposed"), counts.pop("combined", 0)
    down = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
    counts.update(left_out)
    built = [
        # Journals of earlier versions do not name a source that is the only one.
        reworded_record(record, rewording, number, rewording.source or several[0].name)
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
    data.write_annotations(built, config.output, format=target)
    summary, number = _summary(built), sum(map(len, passed))
    print(f"{config.output}: {len(built)} rewordings of {summary['reworded_queries']} queries")
    print(f"  {proposed:,} proposed, {number - combined:,} passed the filters; turned down: {down or 'none'}")
    print(f"  of these and {combined:,} combinations of them, the file has {sum(map(len, chosen)):,}")
    manifest = {
        **facts,
        "seed": config.seed,
        "limits": asdict(limits),
        "queries": len(records),
        "queries_left_out": len(report.dropped),
        "turned_down": {name: counts[name] for name in sorted(counts)},
        "proposed": proposed,
        "combined": combined,
        "passed": number,
        "decisions": decided,
        **summary,
    }
    _write_manifest(config.output, target, manifest)
    journal.close(remove=True)


def _passed(
    config: BuildConfig,
    records: Sequence[Record],
    several: Sequence[sources.Source],
    checks: Checks,
    facts: dict[str, Any],
) -> tuple[list[list[Rewording]], Counter[str], BuildJournal]:
    """Return what passed the filters per query, the counts of what did not, and the journal that holds both."""
    identity = [facts, config.limits.max_changes, config.on_broken]
    if "chat" in config.source:  # what decides its answers and is not among the facts
        identity += [config.chat.url, config.chat.command, config.seed]
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    config.output.parent.mkdir(parents=True, exist_ok=True)
    journal = BuildJournal(config.output.with_name(config.output.name + ".journal"), fingerprint, config.resume)
    by_video: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_video[record.video_id].append(record)
    todo = islice(records, len(journal.rows), None)
    queries = (make_query(record, by_video[record.video_id], checks.tagger) for record in todo)
    try:
        with Interrupts() as interrupts, bar("rewording") as progress:
            for query, proposals in _proposals(several, queries):
                journal.add(*_passing(query, proposals, checks, config.limits.max_changes))
                progress(len(journal.rows), len(records))
                if interrupts.requested:
                    break
        if len(journal.rows) < len(records):
            done = f"{len(journal.rows)} of {len(records)} queries"
            raise Interrupted(f"stopped after {done}; the same command with --resume goes on")
    finally:
        journal.close()
    return [passed for passed, _ in journal.rows], sum((counts for _, counts in journal.rows), Counter()), journal


def _source(name: SourceName, config: BuildConfig, checks: Checks) -> sources.Source:
    if name == "phrasebook":
        return PhraseSwaps(read_phrasebook(config.phrasebook), config.phrasebook.name, checksum(config.phrasebook))
    if name == "lexicon":
        if config.lexicon is None:
            raise UserError("--source lexicon needs --lexicon FILE (JSON of words and their synonyms)")
        return sources.LexiconSwaps(config.lexicon, config.relations)
    if name == "wordnet":
        wordnet = checks.wordnet or WordNet(find_wordnet(config.check.wordnet))
        return sources.WordNetSwaps(wordnet, config.relations)
    if name == "chat":
        return sources.Chat(config.chat, config.seed)
    if config.paraphrases is None:
        raise UserError("--source paraphrases needs --paraphrases FILE")
    return sources.Paraphrases(config.paraphrases)


@dataclass(frozen=True)
class ApplyConfig:
    """Apply a reviewer's decisions to a built file: accepted stay, rejected go, edited are checked anew."""

    input: Path
    """A file that `vocab build` made."""
    decisions: Path
    """What the review page exported."""
    output: Path
    """The file to write, with a manifest."""
    check: Annotated[filters.CheckConfig, tyro.conf.arg(name="")]
    undecided: Undecided = "keep"
    """What becomes of rewordings without a decision."""
    overwrite: bool = False
    """Replace an existing output."""


def apply(config: ApplyConfig) -> None:
    """Write the file of ``hero-plugin vocab apply``."""
    check_free(config.output, config.overwrite, config.input, config.decisions, *config.check.files)
    report = data.ReadReport()
    built = read_built(config.input, report)
    checks = Checks(config.check)
    before = _manifest_path(config.input)
    manifest = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else checks.facts
    if _unseen_by(manifest) != _unseen_by(checks.facts):
        raise UserError(
            f"{before}: {config.input.name} was built with other training queries or another tokenizer; give --train "
            "and --tokenizer as then, or its unseen words and those of edits would not be the same"
        )
    kept, decided = apply_decisions(built, config.decisions, checks, config.undecided)
    if others := {name: fact for name, fact in checks.facts.items() if manifest.get(name) != fact}:
        decided["edits_judged_by"] = others  # not by what the rest of the file was
    data.write_annotations(kept, config.output, format=report.format)
    manifest = {**manifest, "decisions": decided, **_summary(kept)}
    print(f"{config.output}: {len(kept)} of {len(built)} rewordings")
    _write_manifest(config.output, report.format, manifest)


def _unseen_by(manifest: dict[str, Any]) -> tuple[set[str], str]:
    """Return what decides which words are unseen: the checksums of the training files, and the tokenizer."""
    return {file["sha256"] for file in manifest["training"]}, manifest["tokenizer"]


def _manifest_path(output: Path) -> Path:
    return output.with_name(output.name + ".manifest.json")


def _summary(built: Sequence[Record]) -> dict[str, Any]:
    """Return counts of the rewordings, for the manifest."""
    links = [record.extra[REWORDED] for record in built if is_reworded(record)]
    words: Counter[str] = Counter()  # the unseen ones that the changes brought; others stood in the original
    for link in links:
        brought = {word for change in link["changes"] for word in tokenize(change["new"])}
        words.update(word for word in link["unseen"] if word in brought)
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


def _write_manifest(output: Path, target: str, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the output's checksum, and print its counts."""
    facts = {"file": output.name, "format": target, "sha256": checksum(output)}
    write_json(_manifest_path(output), {**manifest, "output": facts}, indent=1, ascii=False)
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
    parts = ", ".join(f"{count} {part}" for part, count in manifest["by_part"].items())
    words = ", ".join(f"{word} {count}" for word, count in list(manifest["most_used"].items())[:8])
    print(f"  {kinds}; {parts}; {manifest['new_words']} new words, most often {words}")
    if manifest.get("decisions"):
        numbers = {key: value for key, value in manifest["decisions"].items() if isinstance(value, int)}
        print("  decisions: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items()))
