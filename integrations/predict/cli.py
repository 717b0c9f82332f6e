"""Commands ``hero-plugin predict`` and ``hero-plugin predict merge``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hero_plugin.integrations.commands import parse


@dataclass
class MergeConfig:
    """Join the parts of a prediction whose shards are all done, as the last of them does by itself."""

    output: Path
    """As given to hero-plugin predict."""
    keep_parts: bool = False
    """Leave the parts where they are."""


def predict(argv: Sequence[str]) -> None:
    """Run ``hero-plugin predict``."""
    from hero_plugin.integrations.predict.config import PredictConfig

    config = parse(PredictConfig, "predict", argv)
    from hero_plugin.integrations.predict.predicting import command_line, main

    main(config, command=command_line(list(argv)))


def merge(argv: Sequence[str]) -> int:
    """Run ``hero-plugin predict merge``; return status 1 if shards are unfinished."""
    config = parse(MergeConfig, "predict merge", argv)
    from hero_plugin.integrations.console import Screen
    from hero_plugin.integrations.predict.manifest import Manifest
    from hero_plugin.integrations.predict.predicting import merge_if_done

    return 0 if merge_if_done(Manifest.open(config.output), Screen(), config.keep_parts) is not None else 1
