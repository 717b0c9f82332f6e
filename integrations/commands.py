"""Flags to function calls, for the commands that train and score."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import tyro

from hero_plugin import HeroConfig
from hero_plugin.integrations.bases import BASES, config_from
from hero_plugin.integrations.interrupts import Interrupted
from hero_plugin.integrations.ranks import Rank
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.settings import ConfigError, filled, read_settings
from hero_plugin.integrations.train_config import TrainConfig

Config = TypeVar("Config")


def train(argv: Sequence[str], base: str = "emb") -> None:
    """``hero-plugin train BASE``."""
    config = parse(BASES[base].config, f"train {base}", argv, default=train_defaults(argv, base))
    from hero_plugin.integrations.training import main

    try:
        main(config)
    except (Interrupted, KeyboardInterrupt):  # the latter while it reads or draws
        again = f"hero-plugin train {base} --output {shlex.quote(str(config.output))} --resume"
        many = ", under torchrun or not" if Rank.of_this_process().size > 1 else ""
        raise Interrupted(f"stopped; everything is saved. Resume with{many}: {again}") from None


def evaluate(argv: Sequence[str]) -> None:
    """``hero-plugin eval``."""
    from hero_plugin.integrations.evaluate import EvalConfig, main

    main(parse(EvalConfig, "eval", argv))


def adapt(argv: Sequence[str]) -> None:
    """``hero-plugin adapt``."""
    from hero_plugin.integrations.adapt.config import AdaptConfig

    start = AdaptConfig()
    output = _value(argv, "--output")
    if "--resume" in argv and output is not None and (Path(output) / "config.json").is_file():
        record = dict(RunFolder.open(Path(output)).config().get("adapted", {}))
        for name in ("stage", "past"):  # what the settings led to
            record.pop(name, None)
        start = filled(start, record, f"{output}/config.json")
    config = parse(AdaptConfig, "adapt", argv, default=start)
    from hero_plugin.integrations.adapt.adapting import main

    try:
        main(config)
    except (Interrupted, KeyboardInterrupt):
        again = f"hero-plugin adapt --output {shlex.quote(str(config.output))} --resume"
        raise Interrupted(f"stopped; everything is saved. Resume with: {again}") from None


def sweep(argv: Sequence[str]) -> int:
    """``hero-plugin sweep``."""
    from hero_plugin.integrations.sweep import SweepConfig, main

    return main(parse(SweepConfig, "sweep", argv))


def demo(argv: Sequence[str]) -> None:
    """``hero-plugin demo``."""
    from hero_plugin.integrations.demo import DemoConfig, main

    config = parse(DemoConfig, "demo", argv)
    try:
        main(config)
    except Interrupted:
        raise Interrupted("stopped; run the demo again to start it afresh") from None


def train_defaults(argv: Sequence[str], base: str = "emb") -> TrainConfig:
    """What the flags start from: the run to resume, else a settings file, else the base's recipe."""
    start = BASES[base].config()
    output, file = _value(argv, "--output"), _value(argv, "--config")
    if "--resume" in argv:
        if output is None:
            raise ConfigError("--resume needs --output: the folder of the run to continue")
        if (Path(output) / "config.json").is_file():
            start = config_from(RunFolder.open(Path(output)).config(), f"{output}/config.json", start)
    if "--paper" in argv and not start.paper:  # before the file, whose single choices stand over it
        start = replace(start, paper=True, hero=HeroConfig.paper())
    if file is not None:
        start = config_from(read_settings(Path(file)), file, start)
    return start


def parse(kind: type[Config], name: str, argv: Sequence[str], default: Config | None = None) -> Config:
    """The flags as a config; ``--help`` and mistyped flags are tyro's business.

    Raises:
        ConfigError: values that a config refuses.
    """
    extra = {} if default is None else {"default": default}
    # Under torchrun every process reads the same flags: one of them says what is wrong, or shows the help.
    with ExitStack() as silence:
        if not Rank.of_this_process().leads:
            silence.enter_context(redirect_stdout(io.StringIO()))
            silence.enter_context(redirect_stderr(io.StringIO()))
        try:
            return tyro.cli(kind, prog=f"hero-plugin {name}", args=list(argv), **extra)
        except ValueError as error:
            raise ConfigError(str(error)) from error


def _value(argv: Sequence[str], flag: str) -> str | None:
    """The value of ``--flag VALUE`` or ``--flag=VALUE``."""
    for index, word in enumerate(argv):
        if word == flag and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return None
