"""``hero-plugin weights card``: a run's plug-in as a folder for the Hugging Face hub, its model card from the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hero_plugin import Plugin, PluginError
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.settings import parse_named_paths
from hero_plugin.integrations.support.tables import markdown_table
from hero_plugin.integrations.training.checkpoint_formats import read_contents
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.pretrained import write_folder

FILES = ("annotations_train", "annotations_val", "annotations_reworded", "annotations_test", "features", "words")
SETTINGS = ("seed", "epochs", "batch_size", "lr", "optimizer", "schedule", "weight_decay", "amp")


@dataclass
class CardConfig:
    """Write a folder that from_pretrained reads and the Hugging Face hub takes: plug-in, base, model card."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A finished run folder."""
    output: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUTPUT")]
    """The folder to write: plugin.safetensors, base.safetensors, README.md."""
    without_base: bool = False
    """Leave the base's weights out, as those of a frozen base are."""
    overwrite: bool = False
    """Replace what is in OUTPUT of an earlier call."""


def card(config: CardConfig) -> None:
    """Run ``hero-plugin weights card``."""
    run = RunFolder.open(config.run)
    if not run.finished:
        raise UserError(f"{config.run}: not finished, it has no results.json: --resume its training, then write a card")
    settings, results = run.config(), run.results()
    contents = read_contents(run.path / "best.pt")
    if not contents.hero or contents.config is None:
        raise UserError(f"{config.run}: trained without HERO: there is no plug-in to write a card for")
    base = None if config.without_base or settings["freeze_base"] else contents.base
    plugin = Plugin(contents.hero, contents.config, contents.fingerprint, contents.version or "unknown")
    try:
        write_folder(config.output, plugin, base, sections(settings, results), config.overwrite)
    except PluginError as error:
        raise UserError(str(error).replace("pass overwrite=True", "add --overwrite")) from error
    Screen().say(f"{config.output}: {', '.join(sorted(path.name for path in config.output.iterdir()))}")


def sections(settings: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, str]:
    """Return the sections that a run adds to a model card, Markdown by heading: figures, data, training.

    Of files the names alone are told, and not where they lie.
    """
    best: Mapping[str, Mapping[str, Any]] = results["best"]
    names = list(dict.fromkeys(name for scores in best.values() for name in scores))
    figures = [[where, *(_number(scores.get(name)) for name in names)] for where, scores in best.items()]
    chosen = f"Of epoch {results['best_epoch']}, the best on {results['selected_on']}; one training, so no intervals."
    files = [[name.replace("_", " "), _files(name, settings[name])] for name in FILES if settings.get(name)]
    training = [[name.replace("_", " "), str(settings[name])] for name in SETTINGS if name in settings]
    training.append(["base", _base(settings)])
    versions = ", ".join(f"{name} {version}" for name, version in settings.get("versions", {}).items())
    return {
        "Figures": f"{chosen}\n\n{markdown_table(('set', *names), figures)}",
        "Data": markdown_table(("part", "files"), files, text=("files",)),
        "Training": f"{markdown_table(('setting', 'value'), training, text=('value',))}\n\nTrained with {versions}.",
    }


def _number(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, (int, float)) else ""


def _files(name: str, value: Any) -> str:
    if name == "annotations_test":
        return ", ".join(f"{known_as}={path.name}" for known_as, path in parse_named_paths(value))
    return ", ".join(Path(path).name for path in ([value] if isinstance(value, str) else value))


def _base(settings: Mapping[str, Any]) -> str:
    start = f" from {Path(settings['init_base']).name}" if settings.get("init_base") else ""
    return f"{settings['base']}, {'frozen' if settings['freeze_base'] else 'trained'}{start}"
