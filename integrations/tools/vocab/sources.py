"""Sources of rewordings: swaps of words by a lexicon or by WordNet, ready paraphrases, a language model.

The language model speaks OpenAI's chat format, through an HTTP endpoint or a command. ``phrasebook`` is another source.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.data import Change, Rewording, tokenize
from hero_plugin.integrations.data.records import clean_sentence
from hero_plugin.integrations.support import UserError, checksum
from hero_plugin.integrations.tools.vocab.english import TaggedQuery, article, inflected, is_mass, lemma, lemmas
from hero_plugin.integrations.tools.vocab.meaning import WordNet


class Source(Protocol):
    """A proposer of rewordings, which filters judge. The same query must get the same proposals every time.

    Attributes:
        name: Names it in the rewordings' ``source``.
        facts: Its settings, for the manifest.
    """

    name: str
    facts: dict[str, Any]

    def propose(self, query: TaggedQuery) -> Iterable[Rewording]:
        """Return rewordings of a query."""
        ...


_POS = {"N": "n", "V": "v", "J": "a"}
_NAMES = {"n": "noun", "v": "verb", "a": "adjective"}
_PARTS = {"n": "thing", "v": "action", "a": "circumstance"}
_TAGS = ("NN", "NNS", "VB", "VBP", "VBZ", "VBG", "VBD", "VBN", "JJ")
_PERSON_NOUNS = """person human people man woman boy girl kid child baby toddler teenager adult lady guy gentleman
friend player athlete team crowd audience instructor coach worker dancer singer someone"""
_PERSONS = frozenset(_PERSON_NOUNS.split())
SOMEBODY = frozenset({"somebody", "someone", "anybody", "everybody", "nobody", "anyone"})
"""Pronouns that WordNet lists among the synonyms of "person"; they stand without an article."""


@dataclass(frozen=True)
class Swap(Rewording):
    """One word replaced by another, with what filters need to know about it."""

    place: int = 0
    """Place of the word in the query; of an expression's noun or verb."""
    tag: str = ""
    """Penn tag of that word."""
    pos: str = ""
    """n, v, a or r."""
    base: str = ""
    new_base: str = ""
    """Lemmas of both words."""
    relation: str = ""
    rank: int = 0
    """As in ``ThesaurusEntry``."""
    edits: tuple[tuple[int, str], ...] = ()
    """(place of a word, what stands there now): the word itself, and its article."""
    curated: bool = False
    """A person wrote it down with the conditions under which it holds: no statistics need judge it."""

    @property
    def new(self) -> str:
        """The new word or expression, in its form."""
        return self.changes[0].new


@dataclass(frozen=True)
class ThesaurusEntry:
    """A word that may replace another."""

    lemma: str
    relation: str
    """"synonym" or "hypernym"."""
    rank: int
    """Which sense of the word it belongs to, 0 the commonest."""


class WordSwaps(ABC):
    """Propose every swap that a thesaurus offers for the words of a query, in the right form; filters judge them."""

    def __init__(self, name: str, facts: dict[str, Any], relations: Collection[str] = ("synonym",)) -> None:
        self.name, self.relations = f"swaps from {name}", relations
        self.facts = {**facts, "relations": list(relations)}

    @abstractmethod
    def lookup(self, word: str, base: str, pos: str) -> Iterable[ThesaurusEntry]:
        """Iterate over the entries of a word, perhaps some of them twice.

        Args:
            word: The form in the query.
            base: Its lemma.
            pos: n, v or a.
        """

    def propose(self, query: TaggedQuery) -> Iterator[Swap]:
        """Iterate over swaps of single words, in the query's order."""
        for place, (word, tag) in enumerate(zip(query.words, query.tags, strict=True)):
            pos = _POS.get(tag[:1]) if tag in _TAGS else None
            base = lemma(word, pos) if pos else None
            if pos is None or base is None:
                continue
            for entry in dict.fromkeys(self.lookup(word, base, pos)):
                if entry.relation in self.relations and (new := _in_form(entry.lemma, tag, word == base)):
                    yield _swap(query, place, pos, base, entry, new)


class LexiconSwaps(WordSwaps):
    """Swaps from a JSON file: word -> [{"word", "relation", "sense", "pos"}, ...], in the form of the key."""

    def __init__(self, path: Path, relations: Collection[str] = ("synonym",)) -> None:
        super().__init__(path.name, {"kind": "lexicon", "file": path.name, "sha256": checksum(path)}, relations)
        try:
            self._entries = json.loads(path.read_text(encoding="utf-8"))
            sample = next(iter(self._entries.values()))[0]
            sample["word"], sample["relation"], sample["sense"], sample["pos"]
        except (OSError, ValueError, AttributeError, StopIteration, LookupError, TypeError) as error:
            shape = '{"word": [{"word": ..., "relation": "synonym", "sense": 0, "pos": "n"}, ...]}'
            raise UserError(f"{path} is not a lexicon ({error}): expected JSON {shape}") from error

    def lookup(self, word: str, base: str, pos: str) -> Iterator[ThesaurusEntry]:
        """Iterate over the entries of the lemma, then those of the word."""
        for key in (base, word):
            for raw in (raw for raw in self._entries.get(key, ()) if raw["pos"] == pos):
                new = raw["word"]
                if key != base or new not in lemmas(new, pos):
                    new = lemma(new, pos)  # None for what is no word, such as the lexicon's own "shuting"
                if new and new != base:
                    yield ThesaurusEntry(new, raw["relation"], int(raw["sense"]))


class WordNetSwaps(WordSwaps):
    """Swaps from every sense of a word in WordNet, down to a rank; for nouns also expressions."""

    def __init__(self, wordnet: WordNet, relations: Collection[str] = ("synonym",), senses: int = 3) -> None:
        super().__init__("wordnet", {"kind": "wordnet", "folder": str(wordnet.folder), "senses": senses}, relations)
        self._wordnet, self._senses = wordnet, senses

    def lookup(self, word: str, base: str, pos: str) -> Iterator[ThesaurusEntry]:
        """Iterate over the entries of the lemma, the commonest sense first."""
        for rank, sense in enumerate(self._wordnet.senses(base, pos)[: self._senses]):
            for relation, near in (("synonym", sense), *(("hypernym", above) for above in sense.hypernyms())):
                for name in near.lemma_names():
                    new = name.replace("_", " ")
                    if new != base and new.islower() and (pos == "n" or " " not in new):
                        yield ThesaurusEntry(new, relation, rank)


def _in_form(new: str, tag: str, is_base: bool) -> str | None:
    """Return the form of a new lemma for a tag; a plural-only noun may become one that is never counted."""
    *before, head = new.split()
    if new in SOMEBODY or tag == "JJ" or (tag == "NNS" and is_base and is_mass(head)):
        return new  # the last: clothes -> apparel
    form = inflected(head, tag)
    return " ".join((*before, form[0])) if form else None


def _swap(query: TaggedQuery, place: int, pos: str, base: str, entry: ThesaurusEntry, new: str) -> Swap:
    edits = [(place, new)]
    if query.word(place - 1) in ("a", "an"):
        edits.insert(0, (place - 1, "" if new in SOMEBODY else article(new)))
    kind = "spelling" if entry.relation == "synonym" and _is_spelling(base, entry.lemma) else entry.relation
    part = "person" if pos == "n" and base in _PERSONS else _PARTS[pos]
    return Swap(
        sentence=query.with_words(dict(edits)),
        changes=(Change(query.words[place], new, kind, _NAMES[pos], part),),
        place=place,
        tag=query.tags[place],
        pos=pos,
        base=base,
        new_base=entry.lemma,
        relation=entry.relation,
        rank=entry.rank,
        edits=tuple(edits),
    )


def _is_spelling(one: str, other: str) -> bool:
    """Return whether two words are spellings of one: grey and gray, pajamas and pyjamas, utilize and utilise."""
    alike = one[0] == other[0] and abs(len(one) - len(other)) <= 2 and min(len(one), len(other)) >= 4
    return alike and _skeleton(one) == _skeleton(other)


def _skeleton(word: str) -> str:
    """Return the consonants of a word, doubled ones once, z as s."""
    return re.sub(r"(.)\1+", r"\1", re.sub("[aeiouyw -]", "", word.replace("z", "s")))


def draw(seed: int, text: str) -> bytes:
    """Return a text's lot: sorted by it, texts are in an order that the seed alone decides."""
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


COMBINATIONS = 24
"""Of a query with thirty swaps there are hundreds of pairs; the choice among them needs a few."""


def combine(query: TaggedQuery, swaps: Sequence[Swap], size: int) -> Iterator[Rewording]:
    """Iterate over rewordings that make several accepted swaps at once, of different words.

    Of each number of swaps at most ``COMBINATIONS``, in an order that depends on the words alone.
    """
    for number in range(2, size + 1):
        groups = (group for group in combinations(swaps, number) if _are_apart(group))
        for group in sorted(groups, key=_lot)[:COMBINATIONS]:
            edits = dict(edit for swap in group for edit in swap.edits)
            sources = ", ".join(dict.fromkeys(swap.source for swap in group if swap.source))
            changes = tuple(change for swap in group for change in swap.changes)
            yield Rewording(query.with_words(edits), changes, source=sources)


def _are_apart(group: Sequence[Swap]) -> bool:
    """Return whether no two swaps touch the same word."""
    places = [place for swap in group for place, _ in swap.edits]
    return len(places) == len(set(places))


def _lot(group: Sequence[Swap]) -> bytes:
    return hashlib.sha256(" ".join(swap.sentence for swap in group).encode()).digest()


def paraphrase(query: TaggedQuery, sentence: str) -> Rewording | None:
    """Return a new sentence as a rewording, None if it says nothing new."""
    sentence = clean_sentence(sentence)
    before, after = tokenize(query.sentence), tokenize(sentence)
    changes = tuple(
        Change(" ".join(before[a:b]), " ".join(after[c:d]), "paraphrase")
        for what, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if what != "equal"
    )
    return Rewording(sentence, changes) if sentence and changes else None


def _new(query: TaggedQuery, sentences: Iterable[str]) -> Iterator[Rewording]:
    """Iterate over the sentences that say something new, each once."""
    return filter(None, (paraphrase(query, sentence) for sentence in dict.fromkeys(sentences)))


class Paraphrases:
    """A file of ready paraphrases, one per line.

    JSON ``{"query": ID, "sentence": NEW}`` or ``{"original": TEXT, "sentence": NEW}``, or tab-separated: the original
    sentence or the query's id, then the new sentence.
    """

    name = "paraphrases"

    def __init__(self, path: Path) -> None:
        self.facts = {"kind": "paraphrases", "file": path.name, "sha256": checksum(path)}
        self._known: dict[str, list[str]] = defaultdict(list)
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                key, sentence = _pair(path, number, line)
                self._known[clean_sentence(key).lower()].append(sentence)

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Iterate over the paraphrases of a query."""
        keys = (query.record.query_id.lower(), query.sentence.lower())
        yield from _new(query, (sentence for key in keys for sentence in self._known.get(key, ())))


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    shapes = '{"query": ID, "sentence": TEXT}, {"original": TEXT, "sentence": TEXT}, or ID or TEXT, tab, TEXT'
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
            return str(row["query"] if "query" in row else row["original"]), str(row["sentence"])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}:{number}: {error}; expected {shapes}") from error
    key, tab, sentence = line.partition("\t")
    if not tab or not sentence.strip():
        raise UserError(f"{path}:{number}: cannot be read: {line[:60]!r}; expected {shapes}")
    return key, sentence


Transport = Callable[[dict[str, Any]], dict[str, Any]]
"""What answers a chat request."""

_PROMPT = """You reword a sentence that describes a moment of a video, to test how models cope with words new to them.
- Keep the meaning exactly: the same people, objects, actions and their order. Add nothing, leave nothing out.
- Change at least one content word to a real, correctly spelled English word that is less usual.
- Keep the grammar right: number, tense, articles.
Answer with a JSON list of {number} different rewordings and nothing else.

Sentence: {sentence}"""
_RETRIES = 3


@dataclass(frozen=True)
class ChatConfig:
    """Settings of a language model as a source."""

    url: str = ""
    """The endpoint: http://HOST/v1, or all of it up to /chat/completions."""
    command: str = ""
    """Or a command that reads a chat request (JSON) on its standard input and writes the response."""
    model: str = "default"
    rewordings: int = 3
    """Rewordings requested per query."""
    temperature: float = 0.7
    timeout: float = 60.0
    """Seconds that one answer may take."""
    jobs: int = 1
    """Requests at the same time."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the endpoint's key, where it wants one. The key is never written anywhere."""
    prompt: str = _PROMPT
    """The request, with {sentence} and {number} in it."""


class Chat:
    """A language model that proposes several rewordings of a query per request."""

    name = "chat"

    def __init__(self, config: ChatConfig, seed: int, transport: Transport | None = None) -> None:
        if transport is None and bool(config.url) == bool(config.command):
            raise UserError("a chat source needs --chat.url (an endpoint) or --chat.command, one of the two")
        if "{sentence}" not in config.prompt:
            raise UserError("--chat.prompt must have {sentence} in it, where the query goes")
        self.config, self._seed = config, seed
        self.jobs = max(1, config.jobs)
        settings = {name: getattr(config, name) for name in ("model", "temperature", "rewordings", "prompt")}
        self.facts = {"kind": "chat", "through": "http" if config.url else "command", **settings}
        self._ask = transport or (http_transport(config) if config.url else command_transport(config))

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Ask for rewordings of a query."""
        config = self.config
        prompt = config.prompt.replace("{sentence}", query.sentence).replace("{number}", str(config.rewordings))
        request = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": config.temperature,
            "seed": self._seed,
        }
        response = self._ask(request)
        try:
            answer = str(response["choices"][0]["message"]["content"])
        except (LookupError, TypeError) as error:
            shape = '{"choices": [{"message": {"content": ...}}]}'
            raise UserError(f"not a chat response: expected {shape}, got {str(response)[:200]}") from error
        yield from _new(query, _sentences(answer))


def http_transport(config: ChatConfig) -> Transport:
    """Return a transport to an endpoint; the client repeats what a busy or failing server does not answer.

    Raises ``UserError`` where ``openai`` is not installed; while asking, where the endpoint does not answer as
    expected.
    """
    try:
        import openai
    except ImportError as error:
        raise UserError('--chat.url needs the openai package: pip install "hero-plugin[chat]"') from error
    url = config.url.rstrip("/").removesuffix("/chat/completions")
    # The client insists on a key; endpoints that need none ignore it.
    key = os.environ.get(config.key_variable) or "none"
    client = openai.OpenAI(base_url=url, api_key=key, timeout=config.timeout, max_retries=_RETRIES)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        try:
            # The raw body: not every compatible endpoint names its content type.
            return json.loads(client.chat.completions.with_raw_response.create(**request).text)
        except ValueError as error:
            raise UserError(f"{url} does not answer with JSON ({error}); is it a chat endpoint?") from error
        except openai.OpenAIError as error:
            code = getattr(error, "status_code", 500)
            if code != 429 and code < 500:
                raise UserError(f"{url} answers {error}; check --chat.url, --chat.model and the key") from error
            saved = "finished queries are saved, --resume goes on"
            raise UserError(f"{url} cannot be reached ({error}); {saved}") from error

    return ask


def command_transport(config: ChatConfig) -> Transport:
    """Return a transport that runs the command once per request."""
    words = shlex.split(config.command)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                words, input=json.dumps(request), capture_output=True, text=True, timeout=config.timeout, check=True
            )
            return json.loads(done.stdout)
        except subprocess.CalledProcessError as error:
            message = f"ended with {error.returncode}: {error.stderr[-300:]}"
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            message = str(error)
        raise UserError(f"--chat.command {config.command!r}: {message}; it must write a chat response as JSON")

    return ask


def _sentences(text: str) -> list[str]:
    """Return the sentences of an answer: a JSON list, also inside a code fence, or one per line."""
    if match := re.search(r"\[.*\]", text, flags=re.DOTALL):
        try:
            found = json.loads(match.group())
            return [item for item in found if isinstance(item, str)]
        except ValueError:
            pass
    lines = (re.sub(r"^\s*(?:\d+[.)]|[-*•])\s*", "", line).strip().strip('"') for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("```")]
