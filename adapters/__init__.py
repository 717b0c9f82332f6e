"""Adapters: known TSG bases as hero_plugin grounders."""
