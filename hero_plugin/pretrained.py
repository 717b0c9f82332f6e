"""A folder with a plug-in and its model card, here or on the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hero_plugin.config import HeroConfig
from hero_plugin.plugin import SAFETENSORS, Plugin, PluginError, safetensors_for, write_whole

CARD = "README.md"
SUFFIXES = (SAFETENSORS, ".pt")


def write_folder(
    folder: str | os.PathLike[str],
    plugin: Plugin,
    base: Mapping[str, Tensor] | None,
    card: Mapping[str, str] | None,
    overwrite: bool,
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
        path = folder / f"base{suffix}"
        weights = {name: value.detach().cpu().clone().contiguous() for name, value in base.items()}
        with write_whole(path) as unfinished:
            if suffix == SAFETENSORS:
                safetensors_for(path).save_file(weights, unfinished)
            else:
                torch.save(weights, unfinished)
        written.add(path)
    for path in set(earlier) - written:  # of an earlier call, whose plug-in this one replaces
        path.unlink()
    (folder / CARD).write_text(model_card(plugin, base is not None, card or {}), encoding="utf-8")


def files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of this name, in either format."""
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]


def find_folder(source: str | os.PathLike[str], revision: str | None = None) -> Path:
    """Return a folder of ``save_pretrained``'s: this one, or that of an id on the Hugging Face hub, downloaded.

    Raises:
        PluginError: there is no such folder, and the hub does not give one.
    """
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
    except (OSError, ValueError) as error:  # of the hub's, all are
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


def model_card(plugin: Plugin, with_base: bool, sections: Mapping[str, str]) -> str:
    """Return the card: what the plug-in is of, how to load it, HERO's config, versions, and these sections."""
    base = plugin.base.class_name or "the base"
    defaults = HeroConfig().to_dict()
    config = {name: value for name, value in plugin.config.to_dict().items() if value != defaults[name]}
    weights = (
        "Its weights are in this folder and are loaded, too."
        if with_base
        else "Its weights are not in this folder: give it those that the plug-in was trained with."
    )
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
        'model = from_pretrained(base, "THIS_FOLDER_OR_ITS_ID")',
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
