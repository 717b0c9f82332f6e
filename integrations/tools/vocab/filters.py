"""The seven checks that a rewording must pass, in the order in which they judge.

A rewording comes from a thesaurus (one word for another, whatever the query), from a phrasebook (people wrote down the
words and the conditions under which they hold), or it is a paraphrase, a whole sentence. Each filter says what it asks
of each of the three.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from hero_plugin.integrations.data import Rewording, Tokenizer, load_word_vectors, read_sentences, tokenize
from hero_plugin.integrations.data.words import open_tokenizer
from hero_plugin.integrations.scoring.open_vocabulary import training_vocabulary, unseen_words
from hero_plugin.integrations.support import checksum
from hero_plugin.integrations.tools.vocab import english
from hero_plugin.integrations.tools.vocab.english import TaggedQuery
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordNet, WordSimilarity, find_wordnet
from hero_plugin.integrations.tools.vocab.sources import SOMEBODY, Swap


class Filter:
    """A check that a rewording must pass. It lets pass what it defines no question for.

    Attributes:
        name: Under which the manifest counts what it turned down.
        settings: Its thresholds, for the manifest.
    """

    name = ""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def reason(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why the rewording is turned down, in a few words; None lets it pass."""
        if not isinstance(rewording, Swap):
            return self._paraphrase(query, rewording)
        return self._phrasebook(query, rewording) if rewording.curated else self._thesaurus(query, rewording)

    def _thesaurus(self, query: TaggedQuery, swap: Swap, /) -> str | None:
        return None

    def _phrasebook(self, query: TaggedQuery, swap: Swap, /) -> str | None:
        return None

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording, /) -> str | None:
        return None


def first_reason(filters: Iterable[Filter], query: TaggedQuery, rewording: Rewording) -> tuple[str, str] | None:
    """Return the name of the first filter that turns a rewording down, and why; None if all let it pass."""
    for each in filters:
        if (reason := each.reason(query, rewording)) is not None:
            return each.name, reason
    return None


class UnseenFilter(Filter):
    """Turn down changes that bring no word which training lacks: the result is open-vocabulary by construction."""

    name = "unseen"

    def __init__(self, vocabulary: Collection[str], tokenizer: Tokenizer) -> None:
        super().__init__(training_words=len(vocabulary))
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def words(self, sentence: str) -> tuple[str, ...]:
        """Return the unseen words of a sentence."""
        return unseen_words(self._tokenizer(sentence), self._vocabulary)

    def _thesaurus(self, query: TaggedQuery, swap: Swap) -> str | None:
        return None if self.words(swap.new) else "the new word is in the training vocabulary"

    _phrasebook = _thesaurus

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        new = set(self.words(rewording.sentence)) - set(self._tokenizer(query.sentence))
        return None if new else "no new word that the training vocabulary lacks"


class KnownWordsFilter(Filter):
    """Turn down new words that people hardly use."""

    name = "known words"

    def __init__(self, frequency: float = 2.5) -> None:
        super().__init__(zipf_frequency=frequency)

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        new = [word for change in rewording.changes for word in tokenize(change.new) if word not in query.words]
        rare = (word for word in new if english.zipf(word) < self.settings["zipf_frequency"])
        return next((f"{word} is too rare or no word" for word in rare), None)

    _thesaurus = _paraphrase


_MADE_FROM = ("ing", "ish", "y", "fall", "line", "er", "ation")
"""Endings of words that are made from another and rarely mean the same: floor, flooring; red, reddish."""


class ProtectedFilter(Filter):
    """Turn down swaps of light verbs, parts of fixed expressions, names, and verbs with a particle."""

    name = "protected"

    def __init__(self, wordnet: WordNet | None) -> None:
        super().__init__(expressions=wordnet is not None)
        self._wordnet = wordnet

    def _thesaurus(self, query: TaggedQuery, swap: Swap) -> str | None:
        place, word, old, new = swap.place, query.words[swap.place], swap.base, swap.new_base
        if old in english.NEVER_SWAPPED or (swap.pos == "v" and old in english.FIXED_VERBS):
            return "a word of too many meanings"
        reddish = new.endswith("ish") and not old.endswith("ish")
        if reddish or old in new.split() or (new.startswith(old) and new.endswith(_MADE_FROM)):
            return "made from the old word"
        others = [each for each in query.words if each != word and len(each) > 3]
        if any(each.startswith(new) or new.startswith(each) for each in others):
            return "says a word twice"
        if place and query.sentence[query.spans[place][0]].isupper():
            return "a name"
        if swap.pos == "v" and (particle := self._particle(query, place, old)):
            return f"goes with {particle}"
        phrase = self._expression(query, place, old)
        return f"part of {phrase}" if phrase else None

    def _particle(self, query: TaggedQuery, place: int, base: str) -> str | None:
        """Return a particle that the verb may belong with: "picks the phone up"."""
        for distance, word in enumerate(query.words[place + 1 : place + 7], 1):
            if word in english.PARTICLES and (
                distance == 1 or self._wordnet is None or self._wordnet.knows(f"{base} {word}", "v")
            ):
                return word
            if query.tags[place + distance][:2] in ("VB", "CC", "AU"):
                return None
        return None

    def _expression(self, query: TaggedQuery, place: int, base: str) -> str | None:
        """Return an expression of WordNet, two to four words long, that includes this word as it stands or as lemma."""
        if self._wordnet is None:
            return None
        for length in (4, 3, 2):
            for start in range(max(0, place - length + 1), min(place, len(query.words) - length) + 1):
                words = query.words[start : start + length]
                with_lemma = (base if start + k == place else word for k, word in enumerate(words))
                for phrase in sorted({" ".join(words), " ".join(with_lemma)}):
                    if self._wordnet.knows(phrase) or self._wordnet.knows(phrase.replace(" ", "-")):
                        return phrase
        return None


# Numbers of WordNet's sentence frames: what a verb may take after it.
_TO_VERB, _ING = frozenset({26, 28, 29, 32, 35}), frozenset({33})
_NO_OBJECT = frozenset({1, 2, 3, 4, 6, 7, 12, 13, 22, 23, 27})
_OBJECT = frozenset({8, 9, 10, 11, 14, 15, 16, 17, 18, 19, 20, 21, 30, 31})
_COUNTED = frozenset(("these", "those", "many", "several", "few", "both", "two", "three", "four", "five", "six"))
_ONE = frozenset(("a", "an", "one", "another", "each", "every"))
_SINGULAR_NEXT = frozenset(("is", "was", "has", "does", "itself"))
_PLURAL_NEXT = frozenset(("are", "were", "have", "do", "that", "which", "who", "themselves"))


class AgreementFilter(Filter):
    """Turn down changes that break number, verb form, article, or what a verb takes after it."""

    name = "agreement"

    def __init__(self, wordnet: WordNet | None) -> None:
        super().__init__(verb_frames=wordnet is not None)
        self._wordnet = wordnet

    def _thesaurus(self, query: TaggedQuery, swap: Swap) -> str | None:
        new = swap.new
        if new in SOMEBODY:
            return self._pronoun(query, swap)
        tag = "VB" if swap.tag == "VBP" else swap.tag
        if tag == "NNS" and new == swap.new_base and english.is_mass(new):
            tag = "NN"
        known = english.forms(new.split()[-1])
        if tag not in known and not (tag == "JJ" and "JJR" in known):
            return f"{new} is no {swap.tag} form"
        if swap.pos == "n":
            return self._number(query, swap) or self._noun(query, swap)
        return self._verb(query, swap) if swap.pos == "v" else None

    def _phrasebook(self, query: TaggedQuery, swap: Swap) -> str | None:
        return self._number(query, swap) if swap.pos == "n" and swap.new not in SOMEBODY else None

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        """Return why it is wrong: one word for one word, in another form; or a wrong article."""
        for change in rewording.changes:
            old, new = tokenize(change.old), tokenize(change.new)
            if len(old) == len(new) == 1 and old[0] in query.words:
                tag = query.tags[query.words.index(old[0])]
                if tag in ("NNS", "VBZ", "VBG", "VBD", "VBN") and (known := english.forms(new[0])) and tag not in known:
                    return f"{new[0]} is no {tag} form, as {old[0]} is"
        before = set(pairwise(query.words))
        for first, following in pairwise(tokenize(rewording.sentence)):
            if first in ("a", "an") and (first, following) not in before and first != english.article(following):
                return f"{first} {following}"
        return None

    @staticmethod
    def _pronoun(query: TaggedQuery, swap: Swap) -> str | None:
        place = swap.place
        if swap.tag != "NN" or query.words[place] != swap.base:
            return "a pronoun for a plural"
        if query.word(place - 1) not in ("a", "an") and query.tag(place - 1)[:2] in ("DT", "PR", "JJ", "CD", "NN"):
            return "a pronoun after a determiner or an adjective"
        return "a pronoun before a noun or a pronoun" if query.tag(place + 1)[:2] in ("NN", "PR") else None

    @staticmethod
    def _number(query: TaggedQuery, swap: Swap) -> str | None:
        """Return why a number is wrong: an uncounted noun for a counted plural, or with an article."""
        place, new, head = swap.place, swap.new, swap.new.split()[-1]
        phrase, after = _from_determiner(query, place), query.word(place + 1)
        is_plural = _looks_plural(head) if swap.curated else new != swap.new_base
        if swap.tag == "NNS" and not is_plural:  # a plural became a word that is not counted
            if after in _PLURAL_NEXT or _COUNTED & phrase or {"they", "them"} & {*query.words[place + 1 :]}:
                return f"{new} is not a plural"
        elif swap.tag == "NN" and english.is_mass(head) and not english.is_mass(swap.base) and _ONE & phrase:
            return f"{new} takes no article"
        elif swap.curated and swap.tag == "NN" and _looks_plural(head) and after in _SINGULAR_NEXT:
            return f"{new} is a plural"
        return None

    @staticmethod
    def _noun(query: TaggedQuery, swap: Swap) -> str | None:
        """Return why a noun does not fit: it needs an article, or is part of a compound."""
        place, following = swap.place, query.tag(swap.place + 1)
        uncounted_before = swap.tag == "NN" and english.is_mass(swap.base) and not english.is_mass(swap.new.split()[-1])
        if uncounted_before and not {"DT", "PRP$"} & {*query.tags[max(0, place - 3) : place]}:
            return f"{swap.new} needs an article"
        # "car wash": "wash" is no verb, or it would be "washes"
        bare = swap.tag == "NN" and following in ("VB", "VBP") and "NN" in english.forms(query.word(place + 1))
        if not query.breaks_off(place) and (bare or following in ("NN", "NNS", "?")):
            return "part of a compound"
        if query.tag(place - 1) in ("NN", "NNS") and not query.breaks_off(place - 1):
            return "part of a compound"
        return None

    def _verb(self, query: TaggedQuery, swap: Swap) -> str | None:
        """Return why a verb does not fit: WordNet's frames of its first senses lack what follows."""
        if self._wordnet is None:
            return None
        senses = self._wordnet.senses(swap.new_base, "v")
        frames = frozenset().union(*(self._wordnet.frames(sense, swap.new_base) for sense in senses[:2]))
        after = query.tag(swap.place + 1)
        passive = swap.tag == "VBN" and query.tag(swap.place - 1) == "AUX"
        if after == "TO" and query.tags[min(swap.place + 2, len(query.tags) - 1)] in ("VB", "VBP", "?"):
            needed = _TO_VERB
        elif after == "VBG":
            needed = _ING | _TO_VERB | _OBJECT
        elif after in ("DT", "PRP$", "PRP", "NN", "NNS", "JJ", "CD") or passive:
            needed = _OBJECT
        else:
            needed = _NO_OBJECT
        return None if frames & needed else f"{swap.new_base} is not used with what follows"


def _from_determiner(query: TaggedQuery, place: int) -> set[str]:
    """Return the words before a noun, back to its determiner."""
    phrase = set()
    for back in range(place - 1, max(-1, place - 4), -1):
        phrase.add(query.words[back])
        if query.tags[back] not in ("JJ", "NN", "CD", "VBN", "VBG"):
            break
    return phrase


def _looks_plural(noun: str) -> bool:
    """Return whether a noun looks plural: "garments", "gentlemen", but neither "attire" nor "footwear"."""
    return noun.endswith("s") or ("NNS" in english.forms(noun) and "NN" not in english.forms(noun))


class SimilarityFilter(Filter):
    """Turn down new words that word vectors call another meaning, or that do not fit the context.

    The least cosines are those of ``CheckConfig``.
    """

    name = "similarity"

    def __init__(self, meaning: WordSimilarity, synonym: float, hypernym: float, sentence: float) -> None:
        # "rarer_sense": by how much closer a synonym of a rarer sense must be.
        # "context": how much worse than the old word the new one may fit the context.
        super().__init__(synonym=synonym, rarer_sense=0.07, hypernym=hypernym, context=0.2, sentence=sentence)
        self._meaning = meaning

    def cosine(self, swap: Swap) -> float | None:
        """Return the cosine of the two words, as they stand or as lemmas, whichever is closer."""
        pairs = ((swap.base, swap.new_base), (swap.changes[0].old.lower(), swap.new))
        return max((near for pair in pairs if (near := self._meaning.similarity(*pair)) is not None), default=None)

    def _thesaurus(self, query: TaggedQuery, swap: Swap) -> str | None:
        near = self.cosine(swap)
        least = self.settings["synonym" if swap.relation == "synonym" else "hypernym"]
        if near is None or near < least + (self.settings["rarer_sense"] if swap.rank else 0.0):
            return f"the words are not close ({_shown(near)})"
        context = self._meaning.context(query, query.words[swap.place])
        old, new = self._meaning.mean([swap.base]), self._meaning.mean(swap.new_base.split())
        if context is None or old is None or new is None:
            return None
        worse = float(context @ new) < float(context @ old) - self.settings["context"]
        return "does not fit the context" if worse else None

    def _phrasebook(self, query: TaggedQuery, swap: Swap) -> str | None:
        blind = [word for word in tokenize(swap.new) if not self._meaning.knows(word)]
        return f"no vector for {', '.join(blind)}" if blind else None

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        near = self._meaning.sentence_similarity(query.words, tokenize(rewording.sentence))
        fits = near is not None and near >= self.settings["sentence"]
        return None if fits else f"another sentence ({_shown(near)})"


def _shown(value: float | None) -> str:
    return "no vector" if value is None else f"{value:.2f}"


class SenseFilter(Filter):
    """Turn down words without a shared sense that is likely for both, in this query and in general.

    Without a judge, only the commonest sense passes; ``chance`` and ``own`` are those of ``CheckConfig``.
    """

    name = "sense"

    def __init__(self, judge: SenseJudge | None, chance: float = 0.5, own: float = 0.45) -> None:
        if judge is None:
            super().__init__(commonest_senses=1)
        else:
            super().__init__(chance_in_context=chance, more_for_verbs=0.1, share_of_new_word=own)
        self._judge = judge

    def _thesaurus(self, query: TaggedQuery, swap: Swap) -> str | None:
        if self._judge is None:
            return None if swap.rank < self.settings["commonest_senses"] else "not the commonest sense"
        chance, own = self._chances(self._judge, query, swap)
        if chance < self.settings["chance_in_context"] + (self.settings["more_for_verbs"] if swap.pos == "v" else 0.0):
            return f"{swap.base} hardly means {swap.new_base} here"
        return None if own >= self.settings["share_of_new_word"] else f"{swap.new_base} mostly means something else"

    @staticmethod
    def _chances(judge: SenseJudge, query: TaggedQuery, swap: Swap) -> tuple[float, float]:
        """Return how likely the old word has the shared sense here, and how often the new word has it."""
        net = judge.wordnet
        new = net.senses(swap.new_base, swap.pos)
        shares = dict(zip((s.offset() for s in new), net.shares(swap.new_base, swap.pos), strict=True))
        best = (0.0, 0.0)
        old = net.senses(swap.base, swap.pos)
        chances = judge.chances(query, query.words[swap.place], swap.base, swap.pos)
        for sense, chance in zip(old, chances, strict=True):
            shared = [sense] if swap.relation == "synonym" else sense.hypernyms()
            own = max((shares.get(s.offset(), 0.0) for s in shared), default=0.0)
            if own and chance > best[0]:
                best = (chance, own)
        return best


class CollisionFilter(Filter):
    """Turn down wordings that describe another moment of the video: too close to another query's words."""

    name = "collision"

    def __init__(self, meaning: WordSimilarity) -> None:
        super().__init__()
        self._meaning = meaning

    def _paraphrase(self, query: TaggedQuery, rewording: Rewording) -> str | None:
        words = tokenize(rewording.sentence)
        own = self._meaning.sentence_similarity(query.words, words) or 0.0
        for other in query.siblings:
            if other.moments == query.record.moments:
                continue
            theirs = tokenize(other.sentence)
            if set(theirs) == set(words):
                return "another moment's query says the same"
            if theirs != list(query.words):
                near = self._meaning.sentence_similarity(theirs, words)
                if near is not None and near > own:
                    return "nearer to another moment's query"
        return None

    _thesaurus = _phrasebook = _paraphrase


@dataclass(frozen=True)
class CheckConfig:
    """Settings of the filters that a rewording must pass."""

    train: tuple[Path, ...]
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

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, which no output may replace."""
        return (*self.train, self.words)


class Checks:
    """The filters of a build, in the order in which they judge, and what else judging needs.

    Training files, vectors and WordNet are read. ``facts`` are for the manifest. Raises ``UserError`` where something
    is missing.
    """

    def __init__(self, config: CheckConfig) -> None:
        packages = english.package_versions()
        tokenizer = open_tokenizer(config.tokenizer)
        training = (record for file in config.train for record in read_sentences(file))
        vocabulary = training_vocabulary(tokenizer(record.sentence) for record in training)
        tagger = english.find_tagger()
        assert tagger is not None  # lemminflect is there
        self.tagger = tagger
        self.wordnet = wordnet = WordNet(find_wordnet(config.wordnet)) if config.use_wordnet else None
        meaning = WordSimilarity(load_word_vectors(config.words))
        self.unseen = UnseenFilter(vocabulary, tokenizer)
        self.similarity = SimilarityFilter(
            meaning, config.similarity, config.hypernym_similarity, config.sentence_similarity
        )
        self.collision = CollisionFilter(meaning)
        self.filters = (
            self.unseen,
            KnownWordsFilter(config.frequency),
            ProtectedFilter(wordnet),
            AgreementFilter(wordnet),
            self.similarity,
            SenseFilter(SenseJudge(wordnet, meaning) if wordnet else None, config.sense, config.own_sense),
            self.collision,
        )
        self.facts = {
            "training": [file_facts(file) for file in config.train],
            "training_words": len(vocabulary),
            "tokenizer": config.tokenizer,
            "word_vectors": file_facts(config.words),
            "wordnet": wordnet and {"data.noun sha256": checksum(wordnet.folder / "data.noun")},
            "tagger": tagger.name,
            "packages": packages,
            "filters": {each.name: each.settings for each in self.filters},
        }


def file_facts(path: Path) -> dict[str, str]:
    """Return what identifies a file in a manifest."""
    return {"file": path.name, "sha256": checksum(path)}
