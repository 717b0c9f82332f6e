"""The folder of one run: its files, who may write them, and what survives an interruption.

config.json      the settings and the versions that they ran with
vocabulary.json  the words of the run's word table, in order
features.json    how wide its features are, and what made them, where they say so
log.jsonl        one line per epoch
last.pt          everything needed to resume
best.pt          the weights to use
results.json     the scores, once the run is finished
tensorboard/     the log as TensorBoard events
figures/         the log as pictures

An adapted run has more of them, and stages inside it: docs/guide/adapt.md.
"""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hero_plugin.integrations.data.feature_bank import MANIFEST, manifest_difference, read_manifest, rendering_mark
from hero_plugin.integrations.support import UserError, versions
from hero_plugin.integrations.support.files import atomic_write, checksum, lock_folder, remove_leftovers, write_json
from hero_plugin.integrations.support.settings import parse_named_paths
from hero_plugin.integrations.training.bases import base_of
from hero_plugin.integrations.training.config import TrainConfig

FREE_TO_CHANGE = frozenset(
    {"device", "features_on", "workers", "checkpoint_steps", "checkpoint_seconds", "compare", "figure_queries"}
)
"""Settings that a resumed run may change, because its weights do not depend on them."""


SWEEP_FILE = "variants.json"
"""Beside the run folders of a sweep: {variant: {"runs": folders, "compared_with": variants}}."""


class RunFolderError(UserError):
    """The folder cannot be used as requested; the message says what to do."""


class RunFolder:
    """Paths and records of a run. Made by ``claim``, ``create`` or ``open``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.vocabulary_file = path / "vocabulary.json"
        self.features_file = path / "features.json"
        self.log_file = path / "log.jsonl"
        self.last = path / "last.pt"
        self.best = path / "best.pt"
        self.next_best = path / "best.next.pt"
        self.results_file = path / "results.json"
        self.events = path / "tensorboard"
        self.figures = path / "figures"

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Open a run that exists, for reading."""
        if not (path / "config.json").is_file():
            raise RunFolderError(f"{path}: not the folder of a run (it has no config.json)")
        return cls(path)

    @classmethod
    def check(cls, path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Check whether ``create`` would succeed; change nothing.

        A run without a checkpoint counts as nothing: any other may take its place. ``RunFolderError`` where something
        is there and neither ``resume`` nor ``overwrite`` says what to do with it, or the run to resume was made with
        other settings.
        """
        run = cls(path)
        if not path.exists() or (path.is_dir() and all(part.name.startswith(".") for part in path.iterdir())):
            return
        if not run.config_file.is_file():
            why = "there is nothing to resume in it" if resume else "it is not the folder of a run"
            raise RunFolderError(f"{path}: exists, and {why}; choose another --output")
        if not run.begun:
            return
        if resume:
            run.check_same(settings)
        elif not overwrite:
            state = "finished" if run.finished else "unfinished"
            raise RunFolderError(
                f"{path}: holds {state} training already; add --resume to continue it, "
                "--overwrite to delete it and start again, or choose another --output"
            )

    @classmethod
    def create(cls, path: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> "RunFolder":
        """Start a run in ``path``, or continue the one that is there; errors as ``check``.

        ``settings`` are JSON values by field name; what a resumed run must not change is compared with them.
        """
        run = cls(path)
        if path.is_dir():
            remove_leftovers(path)
        cls.check(path, settings, resume=resume, overwrite=overwrite)
        if run.config_file.is_file():
            if resume and (run.begun or not (run._changed(settings) or run._other_annotations(settings))):
                return run
            run._delete()
        path.mkdir(parents=True, exist_ok=True)
        run.write_json(run.config_file, {**settings, "versions": versions(), "annotations": _annotations(settings)})
        return run

    @classmethod
    def claim(
        cls, path: Path, settings: Mapping[str, Any], held: ExitStack, *, resume: bool, overwrite: bool
    ) -> "RunFolder":
        """Create the run, or continue it, for this process alone until ``held`` is closed.

        Errors as ``check``, and ``RunFolderError`` where another process trains in the folder.
        """

        def lock(stack: ExitStack) -> None:
            if not stack.enter_context(lock_folder(path)):
                raise RunFolderError(f"{path}: another training is at work in it; wait for it, or name another folder")

        with ExitStack() as before:  # the folder that is there may be deleted, and then is not the one that was locked
            lock(before)
            run = cls.create(path, settings, resume=resume, overwrite=overwrite)
        lock(held)
        return run

    @property
    def finished(self) -> bool:
        """Return whether the run has its results."""
        return self.results_file.is_file()

    @property
    def begun(self) -> bool:
        """Return whether there is a checkpoint in it, or in a stage inside it."""
        return self.finished or self.last.is_file() or any(self.path.glob("*/last.pt"))

    def settings(self) -> TrainConfig:
        """Return the settings of the run."""
        config = self.config()
        return base_of(config, str(self.config_file)).config().updated(config, str(self.config_file))

    def config(self) -> dict[str, Any]:
        """Return config.json, with the old behavior for settings that did not exist when the run was made."""
        config = self._read_json(self.config_file)
        return base_of(config, str(self.config_file)).config.completed(config)

    def vocabulary(self) -> dict[str, Any]:
        """Return the vocabulary, as JSON values."""
        return self._read_json(self.vocabulary_file)

    def origins(self) -> dict[str, Any]:
        """Return what made the run's features, see ``origins_of``; nothing for a run that was not told."""
        return self._read_json(self.features_file) if self.features_file.is_file() else {}

    def check_origins(self, settings: TrainConfig) -> None:
        """Raise ``UserError`` for features of another encoder or rate than the run's; what says nothing passes."""
        at_its_time = {os.path.abspath(path): mark for path, mark in self.config().get("annotations", {}).items()}
        for path in settings.features:
            file = path / MANIFEST
            if file.is_file() and at_its_time.get(os.path.abspath(file), mark := rendering_mark(path)) != mark:
                raise UserError(
                    f"{path}: not the features that {self.path} was trained on: made anew, by other settings"
                )
        if not (known := self.origins()):
            return
        now = origins_of(settings)
        places = [
            *zip(settings.features, known.get("features", []), now["features"], strict=False),
            *((getattr(settings, name, None), known.get(name), now[name]) for name in ("words", "query_features")),
        ]
        differences = [(path, manifest_difference(before, after)) for path, before, after in places]
        if wrong := [f"{path}: made by {differs}" for path, differs in differences if differs]:
            wrong.append(f"{self.path} was trained on the latter: give it features of that kind")
            raise UserError("\n".join(wrong))

    def check_widths(self, widths: Sequence[int]) -> None:
        """Refuse features of several places in another order than the run's, as far as their widths tell.

        Raises:
            UserError: They are as wide in all as the run's, in as many places, and differ.
        """
        known = self.origins().get("widths", list(widths))
        # One place may hold what lay side by side; another sum is told of by what loads the weights.
        if (len(known), sum(known)) == (len(widths), sum(widths)) and known != list(widths):
            raise UserError(f"{self.path} was trained on --features {known} wide, in this order; these are {widths}")

    def results(self) -> dict[str, Any]:
        """Return the results, as JSON values."""
        return self._read_json(self.results_file)

    def write_json(self, file: Path, value: Any) -> None:
        """Write a JSON file of the run, at once or not at all."""
        write_json(file, value, ascii=False)

    def history(self) -> list[dict[str, Any]]:
        """Return the log, one dict per epoch."""
        text = self.log_file.read_text("utf-8") if self.log_file.is_file() else ""
        return [json.loads(line) for line in text.splitlines()]

    def append(self, line: Mapping[str, Any]) -> None:
        """Add an epoch to the log, whole or not at all: the file is short and written anew."""
        self.keep([*self.history(), dict(line)])

    def truncate(self, epochs: int) -> None:
        """Drop the epochs from the log that the checkpoint has not finished."""
        self.keep([line for line in self.history() if line["epoch"] <= epochs])

    def seconds(self) -> float:
        """Return how long the epochs took, in all sittings."""
        return round(sum(line.get("seconds", 0.0) for line in self.history()), 1)

    def keep(self, lines: list[dict[str, Any]]) -> None:
        """Write the log anew with these lines."""
        with atomic_write(self.log_file) as stream:
            stream.writelines(json.dumps(line) + "\n" for line in lines)

    def check_same(self, settings: Mapping[str, Any], *, to_resume: bool = True) -> None:
        """Raise ``RunFolderError`` with every setting that differs from the run's, bar those free to change.

        The word table may have been stored anew ``to_resume``, which compares the vectors themselves.
        """
        if "adapted" in self.config() and "adapted" not in settings:
            raise RunFolderError(
                f"{self.path}: an adapted run; continue it with hero-plugin adapt --output {self.path} --resume"
            )
        other = self._other_annotations(settings)
        if to_resume:
            other = [path for path in other if path != settings.get("words")]
        if other:
            what = "annotations are" if settings.get("durations") not in other else "annotations or durations are"
            if any(Path(path).name == MANIFEST for path in other):
                what = "features are"
            if {settings.get("words"), settings.get("init_base"), _started_from(settings)} & set(other):
                what = "files that its weights depend on are"
            raise RunFolderError(
                f"{self.path}: cannot resume, as {what} not what they were when this run began: "
                f"{', '.join(other)}. Put the earlier ones back, or start another run with another --output "
                "(or --overwrite)."
            )
        if changed := self._changed(settings):
            raise RunFolderError(
                f"{self.path}: cannot resume with other settings:\n"
                + "\n".join(changed)
                + "\nLeave these flags as they were, or start another run with another --output (or --overwrite)."
            )

    def _other_annotations(self, settings: Mapping[str, Any]) -> list[str]:
        """Return the annotation files that have changed since the run began; one that it does not know has not."""
        before = self.config().get("annotations", {})
        return [path for path, known in _annotations(settings).items() if before.get(path, known) != known]

    def _changed(self, settings: Mapping[str, Any]) -> list[str]:
        before, now = _with_hero_apart(self.config()), _with_hero_apart(settings)
        return [
            f"  {name}: was {before.get(name)!r}, now {value!r}"
            for name, value in now.items()
            if name not in FREE_TO_CHANGE and before.get(name) != value
        ]

    def _delete(self) -> None:
        # Renamed first: a process that dies while deleting must not leave half a run under this name.
        old = self.path.with_name(f".{self.path.name}.deleted")
        shutil.rmtree(old, ignore_errors=True)
        self.path.rename(old)
        shutil.rmtree(old)

    def _read_json(self, file: Path) -> dict[str, Any]:
        try:
            return json.loads(file.read_text("utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise RunFolderError(f"{file}: cannot be read ({error})") from error


def _with_hero_apart(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which each of HERO's is one of its own, named as its flag: ``hero.sgvf``."""
    hero = {f"hero.{name}": value for name, value in settings.get("hero", {}).items()}
    return {**settings, **hero, "hero": None}


def _annotations(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksum of each file that a run's weights depend on, of those that settings name and that are there.

    These are its annotations; the lengths of videos, as moments are cut at the end; the word table, and the base or the
    run that it starts from; what made the features, where it says; and the files that an adaptation's queries are drawn
    from: new ones, and old ones where it rehearses.
    """
    named = [settings.get(f"annotations_{name}") for name in ("train", "val", "reworded")]
    named += [settings.get(name) for name in ("durations", "words", "init_base")] + [_started_from(settings)]
    adapted = settings.get("adapted", {})
    sets = (*settings.get("annotations_test", ()), *adapted.get("annotations", ()))
    named += [path for _, path in parse_named_paths(sets)]
    named += adapted["past"] if adapted.get("rehearsal") else []
    found = {str(path): checksum(Path(path)) for path in named if path is not None and Path(path).is_file()}
    made = {str(Path(path) / MANIFEST): rendering_mark(Path(path)) for path in settings.get("features", ())}
    return {**found, **{path: mark for path, mark in made.items() if mark}}


def _started_from(settings: Mapping[str, Any]) -> str | None:
    """Return the checkpoint that an adaptation starts from."""
    run = settings.get("adapted", {}).get("run")
    return None if run is None else str(RunFolder(Path(run)).best)


def origins_of(settings: TrainConfig) -> dict[str, Any]:
    """Return the manifests of the files that settings name: a list for ``features``, ``words``, ``query_features``.

    Raises:
        UserError: A manifest cannot be read.
    """
    found: dict[str, Any] = {"features": [read_manifest(path) for path in settings.features]}
    for name in ("words", "query_features"):
        path = getattr(settings, name, None)
        found[name] = None if path is None else read_manifest(path)
    return found


class Events:
    """The writer of a run's epochs for TensorBoard, into one file for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def restart(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Write the folder anew from the log: events of epochs that the log does not hold would show twice."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for line in history:
            self.add(line)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add an epoch, at its number of training steps."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to load

            self._writer = SummaryWriter(str(self.folder))
        for step, loss in line["curve"]:
            self._writer.add_scalar("train/running_loss", loss, step)
        values = {f"train/{name}": value for name, value in line["losses"].items()}
        values["train/lr"] = line["lr"]
        for dataset, scores in line["metrics"].items():
            values |= {f"{dataset}/{name}": value for name, value in scores.items()}
        for name, levels in line["gauges"].items():
            values |= {f"{name}/{level}": value for level, value in enumerate(levels)}
        for name, value in values.items():
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
