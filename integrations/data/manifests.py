"""What made a folder of features: ``manifest.json`` beside them. A run keeps it, and refuses other features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from hero_plugin.integrations.support.errors import UserError

Manifest = Mapping[str, Any]
FILE = "manifest.json"
KIND = "features of hero-plugin data extract"
"""Under ``what``: other tools write files of this name, too."""
ENCODER_KEYS = ("weights", "width", "frames_per_second", "size", "fit", "mean", "std")
"""Of an encoder, what its features depend on. Its name may be the path of a copy: weights say more, if there are."""


def make_manifest(encoders: Sequence[Manifest], **rate: Any) -> dict[str, Any]:
    """Return a manifest: the encoders, side by side, and for clips ``clip_seconds`` and ``pooling``."""
    return {"what": KIND, "encoders": [dict(each) for each in encoders], **rate}


def read_manifest(path: Path) -> Manifest | None:
    """Return the manifest of a feature folder or of a word table in ``.npz``, None where there is none.

    Raises:
        UserError: It is there and cannot be read.
    """
    try:
        if path.is_dir() and (path / FILE).is_file():
            found = json.loads((path / FILE).read_text("utf-8"))
        elif path.suffix == ".npz" and path.is_file():
            with np.load(path, allow_pickle=False) as archive:
                found = json.loads(str(archive["manifest"])) if "manifest" in archive.files else None
        else:
            return None
    except (OSError, ValueError, BadZipFile) as error:
        raise UserError(f"the manifest of {path} cannot be read ({error}): extract these features again") from error
    return found if isinstance(found, dict) and found.get("what") == KIND else None


def difference(wanted: Manifest | None, found: Manifest | None) -> str:
    """Say how two manifests differ in what features depend on; "" where they do not, or one is not known."""
    if wanted is None or found is None or _essence(wanted) == _essence(found):
        return ""
    return f"{described(found)}, and not {described(wanted)}"


def described(manifest: Manifest) -> str:
    """Describe encoders and rate for people."""
    parts = []
    for each in manifest["encoders"]:
        facts = [f"weights {each['weights']}"] if each.get("weights") else []
        facts += [f"layers {', '.join(map(str, each['layers']))}"] if each.get("layers") else []
        if "clip_seconds" in manifest:
            facts += [
                f"{each['frames_per_second']:g} frames per second",
                f"{each['size'] or 'all'} pixels {each['fit']}",
            ]
        parts.append(f"{each['name']} ({', '.join(facts)})" if facts else each["name"])
    rate = f", a clip every {manifest['clip_seconds']:g} s" if "clip_seconds" in manifest else ""
    return " + ".join(parts) + rate


def _essence(manifest: Manifest) -> Any:
    clips = "clip_seconds" in manifest
    encoders = []
    for each in manifest["encoders"]:
        keys = ENCODER_KEYS if clips else ("weights", "layers")
        name = None if each.get("weights") else each["name"]
        encoders.append([name, *(each.get(key) for key in keys)])
    return json.loads(json.dumps([encoders, manifest.get("clip_seconds"), manifest.get("pooling")]))
