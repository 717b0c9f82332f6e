"""A whole training, from files to a finished run folder: what ``hero-plugin train BASE`` runs, whatever the base.

``run`` -> ``main`` reads the data (``Base.read``), claims the folder and calls ``train``, which builds the model
(``Base.new_task``) and lets a ``Trainer`` (``engine.py``) fit it. Batches are made by the task's collate function:
``base.VectorCollate``, ``detr_batches.DetrCollate``.
"""

import shlex
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hero_plugin import choose_level
from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.words import Vocabulary, lacking_words
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support import Interrupted, Rank, UserError
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.settings import ConfigError
from hero_plugin.integrations.training import distributed
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.checkpoints import load_checkpoint, save_checkpoint, start_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.dataset import GroundingData
from hero_plugin.integrations.training.engine import Trainer
from hero_plugin.integrations.training.queries import WordQueries
from hero_plugin.integrations.training.run_folder import RunFolder, origins_of
from hero_plugin.integrations.training.task import Scores, Task, scores_table
from hero_plugin.protocol import NoClipScore


def run(config: TrainConfig) -> None:
    """Run the command; say how to go on where it is stopped."""
    try:
        main(config)
    except (Interrupted, KeyboardInterrupt) as why:  # the latter, without a word, while it reads or draws
        again = f"hero-plugin train {config.base} --output {shlex.quote(str(config.output))} --resume"
        many = ", under torchrun or not" if Rank.of_this_process().size > 1 else ""
        where = f" {why}" if str(why) else ""
        raise Interrupted(f"stopped{where}; everything is saved. Resume with{many}: {again}") from None


def main(config: TrainConfig, screen: Screen | None = None) -> RunFolder:
    """Read the data, train, score and draw; return the finished run.

    Under ``torchrun``, every process calls this; the leading one claims the folder, writes and shows.
    """
    config, rank = config.checked(), Rank.of_this_process()
    screen = screen or Screen(quiet=not rank.leads)
    config, device = _set_up(config, rank)
    output = config.output or Path()  # it is there: ``checked`` asks for it
    with ExitStack() as held, distributed.joined(rank, device) as group:
        settings, how = config.to_json(), {"resume": config.resume, "overwrite": config.overwrite}
        # Asked before any file is read: a typo in --output must not cost minutes. And claimed after: a start that
        # fails on its data has neither deleted a run nor begun one.
        group.from_leader(lambda: RunFolder.check(output, settings, **how))
        data = read(config, screen)
        bank = data.bank(config.storage, config.memory, screen)
        if config.features_on == "device" and bank.storage == "disk":
            raise UserError(
                "--features-on device: the features stay on disk; raise --memory, or give --storage float16"
            )
        bank.settle(device, config.features_on)
        if config.overwrite:  # what cannot be built must not cost the run that is there
            new_task(config, data, bank, BASES[config.base].vocabulary(config, data), device)
        run = group.from_leader(lambda: RunFolder.claim(output, settings, held, **how))
        return train(config, data, run, screen, bank=bank, group=group)


def read(config: TrainConfig, screen: Screen) -> GroundingData:
    """Read the data of every set that the config names."""
    own = {"train": config.annotations_train, "val": config.annotations_val, "reworded": config.annotations_reworded}
    given = {**own, **dict(config.test_sets())}
    paths = {name: path for name, path in given.items() if path is not None}
    data = BASES[config.base].read(config, paths, screen)
    for name, what in (("val", "checkpoint"), ("reworded", "level")):
        if name in data.sets and not any(record.moments for record in data.sets[name]):
            raise UserError(f"{own[name]}: no query has a moment, so no {what} can be chosen by them")
    if config.swap_words and data.swaps is None:
        raise UserError(f"--swap-words: {config.title} does not read its words from the table --words")
    return data


def train(
    config: TrainConfig,
    data: GroundingData,
    run: RunFolder,
    screen: Screen,
    *,
    bank: StoreBank | None = None,
    table: bool = True,
    group: distributed.Group = distributed.ALONE,
) -> RunFolder:
    """Train on data that is read, into a folder that is claimed; continue where ``run`` was interrupted.

    ``bank`` has the videos' features, if they are read, too; ``table`` prints the scores at the end. The processes of
    ``group`` part when the training is done; the leading one finishes the run.
    """
    from hero_plugin.integrations.training.figures import draw_run  # matplotlib is slow to load

    base = BASES[config.base]
    config, device = _set_up(config, group.rank)
    if bank is None:
        bank = data.bank(config.storage, config.memory, screen)
        bank.settle(device, config.features_on)
    group.from_leader(lambda: keep_origins(config, data, bank, run))
    vocabulary = group.from_leader(lambda: run_vocabulary(config, data, run))
    task, origin = new_task(config, data, bank, vocabulary, device)
    if origin:
        screen.say(origin)
    sets = {
        name: base.examples(config, data, name, bank, vocabulary, for_training=name == "train") for name in data.sets
    }
    items, reworded = sets.pop("train"), sets.pop("reworded", [])

    def swapped(epoch: int) -> Sequence[Any]:
        if data.swaps is None:
            return items
        records = data.swaps.records(data.sets["train"], config.seed, epoch)
        return base.examples(config, replace(data, sets={"train": records}), "train", bank, vocabulary, True)

    screen.say(describe(config, task.model, len(items), bank, vocabulary, device))
    say_words_without_vectors(data, vocabulary, screen)
    if group.size > 1:
        screen.say(f"{group.size} processes share the {config.batch_size} queries of each step")
    trainer = Trainer(task, config, items, run, screen, group, swapped)
    if config.resume:
        trainer.restore()
        base.check_words(data, vocabulary, task.model.state_dict())
    try:
        trainer.fit(sets, select="val" if "val" in sets else None)
    except NoClipScore as error:  # met by the first step
        raise UserError(f"{error} (--hero.relevance pair)") from error
    group.leave()
    if not group.leads:
        return run
    results = summary(run, task.model, "val" if "val" in sets else None)
    if config.choose_level:
        results |= answer_with_one_level(trainer, sets, reworded)
    run.write_json(run.results_file, results)
    draw_run(run, task, sets, data, vocabulary, config, screen)
    if table:
        show_results(results, run, screen)
    return run


def new_task(
    config: TrainConfig, data: GroundingData, bank: StoreBank, vocabulary: Vocabulary, device: torch.device
) -> tuple[Task, str]:
    """Build the task with its weights at the start; return it, and what to say of where they come from."""
    base = BASES[config.base]
    torch.manual_seed(config.seed)  # the weights at the start follow; nothing else is drawn
    try:
        task = base.new_task(config, data, bank, vocabulary, device)
    except ValueError as error:  # sizes that do not go together, such as a number of heads
        raise ConfigError(f"{config.model_name}: {error}") from error
    if config.init_base is None:
        return task, ""
    check_words = partial(base.check_words, data)
    return task, start_from(task.model, config.init_base, base.own_parameters, check_words, config)


def answer_with_one_level(
    trainer: Trainer, sets: Mapping[str, Sequence[Any]], reworded: Sequence[Any]
) -> dict[str, Any]:
    """Choose which levels of the best checkpoint answer, on val and its rewordings; note it in the checkpoint.

    Returns:
        For the results: the scores with the chosen levels, and what they were chosen by.
    """
    run, task, config, screen = trainer.run, trainer.task, trainer.config, trainer.screen
    state = load_checkpoint(run.best)
    task.model.load_state_dict(state["model"])

    def scored(items: Sequence[Any]) -> Scores:
        grounded = predict_set(task, items, config.eval_batch_size, amp=config.amp, clips=task.scores_clips)
        return task.scores(items, grounded)

    chosen_by = [items for items in (sets["val"], reworded) if items]
    with screen.working("choosing a level", config.hero.levels + 1) as progress:
        done = count(1)

        def merit(model: nn.Module) -> float:
            found = [scored(items) for items in chosen_by]
            progress(next(done), config.hero.levels + 1)
            # By the scores that both have: a DETR's official ones, on another scale, need labels that one may lack.
            shared = set.intersection(*map(set, found))
            return float(np.mean([task.merit({name: each[name] for name in each if name in shared}) for each in found]))

        merits = choose_level(task.model.eval(), merit)
    model: Any = task.model
    answering = model.config.inference
    best = {name: scored(items) for name, items in sets.items()}
    save_checkpoint({**state, "model": model.state_dict(), "metrics": best}, run.best)
    screen.say(f"answers with level{'s' if len(answering) > 1 else ''} {', '.join(map(str, answering))}")
    by = {"+".join(map(str, levels)): value for levels, value in merits.items()}
    return {"best": best, "levels": {"answering": list(answering), "chosen_by": by}}


def keep_origins(config: TrainConfig, data: GroundingData, bank: StoreBank, run: RunFolder) -> None:
    """Note in the run what made its features, how wide they are, and how long its longest training video is.

    Raises:
        UserError: The run to resume began on features of another kind.
    """
    run.check_origins(config)
    run.check_widths(data.store.widths)
    if not run.origins():
        clips = max(bank.clips(bank.rows[record.video_id]) for record in data.sets["train"])
        longest = {"longest_clips": clips, "longest_seconds": max(record.duration for record in data.sets["train"])}
        run.write_json(run.features_file, {**origins_of(config), "widths": data.store.widths, **longest})


def run_vocabulary(config: TrainConfig, data: GroundingData, run: RunFolder) -> Vocabulary:
    """Return the run's own vocabulary where it has one already, else the words of its data."""
    if run.vocabulary_file.is_file():
        return Vocabulary.from_json(run.vocabulary())
    vocabulary = BASES[config.base].vocabulary(config, data)
    run.write_json(run.vocabulary_file, vocabulary.to_json())
    return vocabulary


def summary(run: RunFolder, model: nn.Module, selected_on: str | None) -> dict[str, Any]:
    """Return the run's scores: of its best checkpoint, chosen on ``selected_on``, and of its last."""
    history = run.history()
    best = next((line for line in history if line["epoch"] == history[-1]["best_epoch"]), None)
    if best is None:
        raise UserError(
            f"{run.log_file}: has no line of the epoch whose weights are the best; put back the log that was there, or "
            "train again with --overwrite"
        )
    return {
        "selected_on": selected_on,
        "best_epoch": best["epoch"],
        "best": best["metrics"],
        "last": history[-1]["metrics"],
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "seconds": run.seconds(),
    }


def show_results(results: Mapping[str, Any], run: RunFolder, screen: Screen) -> None:
    """Show the scores of the best and the last epoch."""
    rows = {}
    for name, scores in results["best"].items():
        rows[name, f"best ({results['best_epoch']})"] = scores
        rows[name, "last"] = results["last"][name]
    if rows:
        screen.show(scores_table(("set", "epoch"), rows).terminal())
    show_official(results["best"], screen)
    screen.say(f"run folder: {run.path}")


def show_official(scores: Mapping[str, Mapping[str, float]], screen: Screen) -> None:
    """Show the scores beside the usual four: QVHighlights' official ones."""
    for name, each in scores.items():
        official = [f"{key} {value:.2f}" for key, value in each.items() if key not in SCORES]
        if official:
            screen.say(f"{name}, official: " + ", ".join(official))


def describe(
    config: TrainConfig, model: nn.Module, items: int, bank: StoreBank, vocabulary: Vocabulary, device: torch.device
) -> str:
    """Describe a training in one line."""
    what = config.model_name if config.base_only else f"{config.model_name}, {config.hero.levels} levels"
    if config.freeze_base:
        what += ", base frozen"
    learned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return (
        f"{what}: {learned / 1e6:.2f} M parameters on {device}; {items} training examples, "
        f"{len(bank.videos)} videos ({bank.description}), {len(vocabulary)} words"
    )


def say_words_without_vectors(data: GroundingData, vocabulary: Vocabulary, screen: Screen) -> None:
    """Say how many words of the training sentences the word table lacks, where it lacks some."""
    queries = getattr(data, "queries", None)
    has: Container[str] = queries.index if isinstance(queries, WordQueries) else vocabulary
    words = sorted(set(chain.from_iterable(data.sentences("train"))))
    lacking, too_many = lacking_words(words, has)
    if lacking:
        examples = f"{', '.join(lacking[:5])}{', ...' if len(lacking) > 5 else ''}"
        screen.say(f"{len(lacking)} of the {len(words)} words of the training queries have no vector: {examples}")
    if too_many:
        screen.say("that is more than half: is this the right word table? Words are looked up in lower case")


def _set_up(config: TrainConfig, rank: Rank) -> tuple[TrainConfig, torch.device]:
    """Set process-wide switches; return the config with its number of threads, and the device.

    Raises:
        UserError: The machine cannot do what is asked.
    """
    device = distributed.choose_device(config.device, rank)
    distributed.keep_freed_memory(device)
    if rank.size > 1 and device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.loss_scaler(config.amp, device)
    threads = config.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(config.matmul)
    return replace(config, threads=threads), device
