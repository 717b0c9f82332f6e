"""Few-shot adaptation of a trained run to new words, one vocabulary after the other."""
