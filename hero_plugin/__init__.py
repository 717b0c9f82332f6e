"""HERO for temporal sentence grounding."""
