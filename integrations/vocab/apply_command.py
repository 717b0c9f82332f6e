"""Command ``hero-plugin vocab apply``: apply a reviewer's decisions to a built file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from hero_plugin.integrations.annotations import ReadReport, write_annotations
from hero_plugin.integrations.checksum import checksum
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.vocab.built_file import (
    check_overwrite,
    manifest_path,
    print_summary,
    read_built,
    summary,
    write_manifest,
)
from hero_plugin.integrations.vocab.checking import BuildChecks, CheckConfig, make_checks
from hero_plugin.integrations.vocab.decisions import Undecided, apply_decisions, load_decisions

__all__ = ["ApplyConfig", "apply", "apply_decision_file"]


@dataclass(frozen=True)
class ApplyConfig:
    """Apply a reviewer's decisions to a built file: accepted stay, rejected go, edited are checked anew."""

    input: Path
    """A file that `vocab build` made."""
    decisions: Path
    """What the review page exported."""
    output: Path
    """The file to write, with a manifest."""
    check: Annotated[CheckConfig, tyro.conf.arg(name="")]
    undecided: Undecided = "keep"
    """What becomes of rewordings without a decision."""
    overwrite: bool = False
    """Replace an existing output."""


def apply(config: ApplyConfig) -> None:
    """Run the command."""
    check_overwrite(config.output, config.input, config.overwrite)
    report = ReadReport()
    built = read_built(config.input, report)
    checks = make_checks(config.check)
    kept, decided = apply_decision_file(built, config.decisions, config.undecided, checks, ())
    write_annotations(kept, config.output, format=report.format)
    before = manifest_path(config.input)
    manifest = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else dict(checks.facts)
    manifest |= {"decisions": decided, **summary(kept)}
    write_manifest(config.output, report.format, manifest)
    print(f"{config.output}: {len(kept)} of {len(built)} rewordings")
    print_summary(manifest)


def apply_decision_file(
    built: Sequence[Record], file: Path, undecided: Undecided, checks: BuildChecks, originals: Sequence[Record]
) -> tuple[list[Record], dict[str, Any]]:
    """Apply a file of decisions to built records; return what stays, and the facts for the manifest."""
    decisions = load_decisions(file)
    kept, counts, complaints = apply_decisions(
        built, decisions, checks.filters, checks.unseen, checks.tagger, undecided, originals
    )
    for complaint in complaints:
        print(f"  edit turned down: {complaint}")
    if not kept:
        raise UserError(f"{file} leaves no rewording")
    return kept, {
        "file": file.name,
        "sha256": checksum(file),
        "undecided_are": undecided,
        **dict(sorted(counts.items())),
    }
