"""Which sense a word has in its query, by WordNet's counts and the words around it."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import load_word_vectors
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import RuleTagger
from hero_plugin.integrations.tools.vocab.filters import SenseFilter
from hero_plugin.integrations.tools.vocab.grammar import make_query
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordNet, WordSimilarity, find_wordnet
from hero_plugin.integrations.tools.vocab.swaps import WordNetThesaurus, WordSwaps
from tests.resources import shared
from tests.tools.vocab.samples import need_wordnet


def test_wordnet():
    net = WordNet(need_wordnet())
    assert net.knows("living room") and net.knows("turn on", "v") and not net.knows("purple door")
    assert "telephone" in net.senses("phone", "n")[0].lemma_names()
    shares = net.shares("court", "n")
    assert sum(shares) == pytest.approx(1) and len(shares) == len(net.senses("court", "n"))
    entries = WordNetThesaurus(net).lookup("phones", "phone", "n")
    assert any(entry.lemma == "telephone" and entry.relation == "synonym" and entry.rank == 0 for entry in entries)


def test_no_wordnet_there(tmp_path):
    with pytest.raises(UserError, match=r"data\.noun"):
        find_wordnet(tmp_path)


def test_the_context_decides():
    net = WordNet(need_wordnet())
    meaning = WordSimilarity(load_word_vectors(shared("vectors", "minilm_words_384.npz")))
    judge = SenseJudge(net, meaning)
    source, sense, tagger = WordSwaps(WordNetThesaurus(net)), SenseFilter(judge), RuleTagger()

    def new_words(sentence, old):
        query = make_query(Record("q" + sentence, "v", sentence, ((0.0, 1.0),), 2.0), (), tagger)
        found = [swap for swap in source.propose(query) if swap.base == old]
        return {swap.new_base for swap in found if sense.reason(query, swap) is None}

    assert "automobile" in new_words("a man drives a car on the road", "car")
    assert "gondola" not in new_words("a man drives a car on the road", "car")
    assert "chairman" not in new_words("the person sits on a chair at the table", "chair")
    assert "tribunal" not in new_words("two players throw a ball on a basketball court", "court")
