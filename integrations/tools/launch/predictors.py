"""HERO in Lighthouse's own API: its predictors and its demo serve the launcher's checkpoints and plain ones alike."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor

from hero_plugin import config_of, wrap_model
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch import shims
from hero_plugin.integrations.tools.launch.run import Patch, around, patched
from hero_plugin.integrations.tools.launch.wrapping import Wrapping, as_flags


def predictor_patches(wrapping: Wrapping | None = None) -> tuple[Patch, Patch]:
    """Return what makes ``lighthouse.models`` wrap a model as the weights say that it loads, or leave it plain.

    The launcher's ``wrapping`` lets a predictor build its plain model, and remembers the wrapped one.
    """

    def initialize(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with nullcontext() if wrapping is None else wrapping.paused():
            return original(*args, **kwargs)

    def load(original: Callable[..., None], predictor: Any, weights: Mapping[str, Tensor]) -> None:
        config, name = config_of(weights), type(predictor).__name__
        if config is not None:
            if wrapping is not None and wrapping.origin == "the flags" and wrapping.config != config:
                flags = as_flags(wrapping.config)
                raise UserError(f"{flags} contradicts the checkpoint, whose HERO has {as_flags(config)}: leave it out")
            predictor._model = wrap_model(predictor._model, config=config)
            if wrapping is not None:
                wrapping.model = predictor._model
        said = "the plain base" if config is None else f"HERO, {as_flags(config)}"
        print(f"hero-plugin: {name} serves {said}", file=sys.stderr)
        original(predictor, weights)

    return (
        Patch("lighthouse.models", "BasePredictor._initialize_model", around(initialize), "builds the plain base"),
        Patch("lighthouse.models", "BasePredictor._load_weights", around(load), "a predictor serves HERO's weights"),
    )


@contextmanager
def serving_hero() -> Iterator[None]:
    """Let Lighthouse's predictors that are made inside the block load checkpoints of the launcher, and plain ones.

    They stay as they are after the block. Checkpoints are read safely: see the launcher's repair ``torch-load``. Where
    there is no GPU, TaskWeave answers inside the block only, by the repair ``cuda-on-cpu``.
    """
    repairs = [patch for shim in (shims.TORCH_LOAD, shims.CUDA_ON_CPU) if shim.needed() for patch in shim.patches]
    with patched([*predictor_patches(), *repairs]):
        yield
