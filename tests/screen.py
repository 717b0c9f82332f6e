"""The screen of tests that are not about what is shown."""

from hero_plugin.integrations.support.console import Screen

QUIET = Screen(quiet=True)
