"""Flags of ``hero-plugin adapt``."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hero_plugin.integrations.support.settings import FileConfig, filled, parse_named_paths, too_small
from hero_plugin.integrations.training.config import RunInputs, has_duplicates
from hero_plugin.integrations.training.run_folder import RunFolder

HOW_TO_START = ("output", "resume", "overwrite", "device", "threads", "checkpoint_steps", "checkpoint_seconds")
"""Flags that are not settings of the adaptation itself."""
RESERVED = ("train", "val", "rehearsal")
"""Names that sets of queries have already."""


@dataclass(kw_only=True)
class AdaptConfig(RunInputs, FileConfig):
    """Adapt a finished HERO run to new words with a few labelled queries: the plug-in alone learns."""

    sets = ("annotations", "annotations_test", "annotations_old")
    required = ("run", "annotations", "output")

    run: Path | None = None  # type: ignore[assignment]
    """Folder of the run to start from: its best checkpoint, its settings, its words."""
    annotations: tuple[str, ...] = ()
    """Queries with new words, as PATH or NAME=PATH; several are learned one after the other."""
    output: Path | None = None
    """The adapted run's folder, for eval, weights, and adapt again."""
    shots: int = 32
    """Queries of each to learn from, drawn by seed; 0: all."""
    annotations_test: tuple[str, ...] = ()
    """What the gain on new words is measured on, as NAME=PATH with the names of --annotations; those without: the
    queries that were not drawn."""
    annotations_old: tuple[str, ...] = ()
    """What the loss on old words is measured on, as PATH or NAME=PATH; none: the run's own test sets."""

    steps: int = 100
    """Batches per vocabulary."""
    batch_size: int = 16
    """Queries per step, rehearsed ones included."""
    lr: float | None = None
    """Learning rate at the start, the run's own unless given; it falls straight to 0."""
    seed: int = 0
    """Decides which queries are drawn, and their order, dropout and word masks."""

    distillation: float = 10.0
    """Learning without forgetting: weight of the divergence from what the model said before; 0: none."""
    rehearsal: float = 0.5
    """Experience replay: this share of the queries seen are old: the run's own, and those of earlier vocabularies."""
    interpolation: float = 1.0
    """WiSE-FT: how far from the weights at the start (0) to the learned ones (1) the result lies."""

    threads: int = 0
    """CPU threads; 0: as many as the run had. Bits depend on it."""
    checkpoint_steps: int = 0
    """Also save after this many steps; 0: do not."""
    checkpoint_seconds: float = 60.0
    """Also save after this many seconds; 0: do not."""
    resume: bool = False
    """Continue the adaptation in --output, with its settings."""
    overwrite: bool = False
    """Delete the run in --output and start again."""

    def mistakes(self) -> list[str]:
        """Return what is missing or impossible, one line each."""
        wrong = [*self.missing(), *too_small(self, shots=0, steps=1, batch_size=1, seed=0)]
        if self.lr is not None and not self.lr > 0:
            wrong.append(f"--lr must be positive, got {self.lr}")
        if not 0 <= self.rehearsal < 1:
            wrong.append(
                f"--rehearsal must be a share in [0, 1), as some of the queries must be new; got {self.rehearsal}"
            )
        if not self.distillation >= 0:
            wrong.append(f"--distillation must be a weight of at least 0, got {self.distillation}")
        if not 0 < self.interpolation <= 1:
            wrong.append(
                f"--interpolation must be in (0, 1], as 0 keeps nothing of what was learned; got {self.interpolation}"
            )
        names = [name for name, _ in self.vocabularies()]
        taken = [*names, *(name for name, _ in parse_named_paths(self.annotations_old))]
        if has_duplicates(taken) or not set(taken).isdisjoint(RESERVED):
            wrong.append(
                "--annotations and --annotations-old need different names, none of them "
                f"{', '.join(RESERVED)}: got {', '.join(taken)}; give them as NAME=PATH"
            )
        if strange := [name for name, _ in parse_named_paths(self.annotations_test) if name not in names]:
            wrong.append(f"--annotations-test: {', '.join(strange)} is not among --annotations: {', '.join(names)}")
        odd = [name for name in names if not name.replace("-", "").replace("_", "").replace(".", "").isalnum()]
        if odd:
            wrong.append(
                f"--annotations: name folders, so letters, digits, '-', '_' and '.' alone; got {', '.join(odd)}"
            )
        return wrong

    def start(self) -> "AdaptConfig | None":
        """Return what the flags start from if not from the defaults: the settings of the adaptation to resume."""
        if not self.resume or self.output is None or not (self.output / "config.json").is_file():
            return None
        record = dict(RunFolder.open(self.output).config().get("adapted", {}))
        for name in ("stage", "past"):  # what the settings led to
            record.pop(name, None)
        return filled(AdaptConfig(), record, f"{self.output}/config.json")

    def vocabularies(self) -> list[tuple[str, Path]]:
        """Return (name, path) of each file with new words, in the order of learning."""
        return parse_named_paths(self.annotations)

    def record(self) -> dict[str, Any]:
        """Return what an adapted run's config.json says about how it was adapted."""
        settings = json.loads(json.dumps(asdict(self), default=os.fspath))
        return {name: value for name, value in settings.items() if name not in HOW_TO_START}
