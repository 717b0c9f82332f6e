"""Training vocabulary and filters of a build, from their flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hero_plugin.integrations.annotations.sentences import read_sentences
from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.vocab.agreement import AgreementFilter
from hero_plugin.integrations.vocab.english import need_english, versions
from hero_plugin.integrations.vocab.filters import Filter, KnownWordsFilter, UnseenFilter
from hero_plugin.integrations.vocab.meaning import SenseJudge, WordSimilarity
from hero_plugin.integrations.vocab.nearness import CollisionFilter, SimilarityFilter
from hero_plugin.integrations.vocab.protection import ProtectedFilter
from hero_plugin.integrations.vocab.sense import SenseFilter
from hero_plugin.integrations.vocab.tagging import Tagger, find_tagger
from hero_plugin.integrations.vocab.tokenizers import open_tokenizer
from hero_plugin.integrations.vocab.wordnet import WordNet, find_wordnet
from hero_plugin.integrations.words import load_word_vectors
from hero_plugin.open_vocabulary import training_vocabulary

__all__ = ["BuildChecks", "CheckConfig", "make_checks"]

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
