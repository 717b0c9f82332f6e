"""Reading checkpoints that hold their settings as a pickled object, without running what else a file may hold."""

from __future__ import annotations

import argparse
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from packaging.version import Version

from hero_plugin.integrations.errors import UserError

SUPPORTED = Version(torch.__version__) >= Version("2.6")
"""Whether this torch can let single classes through; older ones load settings by unpickling, or not at all."""

SETTINGS: list[Any] = [argparse.Namespace, (OrderedDict, "easydict.EasyDict")]
"""What the known repositories keep settings in. Weights-only loading fills no subclass of dict: EasyDict comes as its
base."""


def settings_allowed() -> AbstractContextManager[Any]:
    """Inside, ``torch.load(..., weights_only=True)`` takes settings as well; on older torch, nothing changes."""
    return torch.serialization.safe_globals(SETTINGS) if SUPPORTED else nullcontext()


def load_safely(load: Callable[..., Any], file: Any, **options: Any) -> Any:
    """``torch.load``, handed over as ``load``, of weights, plain data and settings; everything else is refused.

    Raises:
        UserError: the file holds another object, which is named and was not made; or it is no checkpoint.
    """
    with settings_allowed():
        try:
            return load(file, **{**options, "weights_only": True})
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            refused = re.search(r"GLOBAL ([\w.]+)", str(error))
            if refused is None:
                raise UserError(f"{file}: not a checkpoint that can be read ({error})") from error
            settings = refused.group(1) in ("argparse.Namespace", "easydict.EasyDict")
            remedy = "torch 2.6 or later reads those" if settings else "nothing of the file was loaded or run"
            raise UserError(
                f"{file}: beside weights and settings this checkpoint holds {refused.group(1)}; {remedy}"
            ) from error


def load_checkpoint_safely(path: Path) -> Any:
    """A checkpoint of ours or of a known repository's, on the CPU.

    Raises:
        UserError: no such file, not a checkpoint, or one that holds more than weights, plain data and settings.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    return load_safely(torch.load, path, map_location="cpu")
