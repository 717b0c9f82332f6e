"""The repositories that the launcher knows: how they are told apart, where they build, what of them is old."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch import shims
from hero_plugin.integrations.tools.launch.predictors import predictor_patches
from hero_plugin.integrations.tools.launch.run import Patch, around
from hero_plugin.integrations.tools.launch.wrapping import Wrapping

Words = Sequence[str]


def path_after(*flags: str) -> Callable[[Words], Path | None]:
    """Return a function that reads the path after one of the flags."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="path", type=Path)
    return lambda words: parser.parse_known_args(list(words))[0].path


RESUMED = path_after("--resume")


@dataclass(frozen=True)
class Repository:
    """What the launcher knows of a repository."""

    name: str
    builders: tuple[str, ...]
    """MODULE:NAME of what builds its models."""
    repairs: tuple[shims.Shim, ...]
    """The shims that its code needs on some machine."""
    signs: tuple[str, ...] = ()
    """Files that it has, and none of the others has all of."""
    scripts: tuple[str, ...] = ()
    """Its entry points."""
    checkpoint: Callable[[Words], Path | None] = RESUMED
    """Its arguments -> the checkpoint that they say to load, if any."""
    extras: Callable[[Wrapping], tuple[Patch, ...]] = lambda wrapping: ()
    """Patches beyond the builders, which HERO needs there."""

    def patches(self, wrapping: Wrapping | None) -> list[Patch]:
        """Return what puts HERO in: nothing without a wrapping."""
        if wrapping is None:
            return []
        why = "what it builds gets HERO around it, model and criterion"
        places = (builder.split(":") for builder in self.builders)
        built = [Patch(module, name, around(wrapping.build), why) for module, name in places]
        noted = Patch("torch", "save", around(wrapping.save), "writes hero.json, which HERO it is, beside checkpoints")
        return [*built, noted, *self.extras(wrapping)]


def emb_checkpoint(words: Words) -> Path | None:
    """Return the best model of the folder that three flags name, which EMB's tests load."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag, default in (("mode", "train"), ("model_dir", "sessions"), ("task", "charades"), ("model_name", "")):
        parser.add_argument(f"--{flag}", default=default)
    given = parser.parse_known_args(list(words))[0]
    if given.mode.lower() != "test":
        return None
    return Path(given.model_dir, given.task, given.model_name, "model_best.pth.tar")


def emb_extras(wrapping: Wrapping) -> tuple[Patch, ...]:
    """Log HERO's losses, which are inside EMB's ``Loc``, apart, too."""

    def update(original: Callable[..., Any], *args: Any, **losses: Any) -> Any:
        ours = {} if wrapping.model is None else wrapping.model.hero_losses()
        return original(*args, **losses, **ours)

    why = "logs loss_relevance and loss_consistency, not weighted, beside EMB's losses"
    return (Patch("util.runner_utils", "ProgressMeters.update", around(update), why),)


def lighthouse_extras(wrapping: Wrapping) -> tuple[Patch, ...]:
    """Add HERO's losses to TaskWeave's sum, which takes losses by their names' parts; serve HERO's weights."""

    def calculate(
        original: Callable[..., Any], losses: Mapping[str, Any], weights: Mapping[str, float], *rest: Any
    ) -> Any:
        ours = [name for name in ("loss_relevance", "loss_consistency") if name in losses]
        return original(losses, weights, *rest) + sum(losses[name] * weights[name] for name in ours)

    summed = Patch("__main__", "calculate_taskweave_losses", around(calculate), "adds HERO's weighted losses")
    return (summed, *predictor_patches(wrapping))


def detr(name: str, package: str, *repairs: shims.Shim, builder: str = "build_model") -> Repository:
    """Describe Moment-DETR's repository, or one of its heirs', which differ in the name of a package."""
    return Repository(
        name=name,
        signs=(f"{package}/train.py", f"{package}/inference.py", f"{package}/model.py"),
        builders=(f"{package}.model:{builder}",),
        scripts=(f"{package}/train.py", f"{package}/inference.py"),
        repairs=(shims.TORCH_LOAD, shims.configured_device(f"{package}.config"), *repairs, shims.FORK),
    )


# Lighthouse's training script and its evaluation import the same file under these two names.
CONFIGURED_DEVICE = shims.configured_device("config", "training.config")
LIGHTHOUSE_MODELS = ("moment_detr", "qd_detr", "tr_detr", "eatr", "cg_detr", "uvcom", "taskweave")

REPOSITORIES = (
    Repository(
        name="EMB",
        signs=("main.py", "model/emb.py", "model/proposal.py"),
        builders=("__main__:EMB",),  # where it is defined, its own super(EMB, self) has to find the class
        scripts=("main.py",),
        checkpoint=emb_checkpoint,
        repairs=(shims.TRANSFORMERS_ADAMW, shims.FLOAT_LENGTHS, shims.PUNKT, shims.TORCH_LOAD, shims.FORK),
        extras=emb_extras,
    ),
    detr("Moment-DETR", "moment_detr"),
    detr("QD-DETR", "qd_detr", shims.CUDA_ON_CPU),
    detr("TR-DETR", "tr_detr", shims.CUDA_ON_CPU, shims.FOCAL_LOSS),
    detr("FlashVTG", "FlashVTG", shims.TORCHTEXT, builder="build_model1"),
    Repository(
        name="Lighthouse",
        signs=("training/train.py", "training/evaluate.py", "lighthouse/common/moment_detr.py"),
        builders=tuple(f"lighthouse.common.{model}:build_model" for model in LIGHTHOUSE_MODELS),
        scripts=("training/train.py", "training/evaluate.py", "gradio_demo/demo.py"),
        checkpoint=path_after("--model_path", "--resume", "-r"),
        repairs=(shims.TORCH_LOAD, CONFIGURED_DEVICE, shims.CUDA_ON_CPU, shims.FOCAL_LOSS, shims.FORK),
        extras=lighthouse_extras,
    ),
)


def recognise(folder: Path) -> Repository:
    """Return what is known of the repository at ``folder``.

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
    """Describe a repository that only its user knows.

    Raises:
        UserError: ``builder`` is not MODULE:FUNCTION.
    """
    module, colon, name = builder.partition(":")
    if not (module and colon and name):
        raise UserError(f"--build takes MODULE:FUNCTION, as in moment_detr.model:build_model, got {builder!r}")
    return Repository(folder.name, (builder,), (shims.TORCH_LOAD, shims.CUDA_ON_CPU, shims.FORK))
