"""A plug-in as a file or a folder: HERO's weights, the choices they were made with, the base that they belong on."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hero_plugin.config import HeroConfig
from hero_plugin.protocol import Grounder

SAFETENSORS = ".safetensors"
PARTS = ("hero", "config", "base", "version")


class PluginError(ValueError):
    """A plug-in's checkpoint cannot be used, or not on this base; the message says why and what to do."""


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
        _write(Path(path), self.hero, self)


def _write(path: Path, tensors: Mapping[str, Tensor], plugin: Plugin | None = None) -> None:
    """Write tensors, those of a plug-in with its record, whole or not at all; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.suffix == SAFETENSORS:
            record = None if plugin is None else {name: json.dumps(value) for name, value in plugin.record().items()}
            whole = {name: value.contiguous() for name, value in tensors.items()}
            unfinished.write_bytes(safetensors_for(path).save(whole, record))  # save_file's nobody else may read
        else:
            torch.save(tensors if plugin is None else plugin.to_dict(), unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


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
            with safetensors_for(path).safe_open(path, "pt") as file:
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
    """Make a plug-in of a checkpoint's content, which the ``PluginError`` on anything else calls ``source``."""
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
        versions = f"written by hero-plugin {plain['version']}, this is {version()}"
        raise PluginError(f"{source}: {versions}: {error}") from error
    if broken := [name for name, value in plain["hero"].items() if not torch.isfinite(value).all()]:
        raise PluginError(f"{source}: {', '.join(broken[:_SHOWN])}: not finite; a training that diverged wrote this")
    return Plugin(plain["hero"], config, base, str(plain["version"]))


Form = tuple[tuple[int, ...], str]
"""Shape and dtype of a tensor: ((256, 512), "float32")."""

_SHOWN = 3


@dataclass(frozen=True)
class Fingerprint:
    """A base's class, the hidden size that HERO works at, and name, shape and dtype of all that its state_dict holds.

    Fine-tuning a base leaves it as it is, but for ``values``. Made by ``of``, or from a checkpoint by ``from_dict``.
    """

    class_name: str | None
    """None where only weights are known, and their names do not tell."""
    dim: int | None
    """D; None where it is not known."""
    tensors: Mapping[str, Form]
    values: Mapping[str, Sequence[float]] = field(default_factory=dict, compare=False, repr=False)
    """A few numbers of each floating tensor, to tell weights from others; empty in what an earlier version wrote."""

    @classmethod
    def of(cls, base: nn.Module, grounder: Grounder) -> Fingerprint:
        """Return the fingerprint of a base, under the class name that its adapter knows it by."""
        known = () if grounder is base else getattr(grounder, "class_names", ())
        ancestors = [ancestor.__name__ for ancestor in type(base).__mro__]
        name = next((name for name in ancestors if name in known), ancestors[0])
        state = base.state_dict()
        return cls(name, grounder.dim, forms(state), values_of(state))

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Fingerprint:
        """Make a fingerprint of what ``to_dict`` returned; ``ValueError`` on anything else."""
        try:
            tensors = {
                str(name): (tuple(map(int, shape)), str(dtype)) for name, (shape, dtype) in plain["tensors"].items()
            }
            values = {str(name): tuple(map(float, numbers)) for name, numbers in plain.get("values", {}).items()}
            return cls(plain["class"], plain["dim"], tensors, values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not the fingerprint of a base: {error!r}") from error

    def to_dict(self) -> dict[str, Any]:
        """Return strings, numbers, lists and dicts."""
        tensors = {name: [list(shape), dtype] for name, (shape, dtype) in self.tensors.items()}
        values = {name: list(numbers) for name, numbers in self.values.items()}
        return {
            "class": self.class_name, "dim": self.dim, "digest": self.digest, "tensors": tensors, "values": values
        }  # fmt: skip

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

    def other_values(self, other: Fingerprint) -> tuple[int, int]:
        """Return how many tensors have other values than in ``other``, by more than half precision explains, of all."""
        common = [name for name in self.values if len(other.values.get(name, ())) == len(self.values[name])]
        alike = [  # and not how many are apart: of NaN, no comparison holds
            all(
                abs(one - two) <= 0.02 * max(map(abs, other.values[name])) + 1e-6
                for one, two in zip(self.values[name], other.values[name], strict=True)
            )
            for name in common
        ]
        return len(common) - sum(alike), len(common)


def values_of(state: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Return four numbers of every floating tensor that is here whole, evenly spread over it."""
    here = {
        name: value.detach().flatten()
        for name, value in state.items()
        if type(value) in (Tensor, nn.Parameter) and value.is_floating_point() and value.numel() and not value.is_meta
    }
    if not here:
        return {}
    spread = [value[[place * (len(value) - 1) // 3 for place in range(4)]].float() for value in here.values()]
    device = spread[0].device
    numbers = torch.stack([each.to(device) for each in spread]).tolist()  # read once, of however many tensors
    return dict(zip(here, map(tuple, numbers), strict=True))


def forms(state: Mapping[str, Any]) -> dict[str, Form]:
    """Return shape and dtype of every tensor of a state_dict."""
    return {
        name: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for name, value in state.items()
        if isinstance(value, Tensor) and not is_lazy(value)
    }


def safetensors_for(path: Path) -> Any:
    """Return ``safetensors.torch``, to read or write ``path``; ``PluginError`` where it is not installed."""
    if importlib.util.find_spec("safetensors") is None:
        raise PluginError(f'{path}: needs safetensors: pip install safetensors; or give the file a name in ".pt"')
    import safetensors.torch

    return safetensors.torch


def version() -> str:
    """Return the version of the installed hero-plugin."""
    try:
        return metadata.version("hero-plugin")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "unknown"


CARD = "README.md"
SUFFIXES = (SAFETENSORS, ".pt")


def write_folder(
    folder: str | os.PathLike[str],
    plugin: Plugin,
    base: Mapping[str, Tensor] | None,
    card: Mapping[str, str] | None,
    overwrite: bool,
    adapter: str = "",
) -> None:
    """Write ``plugin``, the base's weights where there are some, and the model card; see ``save_pretrained``."""
    folder = Path(folder)
    earlier = [path for name in ("plugin", "base") for path in files_of(folder, name)]
    there = [path for path in (*earlier, folder / CARD) if path.exists()]
    if there and not overwrite:
        raise PluginError(f"{folder} holds {', '.join(path.name for path in there)} already: pass overwrite=True")
    suffix = SAFETENSORS if importlib.util.find_spec("safetensors") else ".pt"
    plugin.save(folder / f"plugin{suffix}")
    written = {folder / f"plugin{suffix}"}
    if base is not None:
        _write(folder / f"base{suffix}", {name: value.detach().cpu().clone() for name, value in base.items()})
        written.add(folder / f"base{suffix}")
    for path in set(earlier) - written:  # of an earlier call, whose plug-in this one replaces
        path.unlink()
    (folder / CARD).write_text(model_card(plugin, base is not None, card or {}, adapter), encoding="utf-8")


def files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of this name, in either format."""
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def find_folder(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return a folder of ``save_pretrained``'s: this one, or that of an id on the Hugging Face hub, downloaded."""
    if Path(source).is_dir():
        if not files_of(Path(source), "plugin"):
            raise PluginError(f"{source}: no plugin.safetensors or plugin.pt in it; save_pretrained writes one")
        return Path(source)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", str(source)):
        raise PluginError(f"{source}: no such folder; model.save_pretrained(folder) writes one")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise PluginError(
            f"{source}: no such folder here. If it is an id on the Hugging Face hub: pip install 'hero-plugin[hub]'"
        )
    from huggingface_hub import snapshot_download

    wanted = [f"{name}{suffix}" for name in ("plugin", "base") for suffix in SUFFIXES]
    try:
        found = Path(snapshot_download(str(source), revision=revision, allow_patterns=[*wanted, CARD]))
    except (OSError, ValueError) as error:  # all errors of the hub are one of these
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PluginError(f"{source}: no such folder here, and the hub does not give it: {reason}") from error
    if not files_of(found, "plugin"):
        raise PluginError(f"{source}: on the hub, but without plugin.safetensors or plugin.pt")
    return found


def base_weights(folder: Path) -> dict[str, Tensor] | None:
    """Return the base's weights in the folder; None where there are none."""
    for path in files_of(folder, "base"):
        if path.suffix == SAFETENSORS:
            return safetensors_for(path).load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    return None


def model_card(plugin: Plugin, with_base: bool, sections: Mapping[str, str], adapter: str = "") -> str:
    """Return the card: what the plug-in is of, how to load it, HERO's config, versions, and these sections.

    ``adapter`` is the name of the adapter that loading takes, where the base is none that is known.
    """
    base = plugin.base.class_name or "the base"
    defaults = HeroConfig().to_dict()
    config = {name: value for name, value in plugin.config.to_dict().items() if value != defaults[name]}
    weights = (
        "Its weights are in this folder and are loaded, too."
        if with_base
        else "Its weights are not in this folder: give it those that the plug-in was trained with."
    )
    given = f", adapter={adapter}" if adapter else ""
    lines = [
        "---",
        "library_name: hero-plugin",
        "tags:",
        "- hero",
        "- temporal-sentence-grounding",
        "- video-moment-retrieval",
        "---",
        "",
        f"# HERO on {base}",
        "",
        "A plug-in of [HERO](https://arxiv.org/abs/2603.06732), which grounds sentences in videos.",
        "",
        "## Load it",
        "",
        "```python",
        "from hero_plugin import from_pretrained",
        "",
        f'model = from_pretrained(base, "THIS_FOLDER_OR_ITS_ID"{given})',
        "```",
        "",
        f"`base` is {base}, of hidden size {plugin.base.dim}, fingerprint `{plugin.base.digest}`. {weights}",
        "",
        "## HERO",
        "",
        f"{sum(value.numel() for value in plugin.hero.values()):,} parameters; levels: {plugin.config.levels}; "
        + (f"other than the defaults: `{json.dumps(config)}`." if config else "all choices are the defaults."),
    ]
    for heading, text in sections.items():
        lines += ["", f"## {heading}", "", text.strip()]
    lines += ["", "## Versions", "", f"hero-plugin {plugin.version}, torch {torch.__version__}", ""]
    return "\n".join(lines)
