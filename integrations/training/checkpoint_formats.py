"""Recognition of checkpoints, whoever wrote them (which weights are the base's, which HERO's), and starts from them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hero_plugin import Adapter, HeroConfig, HeroModel, PluginError, config_of, known_adapters
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.checkpoints import CheckpointError, load_checkpoint_safely
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.plugin import PARTS, SAFETENSORS, Fingerprint, forms, plugin_from

Kind = Literal["plug-in", "run", "checkpoint", "weights"]
ENTRIES = ("model", "state_dict", "model_state_dict", "module", "net")
"""Keys under which training scripts save the weights: the DETRs', Lightning's, the tutorials', DeepSpeed's, others'."""
AROUND = ("module.", "_orig_mod.")
"""Prefixes of every name, where ``DataParallel`` or ``torch.compile`` wrapped a base that no adapter knows."""


@dataclass(frozen=True)
class Contents:
    """A checkpoint, taken apart."""

    path: Path
    kind: Kind
    """Of a plug-in; of a run of this package; of another training script; or weights alone."""
    outer: Any
    """Everything that was read."""
    entry: str | None
    """The key in ``outer`` that the weights are under; None where they are not under one."""
    base: Mapping[str, Tensor]
    """The base's weights, by its own names."""
    hero: Mapping[str, Tensor]
    """The plug-in's, under ``hero.``."""
    fingerprint: Fingerprint
    """Of the base: as recorded, else as its weights show."""
    config: HeroConfig | None
    """None where the file does not say."""
    config_from: str
    """Where the config was found."""
    version: str | None
    """Of the hero_plugin that wrote it, where that is known."""

    @property
    def described(self) -> str:
        """Return a description in words."""
        if self.kind == "plug-in":
            return "a plug-in's checkpoint"
        of = "a wrapped model" if self.hero and self.base else "a plug-in" if self.hero else "the plain base"
        if self.kind == "run":
            return f"{self.path.name} of a hero-plugin run, {of}"
        what = "weights alone (a state_dict)" if self.kind == "weights" else "a training script's checkpoint"
        return f"{what}, {of}"

    @property
    def other_entries(self) -> list[str]:
        """Return the names of what is in it beside the weights."""
        if not isinstance(self.outer, Mapping) or self.entry is None:
            return []
        return [str(name) for name in self.outer if name != self.entry]


def read_contents(path: Path) -> Contents:
    """Recognise a checkpoint.

    Raises:
        CheckpointError: It cannot be read safely, or holds no weights of a model.
    """
    outer = _load_safetensors(path) if path.suffix == SAFETENSORS else load_checkpoint_safely(path)
    if isinstance(outer, Mapping) and all(part in outer for part in PARTS):
        try:
            plugin = plugin_from(outer, str(path))
        except PluginError as error:
            raise CheckpointError(str(error)) from error
        known = (plugin.base, plugin.config, "the checkpoint", plugin.version)
        return Contents(path, "plug-in", outer, None, {}, plugin.hero, *known)
    states = [name for name, value in outer.items() if _is_state(value)] if isinstance(outer, Mapping) else []
    entry = next((name for name in ENTRIES if name in states), states[0] if len(states) == 1 else None)
    state = outer if entry is None else outer[entry]
    if not _is_state(state):
        held = ", ".join(map(str, outer)) if isinstance(outer, Mapping) else type(outer).__name__
        raise CheckpointError(
            f"{path}: no weights of a model found. Expected a state_dict, alone or as the one entry that is such, or "
            f"a plug-in's checkpoint; found {held or 'nothing'}"
        )
    base, hero = split(state, str(path))
    is_run = (
        entry == "model" and isinstance(outer.get("version"), int) and not {"metrics", "progress"}.isdisjoint(outer)
    )
    kind: Kind = "run" if is_run else "weights" if entry is None else "checkpoint"
    settings = _run_settings(path) if is_run else None
    record = outer.get("hero") if entry is not None else None
    config, source, version, recorded = _recorded(record, path)
    if config is None and (config := _noted(state, path)) is not None:
        source = "the checkpoint"
    if config is None and settings is not None and hero:
        config, source = settings[0].hero, "its run's config.json"
    if version is None and settings is not None:
        version = settings[1]
    fingerprint = recorded or of_weights(base, hero)
    return Contents(path, kind, outer, entry, base, hero, fingerprint, config, source, version)


def _load_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a file; with what a plug-in's file says of itself, where it is one."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise CheckpointError(f"{path}: needs safetensors: pip install safetensors") from error
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
            facts = {name: text for name, text in (file.metadata() or {}).items() if name in PARTS}
            return {"hero": tensors, **{name: json.loads(text) for name, text in facts.items()}} if facts else tensors
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a file of safetensors that can be read ({error})") from error


def split(state: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a model's weights into the base's, by its own names, and the plug-in's, under ``hero.``.

    The model may lie inside others, whose prefix every name of it has: ``module.``, Lightning's ``model.``. What lies
    beside it, a count of averages or a teacher, is left out.

    Raises:
        CheckpointError: several wrapped models lie in it.
    """
    bare = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    inside = {found[1] for name in bare if (found := _OF_HERO.match(name))}
    if len(inside) > 1:
        raise CheckpointError(
            f"{source}: holds several wrapped models, under {', '.join(map(repr, sorted(inside)))}: save one of them"
        )
    if not inside:
        bare = _below(bare, _prefix_of_base(bare))
        wrapped = bare and all(name.startswith("base.") for name in bare)  # with HERO off there is nothing under hero.
        return (_below(bare, "base.") if wrapped else bare), {}
    bare = _below(bare, inside.pop())
    hero = {name: value for name, value in bare.items() if name.startswith("hero.")}
    return _below(bare, "base."), hero


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _prefix_of_base(bare: Mapping[str, Tensor]) -> str:
    """Return the prefix under which a known base lies; else that of torch's wrappers, if all names have one."""
    prefixes = sorted({name[:end] for name in bare for end in _ends(name)}, key=lambda prefix: prefix.count("."))
    known = next((prefix for prefix in prefixes if adapter_by_weights(_below(bare, prefix))), None)
    if known is not None:
        return known
    shared = ""
    while prefix := next((each for each in AROUND if all(name.startswith(shared + each) for name in bare)), ""):
        shared += prefix
    return shared


def _ends(name: str) -> list[int]:
    """Return where the first prefixes of a name end: no model lies deeper in another than that."""
    ends = [0]
    while len(ends) < 4 and (dot := name.find(".", ends[-1])) > 0:
        ends.append(dot + 1)
    return ends


_OF_HERO = re.compile(r"((?:\w+\.)*?)hero\.(?:hem|sgvf|cmtr|aggregation|relevance|ranked)\.")


def of_weights(base: Mapping[str, Tensor], hero: Mapping[str, Tensor]) -> Fingerprint:
    """Return a base's fingerprint, as far as its weights and the plug-in's show it."""
    adapter = adapter_by_weights(base)
    dim = next((value.shape[-1] for name, value in hero.items() if name in _AS_WIDE), None)
    if dim is None and adapter is not None and adapter.width_parameter in base:
        dim = base[adapter.width_parameter].shape[-1]
    return Fingerprint(adapter.class_names[0] if adapter else None, dim, forms(base))


_AS_WIDE = ("hero.cmtr.mask_token", "hero.sgvf.strength", "hero.sgvf.projections", "hero.hem.layers.0.value.weight")


def _recorded(record: Any, path: Path) -> tuple[HeroConfig | None, str, str | None, Fingerprint | None]:
    """Return what the entry ``"hero"`` of a wrapped model's checkpoint says, if there is one."""
    if not isinstance(record, Mapping) or "config" not in record:
        return None, "", None, None
    try:
        plugin = plugin_from({"hero": {}, "version": "unknown", "base": {}, **record}, str(path))
    except PluginError as error:
        raise CheckpointError(str(error)) from error
    return plugin.config, "the checkpoint", plugin.version, plugin.base


def _noted(state: Any, path: Path) -> HeroConfig | None:
    """Return the config that the weights of a wrapped model note themselves."""
    try:
        return config_of(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _run_settings(path: Path) -> tuple[TrainConfig, str | None] | None:
    """Return the settings of the run that a file lies in, and its hero_plugin's version; None where there is no run."""
    with suppress(UserError):
        run = RunFolder.open(path.parent)
        return run.settings(), run.config().get("versions", {}).get("hero_plugin")
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and any(isinstance(each, Tensor) for each in value.values())


def start_from(model: nn.Module, path: Path, own: Collection[str] = ()) -> str:
    """Give a base, plain or wrapped, the weights of a checkpoint; return a message for the user.

    Args:
        model: The base, or the model around it.
        path: The checkpoint.
        own: Parameters that keep their values because the data decides them, such as a vocabulary's.

    Raises:
        UserError: The checkpoint holds no base, or another one; the message says what differs.
    """
    contents = read_contents(path)
    if not contents.base:
        raise UserError(f"--init-base {path}: {contents.described}, without the weights of a base")
    base = model.base if isinstance(model, HeroModel) else model
    state = {name: value for name, value in base.state_dict().items() if name not in own}
    check_same_base(state, contents, own)
    with torch.no_grad():
        for name, value in state.items():
            value.copy_(contents.base[name])
    message = f"starts from the base in {path} ({contents.described})"
    if isinstance(model, HeroModel) and not model.config.starts_as_base:
        message += "\nnote: the predictions do not start as that base's: " + "; ".join(model.config.departures)
    return message


def adapter_by_weights(names: Iterable[str]) -> type[Adapter] | None:
    """Return the adapter whose prefixes are all in a state_dict's names: of several, that with the most; or None."""
    names = list(names)
    fitting = [
        adapter
        for adapter in known_adapters()
        if adapter.weight_prefixes
        and all(any(name.startswith(mark) for name in names) for mark in adapter.weight_prefixes)
    ]
    return max(fitting, key=lambda adapter: len(adapter.weight_prefixes), default=None)


def check_same_base(state: dict[str, torch.Tensor], contents: Contents, own: Collection[str]) -> None:
    """Raise ``UserError`` unless a checkpoint's base is of the class and sizes of this one."""
    adapter = adapter_by_weights([*state, *own])
    here = Fingerprint(adapter.class_names[0] if adapter else None, None, forms(state))
    tensors = {name: form for name, form in contents.fingerprint.tensors.items() if name not in own}
    there = Fingerprint(contents.fingerprint.class_name, None, tensors)
    lines = [*here.obstacles(there), *here.differences(there)]
    if lines:
        raise UserError(
            f"--init-base {contents.path}: not a checkpoint of this base:\n"
            + "\n".join(f"  {line}" for line in lines)
            + "\nGive features, word vectors and sizes as it was trained with, or another checkpoint"
        )
