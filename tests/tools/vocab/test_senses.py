"""Which sense a word has in its query, by WordNet's counts and the words around it."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import load_word_vectors
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import RuleTagger, make_query
from hero_plugin.integrations.tools.vocab.filters import SenseFilter
from hero_plugin.integrations.tools.vocab.meaning import SenseJudge, WordSimilarity, find_wordnet
from hero_plugin.integrations.tools.vocab.sources import WordNetSwaps
from tests.resources import shared


def test_wordnet(wordnet):
    assert wordnet.knows("living room") and wordnet.knows("turn on", "v") and not wordnet.knows("purple door")
    assert "telephone" in wordnet.senses("phone", "n")[0].lemma_names()
    shares = wordnet.shares("court", "n")
    assert sum(shares) == pytest.approx(1) and len(shares) == len(wordnet.senses("court", "n"))
    entries = WordNetSwaps(wordnet).lookup("phones", "phone", "n")
    assert any(entry.lemma == "telephone" and entry.relation == "synonym" and entry.rank == 0 for entry in entries)


def test_no_wordnet_there(tmp_path):
    with pytest.raises(UserError, match=r"data\.noun"):
        find_wordnet(tmp_path)


@pytest.mark.slow
def test_the_context_decides(wordnet):
    meaning = WordSimilarity(load_word_vectors(shared("vectors", "minilm_words_384.npz")))
    judge = SenseJudge(wordnet, meaning)
    source, sense, tagger = WordNetSwaps(wordnet), SenseFilter(judge), RuleTagger()

    def new_words(sentence, old):
        query = make_query(Record("q" + sentence, "v", sentence, ((0.0, 1.0),), 2.0), (), tagger)
        found = [swap for swap in source.propose(query) if swap.base == old]
        return {swap.new_base for swap in found if sense.reason(query, swap) is None}

    assert "automobile" in new_words("a man drives a car on the road", "car")
    assert "gondola" not in new_words("a man drives a car on the road", "car")
    assert "chairman" not in new_words("the person sits on a chair at the table", "chair")
    assert "tribunal" not in new_words("two players throw a ball on a basketball court", "court")
