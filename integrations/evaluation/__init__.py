"""Scores of runs and submissions on any annotations, by unseen words as well."""
