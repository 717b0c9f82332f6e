"""Whether HERO around a base does what it promises: ``check_adapter``."""

from hero_plugin.adapters.checking.check import AdapterReport, Finding, check_adapter

__all__ = ["AdapterReport", "Finding", "check_adapter"]
