"""Prediction from flags to a merged file: ``hero-plugin predict``."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hero_plugin.integrations.data.checks import load_durations
from hero_plugin.integrations.data.features import FeatureStore, open_features, sample_clips
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.errors import DataError, Problem, UserError
from hero_plugin.integrations.support.process import Interrupted, Interrupts, Rank
from hero_plugin.integrations.tools.predict.answering import Answerer, AnswerOptions, ProgressMeter, answer_all
from hero_plugin.integrations.tools.predict.config import MergeConfig, PredictConfig, Shard
from hero_plugin.integrations.tools.predict.merge import Totals, finished_report, merge, text, unfinished
from hero_plugin.integrations.tools.predict.model import StreamedQueries, load_predictor, split_of, written_queries
from hero_plugin.integrations.tools.predict.queries import EveryVideo, Query, QueryFile, QueryValidator, open_queries
from hero_plugin.integrations.tools.predict.reading import WindowReader
from hero_plugin.integrations.tools.predict.store import Manifest, Part, PartPaths, file_digest
from hero_plugin.integrations.training.bases import config_from
from hero_plugin.integrations.training.config import TrainConfig
from hero_plugin.integrations.training.device import Amp, choose_device, keep_freed_memory
from hero_plugin.integrations.training.load_run import with_sources
from hero_plugin.integrations.training.run_folder import RunFolder

_KEPT = 1000
"""Broken queries that one message holds; a file may have millions."""


@dataclass
class Inputs:
    """Everything that the flags name, opened."""

    run: RunFolder
    settings: TrainConfig
    store: FeatureStore
    """Whole videos: what the run shortens is shortened once the clips are counted."""
    shorten: Callable[[np.ndarray], np.ndarray]
    written: StreamedQueries | None
    validator: QueryValidator
    queries: QueryFile


def main(config: PredictConfig, screen: Screen | None = None, command: str = "") -> dict[str, Any] | None:
    """Answer this process's shard; the process that finishes last merges.

    Args:
        config: the flags.
        screen: where to report.
        command: the command to repeat, for the message of an interruption.

    Returns:
        The report; None if other shards are unfinished.

    Raises:
        UserError, DataError: something cannot be read, or differs from what the prediction was started with.
        Interrupted: stopped on request; everything answered is saved.
    """
    screen = screen or Screen()
    config.check()
    rank = Rank.of_this_process()
    shard = Shard.of(config.shard, rank)
    inputs = open_inputs(config, screen)
    manifest = Manifest.agree(config.output, facts(config, inputs, shard), leads=shard.index == 0)
    if (report := finished_report(manifest)) is not None:
        if rank.leads:
            screen.say(f"already complete\n{text(report)}")
        return report
    wanted = shard.windows(manifest.facts["windows"])
    with Part(PartPaths.of(manifest.folder, shard), manifest.digest, wanted.start, config.sync_seconds) as part:
        manifest.check_agreed(config.output)
        left = range(wanted.start + len(part.entries), wanted.stop)
        if part.entries and left:
            screen.say(f"{shard}: {len(part.entries)} of {len(wanted)} windows were answered before")
        if left:
            answer(config, inputs, shard, left, part, screen, rank, command)
        totals = Totals()
        for entry in part.entries:
            totals.add(entry)
    if shard.count > 1:
        screen.say(f"{shard}: done, {totals.answered} queries answered, {totals.dropped} left out")
    return merge_if_done(manifest, screen)


def open_inputs(config: PredictConfig, screen: Screen) -> Inputs:
    """Open everything; of large files, only the query file is read through, for its checksum."""
    run = RunFolder.open(config.run)
    settings = with_sources(config_from(run.config(), str(run.config_file)), config, (), run)
    grid = settings.seconds_per_clip
    store = open_features(list(settings.features), normalize=bool(getattr(settings, "normalize_features", False)))
    pooling = "cut" if grid else settings.pooling
    written = written_queries(settings)
    durations = None if settings.durations is None else load_durations(settings.durations)
    validator = QueryValidator(
        store,
        split_of(settings),
        durations=durations,
        clip_seconds=config.clip_seconds or grid or None,
        has_features=lambda query, video: written is None or written.name(query, video) is not None,
        features=", ".join(map(str, settings.features)),
    )
    with screen.working("reading queries", 1) as progress:
        queries = open_queries(config.queries, config.window, sentences=config.every_video, progress=progress)
        if config.every_video:
            queries = every_video(queries, validator, store, config, screen)
    shorten = partial(sample_clips, max_clips=settings.max_clips, pooling=pooling)
    return Inputs(run, settings, store, shorten, written, validator, queries)


def every_video(
    queries: QueryFile, validator: QueryValidator, store: FeatureStore, config: PredictConfig, screen: Screen
) -> EveryVideo:
    """Return each query paired with every video; report or raise what is wrong with the queries themselves."""
    every = range(-(-queries.size // config.window))
    found = [query for _, window in queries.windows(every) for query in window]
    problems = [problem for query in found if (problem := validator.sentence(query)) is not None]
    names = [query.query_id for query in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        problems.append(Problem(str(config.queries), f"the query id {twice!r} occurs twice", "give each its own"))
    if problems and config.on_broken == "error":
        raise DataError(problems)
    good: dict[str, Query] = {}
    for query in found:
        if validator.sentence(query) is None:
            good.setdefault(query.query_id, query)
    if not good:
        raise DataError(problems or [Problem(str(config.queries), "no queries in this file")])
    for problem in problems:
        screen.say(f"left out: {problem}")
    return EveryVideo(list(good.values()), store.keys(), config.window, queries.digest)


def facts(config: PredictConfig, inputs: Inputs, shard: Shard) -> dict[str, Any]:
    """Return what the answers and their division into windows depend on: the same for every shard and start."""
    run, settings = inputs.run, inputs.settings
    weights = run.best if config.checkpoint == "best" else run.last
    if not weights.is_file():
        raise UserError(f"{weights}: no such checkpoint; is this the folder of a run that has trained?")
    words = settings.words
    return {
        "weights": file_digest(weights),
        "checkpoint": config.checkpoint,
        "vocabulary": file_digest(run.vocabulary_file),
        "model": settings.model_name,
        "queries": config.queries.name,
        "queries_sha256": inputs.queries.digest,
        "entries": inputs.queries.size,
        "every_video": config.every_video,
        "top_videos": config.top_videos,
        "features": [str(Path(path).resolve()) for path in settings.features],
        "words": None if words is None else [words.name, words.stat().st_size],
        "query_features": _resolved(getattr(settings, "query_features", None)),
        "durations": None if settings.durations is None else file_digest(settings.durations),
        "clip_seconds": inputs.validator.clip_seconds,
        "amp": config.amp or settings.amp,
        "top_k": config.top_k,
        "saliency": config.saliency,
        "batch_size": config.batch_size,
        "window": config.window,
        "windows": -(-inputs.queries.size // config.window),
        "shards": shard.count,
    }


def answer(
    config: PredictConfig,
    inputs: Inputs,
    shard: Shard,
    left: range,
    part: Part,
    screen: Screen,
    rank: Rank,
    command: str,
) -> None:
    """Answer the remaining windows.

    Raises:
        Interrupted: on Ctrl-C or SIGTERM.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    words = survey(config, inputs, left, screen)
    device = choose_device(config.device, rank, shared=True)
    keep_freed_memory(device)
    predictor = load_predictor(
        inputs.run,
        inputs.settings,
        inputs.store,
        words,
        checkpoint=config.checkpoint,
        device=device,
        written=inputs.written,
    )
    amp: Amp = config.amp or inputs.settings.amp
    answerer = Answerer(predictor, device, amp, AnswerOptions(config.top_k, config.saliency, score=config.every_video))
    reader = WindowReader(
        inputs.queries,
        left,
        inputs.validator,
        inputs.store,
        inputs.shorten,
        predictor,
        batch_size=config.batch_size,
        readers=config.readers,
        drop=config.on_broken == "drop",
        pin=device.type == "cuda",
    )
    size, step = inputs.queries.size, config.window
    total = entries_in(shard.windows(-(-size // step)), size, step)
    label = str(shard) if shard.count > 1 else "answering"
    meter = ProgressMeter(screen, label, total, total - entries_in(left, size, step))
    with Interrupts() as interrupts, meter.showing(), reader as window_batches:
        finished = answer_all(window_batches, answerer, part, meter, interrupts)
    if not finished:
        part.sync()
        again = f"; go on with: {command}" if command else "; the same command goes on"
        raise Interrupted(f"{shard} stopped at {meter.done} of {total} queries; they are saved{again}")


def survey(config: PredictConfig, inputs: Inputs, left: range, screen: Screen) -> list[str]:
    """Look at all remaining queries and return their distinct words.

    Raises:
        DataError: some queries cannot be answered and may not be left out, or none can be answered.
    """
    words: dict[str, None] = {}
    problems: list[Problem] = []
    broken = usable = 0
    split = inputs.validator.tokenize
    with screen.working("looking through the queries", len(left)) as progress:
        for number, window in inputs.queries.windows(left):
            for query in window:
                found = inputs.validator(query)
                if isinstance(found, Record):
                    usable += 1
                    words.update(dict.fromkeys(split(found.sentence)))
                    continue
                broken += 1
                if len(problems) < _KEPT:
                    problems.append(found)
            progress(number - left.start + 1, len(left))
    if problems and (config.on_broken == "error" or not usable):
        if broken > len(problems):
            more = f"{broken - len(problems)} more queries like these"
            problems.append(Problem(str(config.queries), more, problems[-1].fix))
        if config.on_broken == "error":
            drop = "or leave such queries out with --on-broken drop"
            problems = [Problem(each.where, each.what, f"{each.fix}; {drop}") for each in problems]
        raise DataError(problems)
    return list(words)


def merge_if_done(manifest: Manifest, screen: Screen, keep_parts: bool = False) -> dict[str, Any] | None:
    """Merge if every shard is finished; otherwise say which are not, and return None."""
    left = [] if finished_report(manifest) is not None else unfinished(manifest)
    if left:
        shown = ", ".join(f"{shard} ({done} of {wanted} windows)" for shard, done, wanted in left[:8])
        more = f" and {len(left) - 8} more" if len(left) > 8 else ""
        screen.say(f"not done yet: {shown}{more}; the last to finish merges")
        return None
    with screen.working("merging", manifest.facts["windows"]) as progress:
        report = merge(manifest, keep_parts=keep_parts, progress=progress)
    if report is not None:
        screen.say(text(report))
    return report


def command_line(argv: Sequence[str]) -> str:
    """Return the command that starts this again."""
    return "hero-plugin predict " + shlex.join(argv)


def run(config: PredictConfig, argv: Sequence[str]) -> None:
    """Run ``hero-plugin predict``."""
    main(config, command=command_line(argv))


def run_merge(config: MergeConfig) -> int:
    """Run ``hero-plugin predict merge``. Returns 1 where shards are not done, else 0."""
    return 0 if merge_if_done(Manifest.open(config.output), Screen(), config.keep_parts) is not None else 1


def _resolved(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def entries_in(windows: range, size: int, step: int) -> int:
    """Return how many of ``size`` entries are in these windows of ``step`` entries."""
    return max(0, min(windows.stop * step, size) - windows.start * step)
