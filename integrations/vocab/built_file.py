"""File made by ``vocab build``, and its manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hero_plugin.integrations.annotations import ReadReport, read_annotations
from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_text
from hero_plugin.integrations.records import REWORDED, Record
from hero_plugin.integrations.vocab.rewording import is_reworded
from hero_plugin.integrations.words import tokenize

__all__ = ["check_overwrite", "manifest_path", "print_summary", "read_built", "summary", "write_manifest"]


def manifest_path(output: Path) -> Path:
    """Return the path of the manifest of an output."""
    return output.with_name(output.name + ".manifest.json")


def read_built(path: Path, report: ReadReport | None = None) -> list[Record]:
    """Read a file made by ``vocab build``.

    Raises:
        UserError: no query has a link to its original.
    """
    records = read_annotations(path, on_outside="keep", report=report)
    if not any(map(is_reworded, records)):
        raise UserError(f"{path} has no links to original queries: expected a file of `hero-plugin vocab build`")
    return records


def check_overwrite(output: Path, input: Path, overwrite: bool) -> None:
    """Raise ``UserError`` if the output exists and may not be replaced."""
    if output.exists() and (not overwrite or output.resolve() == input.resolve()):
        raise UserError(f"{output} exists already: add --overwrite, or name another file (never the input)")


def summary(built: Sequence[Record]) -> dict[str, Any]:
    """Return counts of the rewordings, for the manifest."""
    links = [record.extra[REWORDED] for record in built if REWORDED in record.extra]
    words = Counter(word for link in links for word in _brought(link))
    return {
        "rewordings": len(links),
        "reworded_queries": len({link["query"] for link in links}),
        "by_kind": dict(sorted(Counter(link["kind"] for link in links).items())),
        "by_part": dict(sorted(Counter(link.get("part") or "unknown" for link in links).items())),
        "by_changes": {str(n): c for n, c in sorted(Counter(len(link["changes"]) for link in links).items())},
        "by_unseen_words": {str(n): c for n, c in sorted(Counter(len(link["unseen"]) for link in links).items())},
        "new_words": len(words),
        "most_used": dict(words.most_common(20)),
    }


def _brought(link: dict[str, Any]) -> set[str]:
    """Return the unseen words that the changes brought; others stood in the original."""
    return set(link["unseen"]) & {word for change in link["changes"] for word in tokenize(change["new"])}


def write_manifest(output: Path, target: str, manifest: dict[str, Any]) -> None:
    """Write the manifest, with the output's checksum."""
    manifest["output"] = {"file": output.name, "format": target, "sha256": checksum(output)}
    write_text(manifest_path(output), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def print_summary(manifest: dict[str, Any]) -> None:
    """Print the counts of a manifest."""
    if "proposed" in manifest:
        down = ", ".join(f"{name} {count:,}" for name, count in manifest["turned_down"].items())
        print(f"  {manifest['proposed']:,} proposed, {manifest['passed']:,} passed; turned down: {down}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in manifest["by_kind"].items())
    parts = ", ".join(f"{count} {part}" for part, count in manifest["by_part"].items())
    words = ", ".join(f"{word} {count}" for word, count in list(manifest["most_used"].items())[:8])
    print(f"  {kinds}; {parts}; {manifest['new_words']} new words, most often {words}")
    if manifest.get("decisions"):
        numbers = {key: value for key, value in manifest["decisions"].items() if isinstance(value, int)}
        print("  decisions: " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in numbers.items()))
