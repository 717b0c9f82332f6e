"""Open vocabulary: how far queries drift from the training words, and reworded queries that drift on purpose.

How a rewording comes about: a source proposes (``swaps``, ``phrasebook``, ``sources``), seven filters check
(``filters``), and of what passes ``builder.choose`` takes some per query, no word too often. ``build`` runs it all.
"""
