"""The repositories that the launcher knows: how they are told apart, where they build, what of them is old."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hero_plugin import HeroConfig, config_of
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch.patches import Patch
from hero_plugin.integrations.tools.launch.shims import (
    CONFIGURED_DEVICE,
    CUDA_ON_CPU,
    FLOAT_LENGTHS,
    FOCAL_LOSS,
    FORK,
    PUNKT,
    TORCH_LOAD,
    TRANSFORMERS_ADAMW,
    Shim,
)
from hero_plugin.integrations.tools.launch.wrapping import Wrapping

Words = Sequence[str]


@dataclass(frozen=True)
class Repository:
    """What the launcher knows of a repository."""

    name: str
    signs: tuple[str, ...]
    """Files that it has, and none of the others has all of."""
    builders: tuple[str, ...]
    """MODULE:NAME of what builds its models."""
    scripts: tuple[str, ...]
    """Its entry points."""
    checkpoint: Callable[[Words], Path | None]
    """Its arguments -> the checkpoint that they say to load, if any."""
    shims: tuple[Shim, ...] = ()
    extras: Callable[[Wrapping], tuple[Patch, ...]] = lambda wrapping: ()
    """Patches beyond the builders, which HERO needs there."""

    def patches(self, wrapping: Wrapping | None) -> list[Patch]:
        """What puts HERO in: nothing without a wrapping."""
        if wrapping is None:
            return []
        built = "what it builds gets HERO around it, model and criterion"
        return [
            *(Patch(*builder.split(":"), wrapping.builder, built) for builder in self.builders),
            *self.extras(wrapping),
        ]


def recognise(folder: Path) -> Repository:
    """The repository at ``folder``.

    Raises:
        UserError: it is none of the known ones.
    """
    if not folder.is_dir():
        raise UserError(f"--repo {folder}: no such folder")
    for repository in REPOSITORIES:
        if all((folder / sign).is_file() for sign in repository.signs):
            return repository
    known = "\n".join(f"  {each.name:<12} {', '.join(each.signs)}" for each in REPOSITORIES)
    raise UserError(
        f"--repo {folder}: this is none of the repositories known here, which are told by these files:\n{known}\n"
        "For another one, say what builds its model: --build MODULE:FUNCTION, a function that returns the model, or "
        "model and criterion. Or wrap it by hand, which takes two lines: docs/guide/by_hand.md"
    )


def unknown(folder: Path, builder: str) -> Repository:
    """A repository that only its user knows."""
    module, colon, name = builder.partition(":")
    if not (module and colon and name):
        raise UserError(f"--build takes MODULE:FUNCTION, as in moment_detr.model:build_model, got {builder!r}")
    return Repository(
        name=folder.name,
        signs=(),
        builders=(builder,),
        scripts=(),
        checkpoint=named("--resume"),
        shims=(TORCH_LOAD, CUDA_ON_CPU, FORK),
    )


def named(*flags: str) -> Callable[[Words], Path | None]:
    """Reads the path that follows one of ``flags``."""

    def path(words: Words) -> Path | None:
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument(*flags, dest="path", type=Path)
        return parser.parse_known_args(list(words))[0].path

    return path


def emb_checkpoint(words: Words) -> Path | None:
    """EMB's tests load the best model of a folder, which three flags name."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, default in (("mode", "train"), ("model_dir", "sessions"), ("task", "charades"), ("model_name", "")):
        parser.add_argument(f"--{flag}", default=default)
    given = parser.parse_known_args(list(words))[0]
    if given.mode.lower() != "test":
        return None
    return Path(given.model_dir, given.task, given.model_name, "model_best.pth.tar")


def emb_extras(wrapping: Wrapping) -> tuple[Patch, ...]:
    """HERO's losses are inside EMB's ``Loc``; this logs them apart, too."""

    def logged(update: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(update)
        def updated(self: Any, *args: Any, **losses: Any) -> Any:
            return update(self, *args, **losses, **wrapping.losses())

        return updated

    why = "logs loss_relevance and loss_consistency, not weighted, beside EMB's losses"
    return (Patch("util.runner_utils", "ProgressMeters.update", logged, why),)


def lighthouse_extras(wrapping: Wrapping) -> tuple[Patch, ...]:
    """TaskWeave's loop sums losses by their names' parts, and would leave HERO's out."""

    def with_hero(calculate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(calculate)
        def calculated(losses: Mapping[str, torch.Tensor], weights: Mapping[str, float], *rest: Any) -> Any:
            ours = [name for name in ("loss_relevance", "loss_consistency") if name in losses]
            return calculate(losses, weights, *rest) + sum(losses[name] * weights[name] for name in ours)

        return calculated

    return (Patch("__main__", "calculate_taskweave_losses", with_hero, "adds HERO's weighted losses"),)


def detr(name: str, package: str, *shims: Shim) -> Repository:
    """Moment-DETR's repository and its heirs', which differ in the name of a package."""
    return Repository(
        name=name,
        signs=(f"{package}/train.py", f"{package}/inference.py", f"{package}/model.py"),
        builders=(f"{package}.model:build_model",),
        scripts=(f"{package}/train.py", f"{package}/inference.py"),
        checkpoint=named("--resume"),
        shims=(TORCH_LOAD, *shims, FORK),
    )


LIGHTHOUSE_MODELS = ("moment_detr", "qd_detr", "tr_detr", "eatr", "cg_detr", "uvcom", "taskweave")

REPOSITORIES = (
    Repository(
        name="EMB",
        signs=("main.py", "model/emb.py", "model/proposal.py"),
        builders=("__main__:EMB",),  # where it is defined, its own super(EMB, self) has to find the class
        scripts=("main.py",),
        checkpoint=emb_checkpoint,
        shims=(TRANSFORMERS_ADAMW, FLOAT_LENGTHS, PUNKT, TORCH_LOAD, FORK),
        extras=emb_extras,
    ),
    detr("Moment-DETR", "moment_detr"),
    detr("QD-DETR", "qd_detr", CUDA_ON_CPU),
    detr("TR-DETR", "tr_detr", CUDA_ON_CPU, FOCAL_LOSS),
    Repository(
        name="Lighthouse",
        signs=("training/train.py", "training/evaluate.py", "lighthouse/common/moment_detr.py"),
        builders=tuple(f"lighthouse.common.{model}:build_model" for model in LIGHTHOUSE_MODELS),
        scripts=("training/train.py", "training/evaluate.py"),
        checkpoint=named("--model_path", "--resume", "-r"),
        shims=(TORCH_LOAD, CONFIGURED_DEVICE, CUDA_ON_CPU, FOCAL_LOSS, FORK),
        extras=lighthouse_extras,
    ),
)


def config_in(checkpoint: Any) -> HeroConfig | None:
    """The HERO of a loaded checkpoint, whichever of its entries holds the weights; None for a plain base's."""
    parts = [checkpoint, *checkpoint.values()] if isinstance(checkpoint, Mapping) else []
    return next((config for config in map(config_of, parts) if config is not None), None)
