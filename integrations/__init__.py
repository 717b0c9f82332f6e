"""Data, training, evaluation and the command line."""
