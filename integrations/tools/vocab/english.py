"""English: words and their forms, taggers, and the grammar of a query.

lemminflect, wordfreq and inflect know the words; here they answer through a cache. The tagger is nltk's if its data is
installed, else rules over lemminflect's forms, which say "?" rather than guess.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version

from hero_plugin.integrations.data import Record, tokenize
from hero_plugin.integrations.data.words import word_spans
from hero_plugin.integrations.support import UserError

PACKAGES = ("lemminflect", "wordfreq", "inflect", "nltk")
POS = {"n": "NOUN", "v": "VERB", "a": "ADJ", "r": "ADV"}
"""WordNet's letters and lemminflect's names."""
_MASS = 1.75  # a plural rarer than its singular by this many powers of ten is hardly ever said


def package_versions() -> dict[str, str]:
    """Return the versions of the packages, on which rewordings depend.

    Raises ``UserError`` where some are not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f'this needs {", ".join(missing)}: pip install "hero-plugin[vocab]"')
    return {name: version(name) for name in PACKAGES}


@lru_cache(maxsize=200_000)
def lemmas(word: str, pos: str) -> tuple[str, ...]:
    """Return the words of which ``word`` can be a form, as part of speech n, v, a or r; () if there are none."""
    import lemminflect

    return tuple(lemminflect.getAllLemmas(word, upos=POS[pos]).get(POS[pos], ()))


def lemma(word: str, pos: str) -> str | None:
    """Return the first of ``lemmas``, or None."""
    return next(iter(lemmas(word, pos)), None)


@lru_cache(maxsize=200_000)
def inflected(base: str, tag: str) -> tuple[str, ...]:
    """Return the forms of a lemma for a Penn tag (NN, NNS, VB, VBZ, ...), by dictionary or by rule."""
    import lemminflect

    return tuple(lemminflect.getInflection(base, tag))


@lru_cache(maxsize=200_000)
def forms(word: str) -> frozenset[str]:
    """Return the Penn tags that a word can have by the dictionary: "walks" is NNS or VBZ; none for an unknown word."""
    import lemminflect

    return frozenset(
        tag
        for pos, upos in POS.items()
        for base in lemmas(word, pos)
        for tag, words in lemminflect.getAllInflections(base, upos=upos).items()
        if word in words
    )


@lru_cache(maxsize=200_000)
def zipf(word: str) -> float:
    """Return how common a word is: log10 of its occurrences per thousand million words; 0 for none."""
    import wordfreq

    return wordfreq.zipf_frequency(word, "en")


@lru_cache(maxsize=50_000)
def is_mass(noun: str) -> bool:
    """Return whether a singular noun is hardly ever counted ("furniture"), judged by how rare its plural is."""
    plurals = inflected(noun, "NNS")
    return not plurals or plurals[0] == noun or zipf(noun) - max(zipf(word) for word in plurals) > _MASS


@lru_cache(maxsize=50_000)
def article(word: str) -> str:
    """Return the article "a" or "an" that a word takes."""
    import inflect

    return inflect.engine().a(word).split()[0].lower()


UNCLEAR = "?"
_BE = "be am is are was were been being 's 're"
_CLOSED_LISTS = {
    "DT": "a an the this that these those some any no every each another both all either neither",
    "PRP$": "his her their its my your our whose one's person's",
    "PRP": "he she it they him them himself herself itself themselves i we you me us someone somebody anyone who which",
    "IN": """in on at of from with into onto by for about under behind over through across against around near inside
    outside between towards toward during before after while as if off up down out away than because until along above
    below beside besides upon within without past underneath beneath like""",
    "TO": "to",
    "CC": "and or but then nor & so",
    "MD": "can could will would shall should may might must 'll",
    "CD": "one two three four five six seven eight nine ten eleven twelve several many few",
    "AUX": f"{_BE} has have had having do does did doing 've 'd",
    "RB": """not n't very again now there here still just together too also slowly quickly suddenly finally
    once twice back forward apart when where how why often never always""",
}
CLOSED = {word: tag for tag, words in _CLOSED_LISTS.items() for word in words.split()}
NOUNS, _FINITE = ("NN", "NNS"), ("VBZ", "VBP", "VBD", "VB")
BEFORE_NOUN = ("DT", "PRP$", "JJ", "CD")
_COARSE = {"N": "noun", "V": "verb", "J": "adjective", "R": "adverb"}


def coarse(tag: str) -> str:
    """Return "noun", "verb", "adjective", "adverb" or "other" for a tag."""
    return "other" if tag in ("RP", "MD") else _COARSE.get(tag[:1], "other")


class RuleTagger:
    """Tagger by closed word classes, the dictionary forms of every other word, and the words around it."""

    name = "rules over lemminflect's dictionary"

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return a tag per word."""
        tags: list[str] = []
        finite = ""  # the tag of the clause's verb so far
        for place, word in enumerate(words):
            tag = self._tag(words, place, tags, finite)
            if tag in _FINITE or tag == "AUX":
                finite = tag
            elif word in ("who", "that", "which", "while", "as"):
                finite = ""
            tags.append(tag)
        return tags

    def _tag(self, words: Sequence[str], place: int, tags: Sequence[str], finite: str) -> str:
        word = words[place]
        before = tags[-1] if tags else ""
        after = words[place + 1] if place + 1 < len(words) else ""
        if word in CLOSED and not (word in ("like", "back") and before in BEFORE_NOUN):
            return CLOSED[word]
        options = forms(word) or _guess(word)
        nouns = [tag for tag in NOUNS if tag in options]
        if word.endswith("s"):
            nouns.reverse()  # "clothes" can be either, and is spoken of as many
        verbs = [tag for tag in ("VBZ", "VBD", "VBP", "VB", "VBG", "VBN") if tag in options]
        mid_clause = ("", *NOUNS, "PRP", "AUX", "CC", "RB", "IN", *_FINITE)
        if word.endswith("ing") and "VBG" in options and before in mid_clause:
            if before in (*_FINITE, "IN") and nouns and _noun_like(after):
                return UNCLEAR  # "has running water": or is it running?
            return "VBG"
        if nouns and before in BEFORE_NOUN and not finite and _verb_ahead(words, place):
            return nouns[0]  # "a human grabs the crate": human is a noun
        if "JJ" in options and before in (*BEFORE_NOUN, "IN", *_FINITE, "VBG") and _noun_like(after):
            return "JJ"
        if before in BEFORE_NOUN:
            return nouns[0] if nouns else ("JJ" if "JJ" in options else _only(options))
        if before in ("TO", "MD"):
            return "VB" if "VB" in options and (before == "MD" or not _motion(tags, words)) else _only(options)
        if before in (*NOUNS, "PRP", "RB", UNCLEAR) and not finite and verbs:
            if nouns and after and after not in CLOSED and before in NOUNS and not word.endswith("s"):
                return UNCLEAR  # "person light switch"
            return verbs[0]
        if before == "AUX":
            if "JJ" in options and not {"VBG", "VBN"} & options:
                return "JJ"
            return next((tag for tag in ("VBG", "VBN") if tag in options), _only(options))
        if before == "CC":
            if finite in options and (not nouns or not after or after in CLOSED):
                return finite
            if nouns:
                return UNCLEAR if verbs else nouns[0]
        if nouns and before in ("", "IN", *_FINITE, "VBG", "VBN", *NOUNS):
            return nouns[0]
        return _only(options)


def _only(options: frozenset[str]) -> str:
    """Return the one option, or the most usual of one part of speech; else ``UNCLEAR``."""
    kinds = {tag[0] for tag in options}
    if len(kinds) != 1:
        return UNCLEAR
    return min(options, key=lambda tag: (len(tag), tag))


def _guess(word: str) -> frozenset[str]:
    """Return the tags that the end of an unknown word suggests."""
    for end, tags in (("ing", ("VBG", "NN")), ("ly", ("RB",)), ("ed", ("VBD", "VBN")), ("s", ("NNS",))):
        if word.endswith(end):
            return frozenset(tags)
    return frozenset({"NN"})


def _noun_like(word: str) -> bool:
    return bool(word) and word not in CLOSED and bool(forms(word) & {"NN", "NNS"})


def _verb_ahead(words: Sequence[str], place: int) -> bool:
    """Return whether the next word can be a finite verb, as a determiner or a pronoun follows it."""
    following = words[place + 1 : place + 3]
    return (
        len(following) == 2
        and bool(forms(following[0]) & {"VBZ", "VBD"})
        and CLOSED.get(following[1]) in ("DT", "PRP$", "PRP")
    )


def _motion(tags: Sequence[str], words: Sequence[str]) -> bool:
    """Return whether "to" follows a verb of going, so that a place may follow: "walks to work"."""
    return len(tags) > 1 and words[len(tags) - 2].rstrip("s") in ("walk", "go", "goe", "run", "come")


class NltkTagger:
    """Tagger of nltk: its averaged perceptron."""

    name = "nltk's averaged perceptron"

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return a tag per word."""
        import nltk

        return [tag for _, tag in nltk.pos_tag(list(words))]


Tagger = RuleTagger | NltkTagger
"""What gives the words of one query Penn Treebank tags, ``UNCLEAR`` where it cannot tell."""


def find_tagger() -> Tagger | None:
    """Return the best available tagger: nltk's, or rules over lemminflect; None if there is neither."""
    if importlib.util.find_spec("nltk") is not None:
        import nltk

        with suppress(LookupError):
            nltk.data.find("taggers/averaged_perceptron_tagger_eng")
            return NltkTagger()
    return None if importlib.util.find_spec("lemminflect") is None else RuleTagger()


# Words that a thesaurus cannot replace well, as their meaning lies in the words around them.


_VERBS = """be have do go get take make put give hold keep let set turn run come bring see look show hand pass play draw
cast break cut change fall bear call carry catch drop hit lay lie lead leave lift pull push raise rise roll send
shake sit stand stick strike throw work want need try seem appear happen become live feel say tell know think
find mean stay fit fix tie dress drive ride fly jump race score serve shoot spot spring strip sweep swing continue
demonstrate describe introduce perform proceed prepare"""
FIXED_VERBS = frozenset(_VERBS.split())
"""Light verbs, and verbs of a dozen senses."""

_OTHERS = """thing way time end side back front top bottom middle part kind type lot bit one other same left right
inside outside scene screen video camera shot clip image title text logo name words number line piece
point place area again more most less many much several own such first second third next last final
whole different various able little big good bad new old long short high low full open board court match
game goal ring pool deck deal black white"""
NEVER_SWAPPED = frozenset(_OTHERS.split())
"""Nouns and adjectives of the same sort, and what captions say of the film itself."""

_PARTICLES = "up down out off on over away in back through around along about apart together aside by"
PARTICLES = frozenset(_PARTICLES.split())


# A query as the builder sees it: its words and their tags, its noun phrases, the form of a verb in it.

_PRONOUNS = frozenset(("it", "them", "him", "her", "something", "everything", "themselves", "themself", "himself"))
_REFLEXIVE = frozenset(("themselves", "themself", "himself", "herself"))
_MEASURE_NOUNS = "pair piece pile bite sip lot couple stack bunch bit load slice handful few"
_MEASURES = frozenset(_MEASURE_NOUNS.split())
"""Nouns that say how much of what comes after "of"."""
_HAVE = frozenset(("has", "have", "had", "having", "'ve"))
_PASSIVE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "gets", "get", "got"))
_MODALS = ("can", "will", "would", "should", "could", "must", "does", "do", "did")
_BEFORE_BASE = frozenset(("to", "they", "you", "we", "i", "and", "then", *_MODALS))
"""Words after which a verb that could be its base form or its past is the base form."""


@dataclass(frozen=True)
class TaggedQuery:
    """A query with its words tagged.

    Attributes:
        record: The query.
        words: Lower case.
        spans: Start and end of each word in the sentence.
        tags: Penn tag of each word.
        siblings: The other queries of the same video.
    """

    record: Record
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    tags: tuple[str, ...]
    siblings: tuple[Record, ...] = field(default=(), repr=False)

    @property
    def sentence(self) -> str:
        """The sentence as written."""
        return self.record.sentence

    def word(self, place: int) -> str:
        """Return the word at a place; "" outside the query."""
        return self.words[place] if 0 <= place < len(self.words) else ""

    def tag(self, place: int) -> str:
        """Return the tag at a place; "" outside the query."""
        return self.tags[place] if 0 <= place < len(self.tags) else ""

    def breaks_off(self, place: int) -> bool:
        """Return whether a punctuation mark, or no word at all, stands between this place and the next."""
        if not 0 <= place < len(self.words) - 1:
            return True
        return any(mark in self.sentence[self.spans[place][1] : self.spans[place + 1][0]] for mark in ".,;:!?")

    def with_words(self, edits: Mapping[int, str]) -> str:
        """Return the sentence with some words replaced, capitals kept; "" removes a word and the blank after it."""
        pieces, done = [], 0
        capital = False
        for place in sorted(edits):
            (start, end), new = self.spans[place], edits[place]
            pieces.append(self.sentence[done:start])
            capital = capital or self.sentence[start].isupper()
            if new:
                pieces.append(new[0].upper() + new[1:] if capital else new)
                capital = False
            else:
                end += len(self.sentence[end:]) - len(self.sentence[end:].lstrip())
                if not self.sentence[end : end + 1].isalnum():  # nothing, or a full stop
                    pieces = ["".join(pieces).rstrip()]
            done = end
        return "".join(pieces) + self.sentence[done:]


def make_query(record: Record, siblings: Sequence[Record], tagger: Tagger) -> TaggedQuery:
    """Tokenize and tag a record's sentence."""
    words = tuple(tokenize(record.sentence))
    spans = tuple(word_spans(record.sentence))
    if len(spans) != len(words):  # a letter whose lower case is two
        words, spans = (), ()
    others = tuple(other for other in siblings if other is not record)
    return TaggedQuery(record, words, spans, tuple(tagger.tag(words)) if words else (), others)


@dataclass(frozen=True)
class NounPhrase:
    """The noun phrase words[start:stop] of a query."""

    start: int
    stop: int
    head: str
    """What it is about, as it stands: "shoes" in "a pair of old shoes"."""
    is_pronoun: bool = False

    @property
    def heads(self) -> frozenset[str]:
        """The head as it stands and in the singular."""
        return frozenset((self.head, lemma(self.head, "n") or self.head))


def noun_phrase(query: TaggedQuery, start: int) -> NounPhrase | None:
    """Return the noun phrase that begins at a place of the query, None if none does."""
    if query.word(start) in _PRONOUNS:
        if query.words[start] in _REFLEXIVE and (more := noun_phrase(query, start + 1)) is not None:
            return NounPhrase(start, more.stop, more.head)  # "pours themselves a glass"
        if query.words[start] != "her" or query.tag(start + 1) not in NOUNS:
            return NounPhrase(start, start + 1, query.words[start], is_pronoun=True)
    place = start
    while query.tag(place) in BEFORE_NOUN or (place > start and _is_participle(query, place)):
        place += 1
    first = place
    while query.tag(place) in NOUNS and (place == first or not query.breaks_off(place - 1)):
        place += 1
    if place == first:
        return None
    head = query.words[place - 1]
    if query.word(place) == "of" and (more := noun_phrase(query, place + 1)) is not None:
        return NounPhrase(start, more.stop, more.head if head in _MEASURES else head)
    return NounPhrase(start, place, head)


def opens_noun_phrase(query: TaggedQuery, place: int) -> bool:
    """Return whether a noun phrase may begin here: a noun, a word before one, or a word of unclear class."""
    return query.tag(place) in (*BEFORE_NOUN, *NOUNS, "PRP", "?") or query.word(place) in _PRONOUNS


def _is_participle(query: TaggedQuery, place: int) -> bool:
    """Return whether a participle stands before a noun, as in "a folded towel"."""
    return query.tag(place) in ("VBN", "VBG", "?") and query.tag(place + 1) in NOUNS


def verb_form(query: TaggedQuery, place: int, base: str) -> str | None:
    """Return VB, VBZ, VBG, VBD or VBN; None if the word is no form of ``base``, or a passive one.

    "puts" can be one form only; "put" after "they" or "to" is the base form, after "person" the past.
    """
    word = query.words[place]
    if word != base and word in lemmas(word, "v") and not word.endswith("ed"):
        return None  # "lay" is a verb of its own besides the past of "lie"
    fitting = [tag for tag in ("VB", "VBZ", "VBG", "VBD", "VBN") if word in inflected(base, tag)]
    if not fitting:
        return None
    before = query.word(place - 1)
    if before in ("also", "then", "just", "not") and place > 1:
        before = query.words[place - 2]
    if "VBN" in fitting and before in (*_PASSIVE, *_HAVE):
        return None if before in _PASSIVE else "VBN"
    if "VB" in fitting and "VBD" in fitting:
        return "VB" if before in _BEFORE_BASE or query.tags[place] in ("VB", "VBP") else "VBD"
    return "VBD" if "VBD" in fitting else fitting[0]
