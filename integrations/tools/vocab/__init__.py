"""Open vocabulary: how far queries drift from the training words, and reworded queries that drift on purpose."""
