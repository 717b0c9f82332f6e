"""Scores of answers: metrics, the official QVHighlights evaluation, intervals, submissions."""
