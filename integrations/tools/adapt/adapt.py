"""Adaptation of a finished run to new words: one stage per vocabulary, each a run folder of its own.

Of several vocabularies, the last one's stage is the output folder itself; earlier ones are inside it, as ``1-NAME``.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import torch
from torch import Tensor, nn

from hero_plugin.integrations.data import Record, read_annotations, write_annotations
from hero_plugin.integrations.data.annotations import WRITTEN, detect_format
from hero_plugin.integrations.support import Interrupted, UserError, write_text
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.plotting import SETTINGS, save_figure
from hero_plugin.integrations.support.settings import parse_named_paths
from hero_plugin.integrations.tools.adapt import report as reporting
from hero_plugin.integrations.tools.adapt.config import AdaptConfig
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.checkpoints import load_checkpoint, save_checkpoint
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.distributed import choose_device, keep_freed_memory
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.figures import losses_figure
from hero_plugin.integrations.training.load_run import LoadedRun, ground_with_bar, load_model, with_inputs
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Batch, Scores, Task
from hero_plugin.losses import consistency_loss

Item = TypeVar("Item")


def run(config: AdaptConfig) -> None:
    """Run the command; whoever stops it is told how to go on."""
    try:
        main(config)
    except (Interrupted, KeyboardInterrupt):
        again = f"hero-plugin adapt --output {shlex.quote(str(config.output))} --resume"
        raise Interrupted(f"stopped; everything is saved. Resume with: {again}") from None


def main(config: AdaptConfig, screen: Screen | None = None) -> RunFolder:
    """Adapt, measure, and write the report; return the adapted run."""
    config, screen = config.checked(), screen or Screen()
    assert config.run is not None
    start = RunFolder.open(config.run)
    settings = starting_settings(start, config)
    stages = plan(config, settings, start.config().get("adapted", {}).get("past", []))
    new = {stage.name: _new_queries(stage, config, settings) for stage in stages}
    how = {"resume": config.resume, "overwrite": config.overwrite}
    record = _record(stages[-1], config)
    RunFolder.check(stages[-1].folder, record, **how)
    # Read before the folder is claimed: what cannot be learned from must not cost the adaptation that is there.
    BASES[settings.base].read(settings, {stage.name: stage.source for stage in stages})
    queries = _draw_queries(config, settings, stages, new)
    with ExitStack() as held:  # the last stage's folder holds the others'
        last = RunFolder.claim(stages[-1].folder, record, held, **how)
        for path, (records, written) in queries.items():  # a resumed adaptation writes the same again
            write_annotations(records, path, format=written)
        torch.set_num_threads(stages[0].settings.threads or torch.get_num_threads())
        run = start
        for number, stage in enumerate(stages, 1):
            folder = last
            if stage is not stages[-1]:
                folder = RunFolder.create(stage.folder, _record(stage, config), resume=True, overwrite=False)
            if folder.finished:
                screen.say(f"already finished: {stage.name}")
            else:
                screen.say(f"learning {stage.name}" + (f" ({number} of {len(stages)})" if len(stages) > 1 else ""))
                learn(stage, config, run, folder, screen, first=run is start)
            run = folder
    report([name for name, _ in settings.test_sets()], stages, screen)
    return last


def starting_settings(start: RunFolder, config: AdaptConfig) -> TrainConfig:
    """Return the settings of the run to start from, with the other files that the flags name.

    Raises ``UserError`` where it has no plug-in, or there is no test set of old words.
    """
    settings = start.settings()
    if settings.base_only or not settings.hero.active:
        raise UserError(
            f"{start.path}: a run of the plain {settings.title}, which has no plug-in to adapt; "
            "give --run the folder of a run with HERO"
        )
    settings = with_inputs(settings, config, config.annotations_old, start)
    if not settings.annotations_test:
        raise UserError(f"{start.path}: the run has no test sets; name some of old words with --annotations-old")
    return settings


@dataclass(frozen=True)
class Stage:
    """One vocabulary to learn."""

    name: str
    source: Path
    """The file that its queries are drawn from."""
    folder: Path
    settings: TrainConfig
    """The run's, on the drawn queries, with the plug-in alone learning."""
    past: tuple[Path, ...]
    """What the model learned from before: the run's training queries, then those of each vocabulary since."""
    train: Path
    """File of the drawn queries."""
    rehearsal: tuple[Path, ...]
    """Files of those past queries that are replayed, one per file in ``past``."""


def plan(config: AdaptConfig, settings: TrainConfig, before: Sequence[str] = ()) -> list[Stage]:
    """Return the stages, each with the settings of its run folder.

    ``before`` names the files that the run had learned from before the one in its settings.
    """
    assert config.output is not None and settings.annotations_train is not None
    vocabularies = config.vocabularies()
    old = dict(settings.test_sets())
    if again := [name for name, _ in vocabularies if name in old]:
        raise UserError(
            f"--annotations: the run has a test set named {', '.join(again)} already; give another name, as NAME=PATH"
        )
    queries = config.output / "queries"

    def suffix(path: Path) -> str:
        return ".jsonl" if _format(path, settings) == "qvhighlights" else path.suffix

    tests = {name: queries / f"{name}-test{suffix(path)}" for name, path in vocabularies}
    tests.update(parse_named_paths(config.annotations_test))
    learned = {path.resolve() for _, path in vocabularies}
    for name, path in parse_named_paths(config.annotations_old or settings.annotations_test):
        if path.resolve() in learned:
            raise UserError(
                f"the loss on old words would be measured on {name}={path}, which --annotations learns from; give "
                "--annotations-old"
            )
    for name, path in parse_named_paths(config.annotations_test):
        if path.resolve() in learned:
            raise UserError(
                f"the gain on new words would be measured on {name}={path}, which --annotations learns from; leave "
                f"--annotations-test {name} out, and what is not drawn is measured on, or give another file"
            )
    past = (*map(Path, before), settings.annotations_train)
    stages: list[Stage] = []
    for number, (name, path) in enumerate(vocabularies, 1):
        folder = config.output if number == len(vocabularies) else config.output / f"{number}-{name}"
        train = queries / f"{name}-train{suffix(path)}"
        changed = replace(
            settings,
            output=folder,
            annotations_train=train,
            annotations_val=None,
            annotations_test=(*settings.annotations_test, *(f"{key}={test}" for key, test in tests.items())),
            init_base=None,
            freeze_base=True,
            lr=config.lr or settings.lr,
            batch_size=config.batch_size,
            schedule="linear",
            warmup=0.0,
            seed=config.seed,
            device=config.device,
            threads=config.threads or settings.threads,
            checkpoint_steps=config.checkpoint_steps,
            checkpoint_seconds=config.checkpoint_seconds,
            compare=None,
        )
        rehearsal = tuple(queries / f"{name}-rehearsal-{place}{suffix(source)}" for place, source in enumerate(past, 1))
        stages.append(Stage(name, path, folder, changed, past, train, rehearsal if config.rehearsal else ()))
        past = (*past, train)
    return stages


def _record(stage: Stage, config: AdaptConfig) -> dict[str, Any]:
    """Return what the stage's run folder says about how it was made."""
    adapted = {**config.record(), "stage": stage.name, "past": [str(path) for path in stage.past]}
    return {**stage.settings.to_json(), "adapted": adapted}


def _new_queries(stage: Stage, config: AdaptConfig, settings: TrainConfig) -> list[Record]:
    """Return the queries of a file with new words, where enough of them are left to measure on."""
    records = _labelled(stage.source, settings)
    tested = stage.name in dict(parse_named_paths(config.annotations_test))
    if config.shots > len(records) or (config.shots in (0, len(records)) and not tested):
        raise UserError(
            f"{stage.source}: of {len(records)} queries, --shots {config.shots} leaves none to measure on; "
            f"draw fewer, or give --annotations-test {stage.name}=FILE"
        )
    return records


def _labelled(path: Path, settings: TrainConfig) -> list[Record]:
    """Return the queries of a file that have a moment, read as the run reads its own."""
    records = read_annotations(path, durations=settings.durations, on_broken=settings.on_broken)
    found = [record for record in records if record.moments]
    if not found:
        raise UserError(f"{path}: none of its {len(records)} queries has a moment to learn or to measure with")
    return found


def _draw_queries(
    config: AdaptConfig, settings: TrainConfig, stages: list[Stage], new: Mapping[str, list[Record]]
) -> dict[Path, tuple[list[Record], str]]:
    """Draw the queries of every stage; return them, and their format, by the file that they are written to."""
    tested = dict(parse_named_paths(config.annotations_test))
    drawn: dict[Path, tuple[list[Record], str]] = {}
    past: dict[Path, tuple[list[Record], str]] = {}
    for stage in stages:
        written = _format(stage.source, settings)
        learned, held_out = draw_queries(new[stage.name], config.shots, config.seed)
        drawn[stage.train] = learned, written
        if stage.name not in tested:
            drawn[dict(stage.settings.test_sets())[stage.name]] = held_out, written
        for source, path in zip(stage.past, stage.rehearsal, strict=False):
            if source not in past and source in drawn:  # an earlier stage's, not written yet
                past[source] = drawn[source]
            elif source not in past:
                if not source.is_file():
                    raise UserError(f"{source}: no such file to rehearse from; --rehearsal 0 does without")
                past[source] = _labelled(source, settings), _format(source, settings)
            records, written = past[source]
            replayed = min(config.steps * config.batch_size, len(records))
            drawn[path] = draw_queries(records, replayed, config.seed)[0], written
    return drawn


def _format(source: Path, settings: TrainConfig) -> str:
    """Return the format that queries drawn from a file are written in: its own, or "" where there is no file yet.

    It is JSON lines where features are named by ids, which these keep, and where its own is read and never written.
    """
    own = detect_format(source) if source.is_file() else ""
    by_id = getattr(settings, "query_features", None) is not None
    return "qvhighlights" if by_id or own not in ("", *WRITTEN) else own


def draw_queries(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Return ``count`` of the items, drawn by seed, and the others, both in their order; 0 draws all."""
    generator = torch.Generator().manual_seed(seed)
    chosen = set(torch.randperm(len(items), generator=generator)[: count or None].tolist())
    drawn, others = list[Item](), list[Item]()
    for place, item in enumerate(items):
        (drawn if place in chosen else others).append(item)
    return drawn, others


def mix_rehearsal(
    new: Sequence[Item], old: Sequence[Sequence[Item]], total: int, share: float, seed: int
) -> list[Item]:
    """Return ``total`` items, a ``share`` of them old: equally many from each list of old ones, whatever its length.

    One at least is new.
    """
    replayed = min(round(total * share / len(old)), (total - 1) // len(old)) if old else 0
    mixed: list[Item] = []
    for items, count in ((new, total - replayed * len(old)), *((each, replayed) for each in old)):
        generator = torch.Generator().manual_seed(seed)
        drawn: list[Item] = []
        while len(drawn) < count:  # all in a random order, again and again
            drawn += [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]
        mixed += drawn[:count]
    return mixed


def learn(stage: Stage, config: AdaptConfig, before: RunFolder, run: RunFolder, screen: Screen, *, first: bool) -> None:
    """Learn one vocabulary, from the best checkpoint of the run ``before``: train, interpolate, score.

    ``first``: that run is not a stage, so its scores are not known.
    """
    settings, base = replace(stage.settings, swap_words=0.0), BASES[stage.settings.base]
    device = choose_device(settings.device)
    keep_freed_memory(device)
    paths = {"train": stage.train, **{f"rehearsal {place}": path for place, path in enumerate(stage.rehearsal, 1)}}
    data = base.read(settings, {**paths, **dict(settings.test_sets())}, screen)
    bank = data.bank(settings.storage, settings.memory, screen)
    bank.settle(device, settings.features_on)
    task, vocabulary, _ = load_model(before, before.best, data, bank, device, settings=settings)
    run.write_json(run.vocabulary_file, vocabulary.adapted_to(data.sentences("train")).to_json())
    if origins := before.origins():
        run.write_json(run.features_file, origins)
    sets = {
        name: base.examples(settings, data, name, bank, vocabulary, for_training=name in paths) for name in data.sets
    }
    new, old = sets.pop("train"), [sets.pop(name) for name in paths if name != "train"]
    loaded = LoadedRun(task, settings, vocabulary, sets, 1)
    # The scores that this stage starts from: those of an earlier stage are in its results.
    kept = run.path / "before.json"
    if first and not kept.is_file():
        run.write_json(kept, score_sets(loaded, screen))
    previous = json.loads(kept.read_text("utf-8")) if first else before.results()["best"]

    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    items = mix_rehearsal(new, old, config.steps * settings.batch_size, config.rehearsal, config.seed)
    torch.manual_seed(settings.seed)
    adapted = AdaptTask(task, settings.epochs - 1, config.distillation)
    # One epoch over a list that is as long as all steps: a short list would be cut into epochs of a step or two.
    trainer = Trainer(adapted, replace(settings, epochs=1), items, run, screen)
    trainer.restore()
    trainer.fit({}, select=None)
    # From last.pt each time, so that a second attempt after an interruption does not interpolate twice.
    final = interpolate(weights, load_checkpoint(run.last, device)["model"], config.interpolation)
    task.model.load_state_dict(final)
    metrics = score_sets(loaded, screen)
    save_checkpoint({"model": task.model.state_dict(), "epoch": 1, "metrics": metrics}, run.best)
    with mpl.rc_context(SETTINGS):
        save_figure(losses_figure(run.history()), run.figures / "losses.png")
    results = {
        "selected_on": None,
        "best_epoch": 1,
        "best": metrics,
        "last": metrics,
        "before": previous,
        "queries": {"learned": len(new), **{name: len(items) for name, items in sets.items()}},
        "parameters": sum(each.numel() for each in task.model.parameters() if each.requires_grad),
        "seconds": run.seconds(),
    }
    run.write_json(run.results_file, results)


def score_sets(loaded: LoadedRun, screen: Screen) -> dict[str, Scores]:
    """Return the scores of every set."""
    loaded.task.model.eval()
    size = loaded.config.eval_batch_size
    return {
        name: loaded.task.scores(items, ground_with_bar(loaded, name, items, size, screen))
        for name, items in loaded.sets.items()
    }


class Distillation:
    """Learning without forgetting (Li and Hoiem, ECCV 2016): a loss that keeps answers near those before.

    ``D_KL(before || now)``, the mean over all of the task's distributions over a video's clips, on any query.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.teacher = deepcopy(task.model).eval().requires_grad_(False)
        self._outputs: object = None
        task.model.register_forward_hook(self._keep)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss, a scalar; ``model`` has just run forward on the batch."""
        with torch.no_grad():
            before, mask = self.task.clip_logits(self.teacher, batch)
        now, _ = self.task.clip_logits(model, batch, self._outputs)
        self._outputs = None
        losses = [consistency_loss(old, new, mask) for old, new in zip(before, now, strict=True)]
        return torch.stack(losses).mean()

    def _keep(self, model: nn.Module, inputs: object, outputs: object) -> None:
        if model.training:
            self._outputs = outputs


class AdaptTask:
    """The base's own task with a loss that keeps it from forgetting; the engine trains it as any other.

    New queries get the labels of this ``epoch`` of the run's training: the last, where EMB's are elastic. The added
    loss has the weight ``distillation``; 0: there is none.
    """

    def __init__(self, task: Task, epoch: int, distillation: float) -> None:
        self.task, self.epoch, self.weight = task, epoch, distillation
        self.distillation = Distillation(task) if distillation else None

    def losses(self, model: nn.Module, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Return the base's losses, and ``loss_distillation``."""
        losses = self.task.losses(model, batch, self.epoch)
        if self.distillation is not None:
            losses["loss_distillation"] = self.distillation(model, batch)
            losses["loss"] = losses["loss"] + self.weight * losses["loss_distillation"]
        return losses

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)


def interpolate(before: Mapping[str, Any], after: Mapping[str, Any], share: float) -> dict[str, Any]:
    """Return weights between those before and those after: WiSE-FT (Wortsman et al., CVPR 2022).

    ``(1 - share) before + share after`` for every float tensor that both have; share 1 is ``after``.
    """

    def between(old: Any, new: Any) -> Any:
        both = isinstance(old, Tensor) and isinstance(new, Tensor) and new.is_floating_point()
        return old.to(new.device).lerp(new, share) if both and old.shape == new.shape and share < 1 else new

    return {name: between(before.get(name), value) for name, value in after.items()}


def report(old: list[str], stages: list[Stage], screen: Screen) -> None:
    """Report gain and loss: a table on the screen, in Markdown and JSON, and a figure. ``old``: sets of old words."""
    runs, names = [RunFolder(stage.folder) for stage in stages], [stage.name for stage in stages]
    results = [run.results() for run in runs]
    matrix = reporting.ScoreMatrix(old, names, [results[0]["before"], *(each["best"] for each in results)])
    run = runs[-1]
    run.write_json(run.path / "adaptation.json", {**matrix.to_json(), "queries": results[-1]["queries"]})
    write_text(run.path / "adaptation.md", reporting.matrix_markdown(matrix))
    with mpl.rc_context(SETTINGS):
        figure = save_figure(reporting.adaptation_figure(matrix), run.figures / "adaptation.png")
    reporting.print_table(matrix, screen)
    screen.say(f"run folder: {run.path}\ntable: {run.path / 'adaptation.md'}, figure: {figure}")
