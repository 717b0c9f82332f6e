"""A plug-in as a file: HERO's weights, the choices they were made with, and the base that they belong on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hero_plugin.config import HeroConfig, with_config_note
from hero_plugin.model import HeroModel
from hero_plugin.protocol import Grounder
from hero_plugin.wrap import checked_adapter, hero_model, wrap_model

SAFETENSORS = ".safetensors"
PARTS = ("hero", "config", "base", "version")


class PluginError(ValueError):
    """Error about a plug-in's checkpoint that cannot be used, or not here; the message says why and what to do."""


@dataclass(frozen=True)
class Plugin:
    """A plug-in's checkpoint: HERO's weights and config, and the base that they were trained on."""

    hero: Mapping[str, Tensor]
    """The weights, by their names in the wrapped model: ``hero.hem...``."""
    config: HeroConfig
    """The choices that the weights were trained with."""
    base: Fingerprint
    """The base that they were trained on."""
    version: str
    """Version of the hero_plugin that wrote the checkpoint."""

    def to_dict(self) -> dict[str, Any]:
        """Return tensors, strings, numbers and containers of them: loads with ``weights_only=True``."""
        return {"hero": dict(self.hero), **self.record()}

    def record(self) -> dict[str, Any]:
        """Return all but the weights: what a checkpoint of the whole model holds beside them as entry ``"hero"``."""
        return {"config": self.config.to_dict(), "base": self.base.to_dict(), "version": self.version}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            if path.suffix == SAFETENSORS:
                _safetensors(path).save_file(
                    {name: value.contiguous() for name, value in self.hero.items()},
                    unfinished,
                    {name: json.dumps(value) for name, value in self.record().items()},
                )
            else:
                torch.save(self.to_dict(), unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def plugin_of(model: nn.Module) -> Plugin:
    """Return the plug-in of a wrapped model, as it stands."""
    inner = hero_model(model)
    weights = {name: value.detach().cpu().clone() for name, value in inner.hero_state_dict().items()}
    return Plugin(weights, inner.config, Fingerprint.of(inner.base, inner.grounder), _version())


def save_plugin(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the plug-in of a wrapped model: its weights alone, with its config and its base's fingerprint.

    The file is small, and loads with ``torch.load(path, weights_only=True)`` as a dict of ``hero`` (weights under
    ``hero.``), ``config``, ``base`` and ``version``. A name that ends in ``.safetensors`` makes it one, with the rest
    as JSON in its metadata.

    Args:
        model: made by ``wrap_model``, also inside ``DistributedDataParallel`` or ``torch.compile``.
        path: of the file; its folder is made where absent.
    """
    plugin_of(model).save(path)


def load_plugin(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    adapter: Callable[[nn.Module], Grounder] | None = None,
    strict: bool = True,
) -> HeroModel:
    """Put a plug-in on a base.

    Args:
        model: a base, which gets HERO around it with the checkpoint's config; or a wrapped model, whose own config
            must say the same of everything that decides what HERO computes.
        path: what ``save_plugin`` wrote.
        adapter: as in ``wrap_model``, for a bare base.
        strict: False takes a base of another class with a warning, a fork under another name, say.

    Returns:
        The wrapped model: ``model`` itself if it was wrapped already, without what torch may have put around it. A
        base that differs in what the plug-in does not depend on (its vocabulary, the width of its input features) is a
        warning that says what.

    Raises:
        PluginError: the file is not a plug-in's checkpoint, or was written for another base or another config; the
            message says what differs and what to do.
        TypeError: as ``wrap_model``.
    """
    plugin = read_plugin(path)
    wrapped = None
    with suppress(TypeError):
        wrapped = hero_model(model)
    if wrapped is None:
        here = Fingerprint.of(model, checked_adapter(model, adapter)(model))
        check_base(here, plugin.base, str(path), strict=strict)
        wrapped = wrap_model(model, config=plugin.config, adapter=adapter)
    else:
        check_base(Fingerprint.of(wrapped.base, wrapped.grounder), plugin.base, str(path), strict=strict)
        _check_config(wrapped, plugin.config, path)
    wrapped.load_state_dict(with_config_note(plugin.hero, plugin.config))
    return wrapped


def read_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Read a plug-in's checkpoint; nothing is unpickled but plain data and tensors.

    Example:
        >>> config = read_plugin("plugin.pt").config
        >>> model = wrap_model(model, config=config, freeze_base=True)
    """
    path = Path(path)
    if not path.is_file():
        raise PluginError(f"{path}: no such file; save_plugin(model, path) writes one")
    try:
        if path.suffix == SAFETENSORS:
            with _safetensors(path).safe_open(path, "pt") as file:
                plain = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
                plain["hero"] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        else:
            plain = torch.load(path, map_location="cpu", weights_only=True)
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(
            f"{path}: not a plug-in's checkpoint that can be read safely ({error}). "
            "If it is a checkpoint of a whole model, take the plug-in out with `hero-plugin weights extract`"
        ) from error
    return plugin_from(plain, str(path))


def plugin_from(plain: Any, source: str) -> Plugin:
    """Make a plug-in of a checkpoint's content, which messages call ``source``.

    Raises:
        PluginError: ``plain`` is something else.
    """
    missing = [name for name in PARTS if not isinstance(plain, Mapping) or name not in plain]
    if missing:
        raise PluginError(
            f"{source}: a plug-in's checkpoint has {', '.join(PARTS)}; here {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing. `hero-plugin weights show` says what a file is, and "
            "`hero-plugin weights extract` takes the plug-in out of a checkpoint of a whole model"
        )
    try:
        config = HeroConfig.from_dict(plain["config"])
        base = Fingerprint.from_dict(plain["base"])
    except (ValueError, TypeError) as error:
        versions = f"written by hero-plugin {plain['version']}, this is {_version()}"
        raise PluginError(f"{source}: {versions}: {error}") from error
    return Plugin(plain["hero"], config, base, str(plain["version"]))


def check_base(here: Fingerprint, there: Fingerprint, source: str, *, strict: bool = True) -> None:
    """Check that a plug-in of ``there`` has a place on ``here``; warn of what else differs.

    Raises:
        PluginError: it has none.
    """
    obstacles, differences = here.obstacles(there), here.differences(there)
    impossible = None not in (here.dim, there.dim) and here.dim != there.dim
    details = "\n".join(f"  {line}" for line in [*obstacles, *differences])
    if impossible or (obstacles and strict):
        advice = "" if impossible else "; or, if this is the same base under another name, pass strict=False"
        raise PluginError(
            f"{source}: this plug-in was trained on another base:\n{details}\n"
            f"Put it on a copy of the base that it was trained on{advice}"
        )
    if details:
        warnings.warn(
            f"{source}: the base is not quite the one that this plug-in was trained on:\n{details}\n"
            "The plug-in fits, and is loaded.",
            stacklevel=3,
        )


Form = tuple[tuple[int, ...], str]
"""Shape and dtype of a tensor: ((256, 512), "float32")."""

_SHOWN = 3


@dataclass(frozen=True)
class Fingerprint:
    """A base's class, the hidden size that HERO works at, and name, shape and dtype of all that its state_dict holds.

    Fine-tuning a base leaves it as it is. Made by ``of``, or from a checkpoint by ``from_dict``.
    """

    class_name: str | None
    """None where only weights are known, and their names do not tell."""
    dim: int | None
    """D; None where it is not known."""
    tensors: Mapping[str, Form]

    @classmethod
    def of(cls, base: nn.Module, grounder: Grounder) -> Fingerprint:
        """Return the fingerprint of a base, under the class name that its adapter knows it by."""
        known = () if grounder is base else getattr(grounder, "class_names", ())
        ancestors = [ancestor.__name__ for ancestor in type(base).__mro__]
        name = next((name for name in ancestors if name in known), ancestors[0])
        return cls(name, grounder.dim, forms(base.state_dict()))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint of what ``to_dict`` returned.

        Raises:
            ValueError: ``plain`` is something else.
        """
        try:
            tensors = {
                str(name): (tuple(map(int, shape)), str(dtype)) for name, (shape, dtype) in plain["tensors"].items()
            }
            return cls(plain["class"], plain["dim"], tensors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not the fingerprint of a base: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return strings, numbers, lists and dicts."""
        tensors = {name: [list(shape), dtype] for name, (shape, dtype) in self.tensors.items()}
        return {"class": self.class_name, "dim": self.dim, "digest": self.digest, "tensors": tensors}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits, equal for equal fingerprints."""
        content = json.dumps([self.class_name, self.dim, sorted(self.tensors.items())])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    def obstacles(self, other: Fingerprint) -> list[str]:
        """Return why a plug-in of the base ``other`` has no place on this one, one line per reason.

        Its weights are shaped by the hidden size, and trained for a class of base; of nothing else do they depend.
        """
        lines = []
        if None not in (self.class_name, other.class_name) and self.class_name != other.class_name:
            lines.append(f"the base is {self.class_name} here, {other.class_name} in the checkpoint")
        if None not in (self.dim, other.dim) and self.dim != other.dim:
            lines.append(f"its hidden size is {self.dim} here, {other.dim} in the checkpoint")
        common = sum(name in self.tensors for name in other.tensors)
        if None in (self.class_name, other.class_name) and common < len(other.tensors) / 2:
            lines.append(f"only {common} of the {len(other.tensors)} names of the base's weights are here")
        return lines

    def differences(self, other: Fingerprint) -> list[str]:
        """Return what else differs from ``other``, in a few lines: another vocabulary, other features, more layers."""
        both = [name for name in self.tensors if name in other.tensors]
        shapes, types = ([n for n in both if self.tensors[n][i] != other.tensors[n][i]] for i in (0, 1))
        lines = [f"{n} is {self.tensors[n][0]} here, {other.tensors[n][0]} in the checkpoint" for n in shapes[:_SHOWN]]
        if len(shapes) > _SHOWN:
            lines.append(f"{len(shapes) - _SHOWN} more have other shapes")
        if types:
            here, there = (fingerprint.tensors[types[0]][1] for fingerprint in (self, other))
            lines.append(f"{len(types)} are of another type: {types[0]} is {here} here, {there} in the checkpoint")
        for where, more, less in (("here", self, other), ("in the checkpoint", other, self)):
            only = [name for name in more.tensors if name not in less.tensors]
            if only:
                more_of_them = ", ..." if len(only) > _SHOWN else ""
                lines.append(f"{len(only)} only {where}: {', '.join(only[:_SHOWN])}{more_of_them}")
        return lines


def forms(state: Mapping[str, Any]) -> dict[str, Form]:
    """Return shape and dtype of every tensor of a state_dict."""
    return {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _check_config(model: HeroModel, config: HeroConfig, path: str | os.PathLike[str]) -> None:
    lines = [
        f"  {name} is {here!r} here, {there!r} in the checkpoint"
        for name, (here, there) in model.config.differences(config, model.grounder).items()
    ]
    if lines:
        raise PluginError(
            f"{path}: this plug-in was made with another config:\n" + "\n".join(lines) + "\nGive load_plugin the base "
            "alone, load_plugin(unwrap_model(model), path), and it is wrapped with the checkpoint's config"
        )


def _safetensors(path: Path) -> Any:
    if importlib.util.find_spec("safetensors") is None:
        raise PluginError(f'{path}: needs safetensors: pip install safetensors; or give the file a name in ".pt"')
    import safetensors.torch

    return safetensors.torch


def _version() -> str:
    try:
        return metadata.version("hero-plugin")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "unknown"
