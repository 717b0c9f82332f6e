"""Open vocabulary: how far queries drift from the training words, and reworded queries that drift on purpose.

How a rewording comes about: a source proposes (``sources``, ``phrasebook``), seven filters check (``filters``), and of
what passes ``build.choose`` takes some per query, no word too often. ``build.build`` runs it all.
"""
