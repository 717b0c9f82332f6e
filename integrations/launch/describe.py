"""What ``--dry-run`` says."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields

from hero_plugin import HeroConfig
from hero_plugin.integrations.launch.patches import Patch
from hero_plugin.integrations.launch.repositories import Repository
from hero_plugin.integrations.launch.script import Script
from hero_plugin.integrations.launch.shims import Shim


def describe(
    repository: Repository,
    script: Script,
    config: HeroConfig | None,
    origin: str,
    patches: Sequence[Patch],
    shims: Sequence[Shim],
) -> str:
    """What would be run, and everything that is changed at run time."""
    lines = [
        f"repository  {repository.name}, {script.repository}",
        f"runs        {shlex.join(['python', script.shown, *script.arguments])}",
        f"HERO        {'none' if config is None else summary(config)} (from {origin})",
        "",
        "Changed at run time; no file of the repository is touched:" if patches or shims else "Nothing is changed.",
        *(f"  {patch.target}: {patch.why}" for patch in patches),
    ]
    for shim in shims:
        lines += [f"  shim {shim.name}: {shim.repair}", f"      without it: {shim.symptom}"]
        lines += [f"      changes {patch.target}: {patch.why}" for patch in shim.patches]
        lines += [f"      stands in for the module {name}" for name in shim.stand_ins()]
    spare = [shim.name for shim in repository.shims if shim not in shims]
    if spare:
        lines += ["", f"Not needed on this machine: {', '.join(spare)}"]
    return "\n".join(lines)


def summary(config: HeroConfig) -> str:
    """Levels, and every field that is not the default."""
    usual = HeroConfig()
    changed = [field.name for field in fields(config) if getattr(config, field.name) != getattr(usual, field.name)]
    return ", ".join(f"{name}={getattr(config, name)}" for name in dict.fromkeys(("levels", *changed)))
