"""Checkpoints, loaded without running anything in them: those of runs, and those of other code.

Upstream's scripts save their settings with the weights: a pickled ``argparse.Namespace``, in lighthouse an
``easydict.EasyDict``, in FlashVTG with an ``nncore.Config`` inside. Those are let through, as the plain data they are,
and nothing else is.
"""

from __future__ import annotations

import importlib.util
import re
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import atomic_write

VERSION = 1
"""Of the checkpoints of runs."""
ALLOWED = ("argparse.Namespace", "easydict.EasyDict", "nncore.utils.config.Config")
"""Classes that checkpoints of other code may hold."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, and what to do about it."""


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Write tensors, numbers, strings and containers of them, at once or not at all."""
    with atomic_write(path, "wb") as file:
        torch.save({"version": VERSION, **state}, file)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what ``save_checkpoint`` wrote. Only plain data is loaded (``weights_only=True``)."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; is this the folder of a run that has trained?")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable checkpoint ({error}); train the run again") from error
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {state.get('version')}, this hero-plugin reads version {VERSION}; "
            "use the version of hero-plugin that the run's config.json names"
        )
    return state


def supported() -> bool:
    """Return whether this torch (2.4 or later) can allow single classes."""
    return hasattr(torch.serialization, "add_safe_globals")


def load_checkpoint_safely(path: str | Path, device: torch.device | str = "cpu") -> Any:
    """Load what ``torch.save`` wrote: tensors, plain data, and the settings of upstream's scripts.

    Settings in an ``EasyDict`` come back as one where easydict is installed, else as a dict; nncore's as a dict.

    Raises:
        CheckpointError: The file is missing, or no checkpoint, or holds a class that is not allowed: then the message
            names it, and nothing of it was executed.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: a folder; name a file of weights in it, made one with your trainer's own tool")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    return load_safely(torch.load, path, map_location=device)


def load_safely(load: Callable[..., Any], file: Any, **options: Any) -> Any:
    """Call ``torch.load``, passed as ``load``, with its other options, as ``load_checkpoint_safely`` does."""
    with allowed() as found:
        try:
            content = load(file, **{**options, "weights_only": True})
        except FileNotFoundError:
            raise
        except Exception as error:
            raise CheckpointError(refusal(file, error)) from error
    return as_easydict(content, {id(each) for each in found}) if found else content


@contextmanager
def allowed() -> Iterator[list[Any]]:
    """Let torch read the classes in ``ALLOWED`` while the block runs; yield the list that the EasyDicts go to.

    An ``EasyDict`` or a ``Config`` is read as an ``OrderedDict``, which torch fills in without calling any code of the
    class.
    """
    found: list[Any] = []

    def new(cls: type) -> Any:
        found.append(OrderedDict())
        return found[-1]

    easydict = type("EasyDict", (), {"__module__": "easydict", "__new__": new})
    nncore = type("Config", (), {"__module__": "nncore.utils.config", "__new__": lambda cls: OrderedDict()})
    if not supported():
        yield found
        return
    # torch 2.4 has no context manager for this yet.
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([Namespace, easydict, nncore])
    try:
        yield found
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def refusal(path: Any, error: Exception) -> str:
    """Say why a file was not read, naming every class that is not allowed."""
    refused = refused_classes(path, error)
    if "TorchScript" in str(error):
        return (
            f"{path}: TorchScript, a program, which is not run; save the weights: torch.save(model.state_dict(), ...)"
        )
    if not refused:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        if isinstance(error, UnpicklingError | EOFError):  # torch would advise to load anything at all
            reason = "nothing that torch.save wrote: another kind of file, a web page, or a pointer of Git LFS?"
        return f"{path}: not a checkpoint that can be read ({reason}); copy or download it again"
    if set(refused) <= set(ALLOWED):  # torch before 2.4
        return (
            f"{path}: holds {', '.join(refused)}, which this torch ({torch.__version__}) cannot let through alone. "
            "Nothing in the file was executed. Upgrade to torch 2.4 or later: there it loads"
        )
    return (
        f"{path}: holds {', '.join(refused)}, and loading it could run any code. Nothing in it was executed. "
        f"Allowed are tensors, plain data, {' and '.join(ALLOWED)}. If you trust the file, save its weights alone "
        "where it was made: torch.save({'state_dict': model.state_dict()}, 'weights.pt')"
    )


def refused_classes(path: Any, error: Exception) -> list[str]:
    """List the classes and functions in the file that are not allowed; from the error where torch cannot list them."""
    list_them = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if list_them is not None:
        with suppress(Exception), allowed():
            refused = sorted(set(list_them(path)) - set(ALLOWED))
            if refused:
                return refused
    found = re.search(r"(?:GLOBAL|[Uu]nsupported class) ([\w.]+)", str(error))
    return [found.group(1)] if found else []


def as_easydict(value: Any, found: set[int]) -> Any:
    """Return ``value`` with what was read in place of an EasyDict as one, or as a dict without easydict."""
    if isinstance(value, dict) and type(value) in (dict, OrderedDict):
        items = {key: as_easydict(item, found) for key, item in value.items()}
        if id(value) in found:
            return easydict_class()(items)
        return items if type(value) is dict else value  # the weights: an OrderedDict with a version in its attributes
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(as_easydict(item, found) for item in value)
    return value


def easydict_class() -> Any:
    """Return ``easydict.EasyDict`` where it is installed, else ``dict``."""
    if importlib.util.find_spec("easydict") is None:
        return dict
    from easydict import EasyDict

    return EasyDict
