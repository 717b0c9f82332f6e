"""Words that a thesaurus cannot replace well, as their meaning lies in the words around them."""

from __future__ import annotations

__all__ = ["FIXED_VERBS", "NEVER_SWAPPED", "PARTICLES"]

_VERBS = """be have do go get take make put give hold keep let set turn run come bring see look show hand pass play draw
cast break cut change fall bear call carry catch drop hit lay lie lead leave lift pull push raise rise roll send
shake sit stand stick strike throw work want need try seem appear happen become live feel say tell know think
find mean stay fit fix tie dress drive ride fly jump race score serve shoot spot spring strip sweep swing continue
demonstrate describe introduce perform proceed prepare"""
FIXED_VERBS = frozenset(_VERBS.split())
"""Light verbs, and verbs of a dozen senses."""

_OTHERS = """thing way time end side back front top bottom middle part kind type lot bit one other same left right
inside outside scene screen video camera shot clip image title text logo name words number line piece
point place area again more most less many much several own such first second third next last final
whole different various able little big good bad new old long short high low full open board court match
game goal ring pool deck deal black white"""
NEVER_SWAPPED = frozenset(_OTHERS.split())
"""Nouns and adjectives of the same sort, and what captions say of the film itself."""

_PARTICLES = "up down out off on over away in back through around along about apart together aside by"
PARTICLES = frozenset(_PARTICLES.split())
