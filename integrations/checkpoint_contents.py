"""Recognition of checkpoints, whoever wrote them: where the weights are, which are the base's and which HERO's."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from hero_plugin import HeroConfig, Plugin, PluginError, config_of, read_plugin
from hero_plugin.adapter import adapter_by_weights
from hero_plugin.fingerprint import Fingerprint, forms
from hero_plugin.integrations.bases import config_from
from hero_plugin.integrations.checkpoints import CheckpointError
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.run_folder import RunFolder
from hero_plugin.integrations.safe_load import load_checkpoint_safely
from hero_plugin.integrations.train_config import TrainConfig
from hero_plugin.plugin_file import PARTS, SAFETENSORS, plugin_from

Kind = Literal["plug-in", "run", "checkpoint", "weights"]
ENTRIES = ("model", "state_dict")
"""Keys under which training scripts save the weights: the DETRs', EMB's."""
AROUND = ("module.", "_orig_mod.")
"""Prefixes of every name, where ``DataParallel`` or ``torch.compile`` wrapped the model that was saved."""


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
    def others(self) -> list[str]:
        """Return the names of what is in it beside the weights."""
        if not isinstance(self.outer, Mapping) or self.entry is None:
            return []
        return [str(name) for name in self.outer if name != self.entry]


def read_contents(path: Path) -> Contents:
    """Recognise a checkpoint.

    Raises:
        CheckpointError: It cannot be read safely, or holds no weights of a model.
    """
    if path.suffix == SAFETENSORS:
        try:
            return _of_plugin(path, read_plugin(path), None)
        except PluginError as error:
            raise CheckpointError(str(error)) from error
    outer = load_checkpoint_safely(path)
    if isinstance(outer, Mapping) and all(part in outer for part in PARTS):
        try:
            return _of_plugin(path, plugin_from(outer, str(path)), outer)
        except PluginError as error:
            raise CheckpointError(str(error)) from error
    entry = next((name for name in ENTRIES if isinstance(outer, Mapping) and _is_state(outer.get(name))), None)
    state = outer if entry is None else outer[entry]
    if not _is_state(state):
        held = ", ".join(map(str, outer)) if isinstance(outer, Mapping) else type(outer).__name__
        raise CheckpointError(
            f"{path}: no weights of a model found. Expected a state_dict, alone or under {' or '.join(ENTRIES)}, "
            f"or a plug-in's checkpoint; found {held or 'nothing'}"
        )
    base, hero = split(state)
    is_run = (
        entry == "model" and isinstance(outer.get("version"), int) and not {"metrics", "progress"}.isdisjoint(outer)
    )
    kind: Kind = "run" if is_run else "weights" if entry is None else "checkpoint"
    settings = _run_settings(path) if is_run else None
    record = outer.get("hero") if entry is not None else None
    config, source, version, recorded = _recorded(record, path)
    if config is None:
        config, source = _noted(state, path), "the checkpoint"
    if config is None and settings is not None and hero:
        config, source = settings[0].hero, "its run's config.json"
    if version is None and settings is not None:
        version = settings[1]
    fingerprint = recorded or of_weights(base, hero)
    return Contents(path, kind, outer, entry, base, hero, fingerprint, config, source, version)


def split(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split a model's weights into the base's, by its own names, and the plug-in's, under ``hero.``."""
    bare = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    while prefix := next((each for each in AROUND if bare and all(name.startswith(each) for name in bare)), ""):
        bare = {name[len(prefix) :]: value for name, value in bare.items()}
    hero = {name: value for name, value in bare.items() if name.startswith("hero.")}
    if all(name.startswith(("hero.", "base.")) for name in bare):
        return {name[len("base.") :]: value for name, value in bare.items() if name not in hero}, hero
    return bare, {}


def of_weights(base: Mapping[str, Tensor], hero: Mapping[str, Tensor]) -> Fingerprint:
    """Return a base's fingerprint, as far as its weights and the plug-in's show it."""
    adapter = adapter_by_weights(base)
    dim = next((value.shape[-1] for name, value in hero.items() if name in _AS_WIDE), None)
    if dim is None and adapter is not None and adapter.width in base:
        dim = base[adapter.width].shape[-1]
    return Fingerprint(adapter.class_names[0] if adapter else None, dim, forms(base))


_AS_WIDE = ("hero.cmtr.mask_token", "hero.sgvf.strength", "hero.sgvf.projections", "hero.hem.layers.0.value.weight")


def _of_plugin(path: Path, plugin: Plugin, outer: Any) -> Contents:
    where = "the checkpoint"
    return Contents(path, "plug-in", outer, None, {}, plugin.hero, plugin.base, plugin.config, where, plugin.version)


def _recorded(record: Any, path: Path) -> tuple[HeroConfig | None, str, str | None, Fingerprint | None]:
    """What the entry ``"hero"`` of a wrapped model's checkpoint says, if there is one."""
    if not isinstance(record, Mapping) or "config" not in record:
        return None, "", None, None
    try:
        plugin = plugin_from({"hero": {}, "version": "unknown", "base": {}, **record}, str(path))
    except PluginError as error:
        raise CheckpointError(str(error)) from error
    return plugin.config, "the checkpoint", plugin.version, plugin.base


def _noted(state: Any, path: Path) -> HeroConfig | None:
    """What the weights of a wrapped model say themselves."""
    try:
        return config_of(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _run_settings(path: Path) -> tuple[TrainConfig, str | None] | None:
    """The settings of the run that a file lies in, and the version of hero_plugin; None where there are none."""
    with suppress(UserError):
        run = RunFolder.open(path.parent)
        settings = run.config()
        return config_from(settings, str(run.config_file)), settings.get("versions", {}).get("hero_plugin")
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and any(isinstance(each, Tensor) for each in value.values())
