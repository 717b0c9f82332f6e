"""Readers, writers, features, words and timelines."""
