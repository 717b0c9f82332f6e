"""How many examples a property gets: first calls are slow, so there is no deadline."""

from __future__ import annotations

from hypothesis import settings

quick = settings(deadline=None, max_examples=25)
few = settings(deadline=None, max_examples=8)
