"""Annotation files, features and words, read into records and arrays."""

from __future__ import annotations

from hero_plugin.integrations.data.annotations import read_annotations, write_annotations
from hero_plugin.integrations.data.features import open_features
from hero_plugin.integrations.data.words import load_word_vectors, tokenize

__all__ = ["load_word_vectors", "open_features", "read_annotations", "tokenize", "write_annotations"]
