"""Annotation files, features and words, read into records and arrays."""

from hero_plugin.integrations.data.annotations import (
    Format,
    read_annotations,
    read_many,
    read_sentences,
    words_of,
    write_annotations,
)
from hero_plugin.integrations.data.checks import OnBroken, ReadReport, load_durations
from hero_plugin.integrations.data.features import FeatureStore, MemoryFeatures, open_features
from hero_plugin.integrations.data.records import Change, Record, Rewording, is_reworded
from hero_plugin.integrations.data.words import Tokenizer, Vocabulary, WordVectors, load_word_vectors, tokenize

__all__ = ["Change", "FeatureStore", "Format", "MemoryFeatures", "OnBroken", "ReadReport", "Record", "Rewording"]
__all__ += ["Tokenizer", "Vocabulary", "WordVectors", "is_reworded", "load_durations", "load_word_vectors"]
__all__ += ["open_features", "read_annotations", "read_many", "read_sentences", "tokenize", "words_of"]
__all__ += ["write_annotations"]
