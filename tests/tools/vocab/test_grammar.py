"""The builder's known mistakes stay out: wrong forms, wrong articles, wrong senses, things that are not words."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.tools.vocab.english import RuleTagger, make_query
from hero_plugin.integrations.tools.vocab.filters import AgreementFilter, KnownWordsFilter, ProtectedFilter
from hero_plugin.integrations.tools.vocab.sources import ThesaurusEntry, WordSwaps, combine, paraphrase

pytestmark = pytest.mark.usefixtures("packages")


class Pairs(WordSwaps):
    """A thesaurus of given pairs, "old new pos"."""

    def __init__(self, *pairs):
        super().__init__("pairs", {})
        self._pairs = [pair.split() for pair in pairs]

    def lookup(self, word, base, pos):
        return [
            ThesaurusEntry(new.replace("_", " "), "synonym", 0)
            for old, new, kind in self._pairs
            if old == base and kind == pos
        ]


def query(sentence):
    return make_query(Record("q", "v", sentence, ((0.0, 1.0),), 2.0), (), RuleTagger())


def swaps(sentence, *pairs):
    return list(Pairs(*pairs).propose(query(sentence)))


def passes(sentence, *pairs, judge=None):
    judge = judge or AgreementFilter(None)
    found = query(sentence)
    return [swap.sentence for swap in swaps(sentence, *pairs) if judge.reason(found, swap) is None]


@pytest.mark.parametrize(
    ("sentence", "pair", "expected"),
    [
        ("A person puts two phones away.", "phone telephone n", "A person puts two telephones away."),
        ("Person begins eating.", "begin commence v", "Person commences eating."),
        ("person is beginning to eat", "begin commence v", "person is commencing to eat"),
        ("He sees a car.", "car automobile n", "He sees an automobile."),
        ("An infant cries", "infant baby n", "A baby cries"),
        ("A person opens a door", "person somebody n", "Somebody opens a door"),
        ("person folds some clothes", "clothes apparel n", "person folds some apparel"),
        ("He puts them in.", "put set v", "He sets them in."),
        ("she sees the women", "woman lady n", "she sees the ladies"),
        ("Car stops", "car automobile n", "Automobile stops"),
    ],
)
def test_swapped_words_have_the_right_form(sentence, pair, expected):
    assert passes(sentence, pair) == [expected]


@pytest.mark.parametrize(
    ("sentence", "pair"),
    [
        ("person closes the door", "close closing n"),  # a verb is no noun
        ("the other person laughs", "person somebody n"),
        ("two persons laugh", "person somebody n"),
        ("person they laugh", "person somebody n"),
        ("she opens a cabinet", "cabinet furniture n"),  # not counted
        ("those clothes are dirty", "clothes apparel n"),
        ("he takes the clothes and folds them", "clothes apparel n"),
        ("a car wash opens", "car automobile n"),  # a compound
        ("he has a car key", "car automobile n"),
    ],
)
def test_what_would_be_wrong_is_turned_down(sentence, pair):
    assert passes(sentence, pair) == []


def test_free_rewordings_are_checked_where_one_word_became_another():
    before = query("person closes the door")
    judge = AgreementFilter(None)
    assert judge.reason(before, paraphrase(before, "person closings the door"))
    assert judge.reason(before, paraphrase(before, "person closes the a oven"))
    assert judge.reason(before, paraphrase(before, "person shuts the portal")) is None
    assert paraphrase(before, "Person closes the door.") is None  # nothing new


def test_words_that_are_no_words():
    found = query("person has a phone")
    judge = KnownWordsFilter()
    reasons = {
        swap.changes[0].new: judge.reason(found, swap)
        for swap in swaps("person has a phone", "phone fone n", "phone telephone n", "phone qwrtzp n")
    }
    assert reasons["telephone"] is None and "no word" in reasons["qwrtzp"]


def test_expressions_and_particles_are_left_alone(wordnet):
    judge = ProtectedFilter(wordnet)
    assert passes("she is in the living room", "room chamber n", judge=judge) == []
    assert passes("he throws a towel up", "throw toss v", judge=judge) == []
    assert passes("he cleans it up", "clean scrub v", judge=judge) == []  # clean up
    assert passes("he cleans the sofa", "clean scrub v", judge=judge) == ["he scrubs the sofa"]
    assert passes("We see Mr Door there", "door portal n", judge=judge) == []  # a name
    assert passes("he plays tennis", "tennis lawn_tennis n", judge=judge) == []
    assert passes("the red cup", "red reddish a", judge=judge) == []


def test_verbs_take_what_they_can_take(wordnet):
    judge = AgreementFilter(wordnet)
    assert passes("he reaches for the cup", "reach attain v", judge=judge) == []
    assert passes("they begin eating", "begin commence v", judge=judge) == ["they commence eating"]


def test_several_swaps_at_once():
    found = query("A person takes a car and a phone.")
    singles = swaps("A person takes a car and a phone.", "car automobile n", "phone telephone n", "person somebody n")
    doubles = [rewording.sentence for rewording in combine(found, singles, 3)]
    assert "Somebody takes an automobile and a phone." in doubles
    assert doubles[-1] == "Somebody takes an automobile and a telephone." and len(doubles) == 4


def test_tags():
    tagger = RuleTagger()
    tags = dict(zip(words := tokenize("a person watches the light and turns it off"), tagger.tag(words), strict=True))
    assert (tags["watches"], tags["light"], tags["turns"], tags["person"]) == ("VBZ", "NN", "VBZ", "NN")
    assert tagger.tag(["person", "drinking", "coffee"]) == ["NN", "VBG", "NN"]
    assert tagger.tag(["she", "folds", "clothes"]) == ["PRP", "VBZ", "NNS"]
    assert tagger.tag([]) == []
