"""Prediction from flags to a merged file: ``hero-plugin predict``."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from hero_plugin.integrations.data import Record, load_durations, open_features, tokenize
from hero_plugin.integrations.data.feature_bank import manifest_marks, read_manifest
from hero_plugin.integrations.scoring.qvhighlights import CLIP_LENGTH
from hero_plugin.integrations.scoring.submissions import clips_are_scored, submission_line, unscored_videos
from hero_plugin.integrations.support import DataError, Interrupted, Interrupts, Problem, Rank, UserError, checksum
from hero_plugin.integrations.support.console import Screen, Teller
from hero_plugin.integrations.tools.predict import model
from hero_plugin.integrations.tools.predict.merge import finished_report, merge, report_text
from hero_plugin.integrations.tools.predict.model import Inputs, PredictConfig, QueryWindow, WindowBatch
from hero_plugin.integrations.tools.predict.queries import EveryVideo, Query, QueryFile, QueryValidator, open_queries
from hero_plugin.integrations.tools.predict.store import Manifest, Part, Shard
from hero_plugin.integrations.training.distributed import choose_device, keep_freed_memory
from hero_plugin.integrations.training.load_run import RunPredictor, with_inputs
from hero_plugin.integrations.training.run_folder import RunFolder
from hero_plugin.integrations.training.task import Prediction

_KEPT = 1000
"""Broken queries that one message holds; a file may have millions."""


def main(config: PredictConfig, screen: Screen | None = None, argv: Sequence[str] = ()) -> dict[str, Any] | None:
    """Answer this process's shard; the process that finishes last merges. Return None if others are unfinished.

    ``argv``, the words of the command, is for the message of an interruption.

    Raises:
        UserError, DataError: something cannot be read, or differs from what the prediction was started with.
        Interrupted: stopped on request; everything answered is saved.
    """
    screen = screen or Screen()
    config.check()
    rank = Rank.of_this_process()
    shard = Shard.of(config.shard, rank)
    inputs = open_inputs(config, screen)
    manifest = Manifest.agree(config.output, facts(inputs, shard), leads=shard.index == 0)
    if (report := finished_report(manifest)) is not None:
        if rank.leads:
            screen.say(f"already complete\n{report_text(report)}")
        return report
    wanted = shard.windows(inputs.queries.count)
    with Part(shard.part(manifest.folder), manifest.digest, wanted.start, config.sync_seconds) as part:
        manifest.check_agreed(config.output)
        left = range(wanted.start + len(part.entries), wanted.stop)
        if part.entries and left:
            screen.say(f"{shard}: {len(part.entries)} of {len(wanted)} windows were answered before")
        if left:
            answer(inputs, shard, left, part, screen, rank, argv)
        answered = sum(entry["answered"] for entry in part.entries)
        dropped = sum(len(entry["dropped"]) for entry in part.entries)
    if shard.count > 1:
        screen.say(f"{shard}: done, {answered} queries answered, {dropped} left out")
    return merge(manifest, screen)


def open_inputs(config: PredictConfig, screen: Screen) -> Inputs:
    """Open everything; of large files, only the query file is read through, for its checksum."""
    run = RunFolder.open(config.run)
    settings = with_inputs(run.settings(), config, (), run)
    store = open_features(settings.feature_paths, normalize=bool(getattr(settings, "normalize_features", False)))
    written = model.StreamedQueries.of(settings, config.every_video)
    validator = QueryValidator(
        store,
        partial(tokenize, style=settings.tokenizer),
        durations={} if settings.durations is None else load_durations(settings.durations),
        clip_seconds=config.clip_seconds or settings.seconds_per_clip or None,
        own_features=None if written is None else written.problem,
        features=", ".join(map(str, settings.features)),
    )
    with screen.working("reading queries", 1) as progress:
        queries = open_queries(config.queries, config.window, sentences=config.every_video, progress=progress)
        if config.every_video:
            queries = every_video(queries, validator, store.keys(), config, screen)
    return Inputs(config, run, settings, store, written, validator, queries)


def every_video(
    queries: QueryFile, validator: QueryValidator, videos: Sequence[str], config: PredictConfig, screen: Screen
) -> EveryVideo:
    """Return each query paired with every video; report or raise what is wrong with the queries themselves."""
    source, names = str(config.queries), Counter[str]()
    good: dict[str, Query] = {}
    problems: list[Problem] = []
    for _, window in queries.windows(range(queries.count)):
        for query in window:
            names[query.query_id] += 1
            if problem := validator.sentence(query):
                problems.append(problem)
            else:
                good.setdefault(query.query_id, query)
    for name, count in names.items():
        if count > 1:
            problems.append(Problem(source, f"the query id {name!r} occurs {count} times", "give each its own"))
    if not good or (problems and config.on_broken == "error"):
        raise DataError(problems or [Problem(source, "no queries in this file")])
    for problem in problems:
        screen.say(f"left out: {problem}")
    return EveryVideo(list(good.values()), videos, config.window, queries.digest)


def facts(inputs: Inputs, shard: Shard) -> dict[str, Any]:
    """Return what the answers and their division into windows depend on: the same for every shard and start."""
    config, run, settings, queries = inputs.config, inputs.run, inputs.settings, inputs.queries
    if not inputs.weights.is_file():
        raise UserError(f"{inputs.weights}: no such checkpoint; is this the folder of a run that has trained?")
    words, own_features = settings.words, getattr(settings, "query_features", None)
    return {
        "weights": checksum(inputs.weights)[:16],
        "checkpoint": config.checkpoint,
        "vocabulary": checksum(run.vocabulary_file)[:16],
        "model": settings.model_name,
        "queries": config.queries.name,
        "queries_sha256": queries.digest,
        "entries": queries.size,
        **({"levels": sorted(config.levels)} if config.levels else {}),
        **({"bridge": "by meaning and place"} if config.bridge else {}),
        "every_video": config.every_video,
        "top_videos": config.top_videos,
        "features": [str(path.resolve()) for path in settings.features],
        **({"manifests": made} if any(made := [read_manifest(path) for path in settings.features]) else {}),
        "made_by": manifest_marks(path for path in (*settings.features, own_features) if path),
        "words": None if words is None else [words.name, words.stat().st_size, checksum(words)[:16]],
        "query_features": None if own_features is None else str(own_features.resolve()),
        "durations": None if settings.durations is None else checksum(settings.durations)[:16],
        "clip_seconds": inputs.validator.clip_seconds,
        "amp": config.amp or settings.amp,
        "top_k": config.top_k,
        "saliency": config.saliency,
        "batch_size": config.batch_size,
        "window": config.window,
        "windows": queries.count,
        "shards": shard.count,
    }


def answer(
    inputs: Inputs, shard: Shard, left: range, part: Part, screen: Screen, rank: Rank, argv: Sequence[str]
) -> None:
    """Answer the remaining windows; Ctrl-C and SIGTERM raise ``Interrupted``."""
    config = inputs.config
    if config.threads:
        torch.set_num_threads(config.threads)
    words, asked = survey(inputs, left, screen)
    device = choose_device(config.device, rank, shared=True)
    keep_freed_memory(device)
    predictor = RunPredictor.load(
        inputs.run,
        inputs.settings,
        inputs.store,
        words,
        device,
        weights=inputs.weights,
        queries=inputs.written,
        levels=config.levels,
        bridge=config.bridge,
        amp=config.amp,
    )
    clip_length = getattr(predictor.task, "clip_length", 0.0)
    if config.saliency and clip_length and not clips_are_scored([1], [CLIP_LENGTH], clip_length):
        screen.say(
            f"note: the run's clips last {clip_length:g} s: no saliency is written, as the form has a score for each "
            f"clip of {CLIP_LENGTH:g} s"
        )
    before = sum(entry["asked"] for entry in part.entries)
    total, label = before + asked, str(shard) if shard.count > 1 else "answering"
    meter = ProgressMeter(screen, label, total, before)
    windows = closing(iter(model.WindowReader(inputs, left, predictor)))
    with Interrupts() as interrupts, meter.bars, windows as window_batches:
        finished = answer_windows(window_batches, predictor, config, part, meter, interrupts)
    if not finished:
        part.sync()
        again = f"go on with: hero-plugin predict {shlex.join(argv)}" if argv else "the same command goes on"
        raise Interrupted(f"{shard} stopped at {meter.done} of {total} queries; they are saved; {again}")


def survey(inputs: Inputs, left: range, screen: Screen) -> tuple[list[str], int]:
    """Look at all remaining queries; return their distinct words, and how many queries they are.

    Those before them are looked at, too: which length of a video is its first, and which of two queries a file of
    features is of, must not depend on where the work was stopped or divided. Pairs with every video say no such thing.
    Raises ``DataError`` where queries cannot be answered and may not be left out, or none can be answered.
    """
    words: dict[str, None] = {}
    problems: list[Problem] = []
    asked, broken, twice, ids = 0, 0, "", set[int]()
    looked = left if inputs.config.every_video else range(left.stop)
    with screen.working("looking through the queries", len(looked)) as progress:
        for number, window in inputs.queries.windows(looked):
            for query in window:
                found = inputs.validator(query)
                if not twice and hash(query.query_id) in ids:
                    twice = query.query_id
                ids.add(hash(query.query_id))
                if number < left.start:
                    continue
                asked += 1
                if isinstance(found, Record):
                    words.update(dict.fromkeys(inputs.validator.tokenize(found.sentence)))
                else:
                    broken += 1
                    if len(problems) < _KEPT:
                        problems.append(found)
            progress(number - looked.start + 1, len(looked))
    if twice and not inputs.config.every_video:
        screen.say(f"note: the query id {twice} occurs twice: `eval --submission` takes a file of distinct ids alone")
    drop = inputs.config.on_broken == "drop"
    if problems and not (drop and words):  # a query that can be answered has a word
        if broken > len(problems):
            more = f"{broken - len(problems)} more queries like these"
            problems.append(Problem(str(inputs.config.queries), more, problems[-1].fix))
        advice = "" if drop else "; or leave such queries out with --on-broken drop"
        raise DataError(replace(each, fix=f"{each.fix}{advice}") for each in problems)
    return list(words), asked


def answer_windows(
    window_batches: Iterable[WindowBatch],
    predictor: RunPredictor,
    config: PredictConfig,
    part: Part,
    meter: "ProgressMeter",
    interrupts: Interrupts,
) -> bool:
    """Answer and write window by window; return False if stopped before the end.

    A window that is unfinished when the stop comes is dropped; the next start answers it again.
    """
    answers: list[tuple[WindowBatch, Prediction]] = []
    waiting = computing = 0.0
    processor, end = time.process_time(), time.perf_counter()
    for window_batch in window_batches:
        start = time.perf_counter()
        waiting += start - end
        if interrupts.requested:
            return False
        window = window_batch.window
        if window_batch.batch is not None:
            answers.append((window_batch, predictor.predict(window_batch.batch)))
            end = time.perf_counter()
            computing += end - start
            continue
        # The first of these reads waits until the device has done the window.
        has_saliency = config.saliency and any(answer.saliency is not None for _, answer in answers)
        clip_length = getattr(predictor.task, "clip_length", 0.0)
        off = unscored_videos(window.records, window.lengths, clip_length) if has_saliency else {}
        lines = answer_lines(window, answers, config, off)
        computing += time.perf_counter() - start
        before, processor = processor, time.process_time()
        times = {"waiting": waiting, "computing": computing, "processor": processor - before}
        unscored = sum(record.video_id in off for record in window.records)
        about = {"unscored": unscored, "first_unscored": next(iter(off.values()), "")}
        part.add(window.number, lines, **window.to_json(), **about, **times)
        meter.add(window.asked)
        answers, waiting, computing, end = [], 0.0, 0.0, time.perf_counter()
    return True


def answer_lines(
    window: QueryWindow,
    answers: Iterable[tuple[WindowBatch, Prediction]],
    config: PredictConfig,
    off: Container[str] = (),
) -> list[str]:
    """Return one JSON line per record of a window, in its order, without saliency for the videos in ``off``."""
    lines = [""] * len(window.records)
    for window_batch, answer in answers:
        keep = slice(config.top_k or None)
        moments, scores = (each[:, keep].float().cpu().double().numpy() for each in (answer.moments, answer.scores))
        saliency = answer.saliency.float().cpu().numpy() if config.saliency and answer.saliency is not None else None
        for row, index in enumerate(window_batch.order):
            record, count, clips = window.records[index], window.lengths[index], None
            if saliency is not None and record.video_id not in off:
                clips = saliency[row, :count]
            line = submission_line(record, moments[row], scores[row], clips)
            if config.every_video:  # the best window's score unrounded, to rank by
                line["score"] = float(f"{scores[row].max():.9g}")
            lines[index] = json.dumps(line, ensure_ascii=False, allow_nan=False)
    return lines


class ProgressMeter:
    """Count of a shard's answered queries: a bar while ``bars`` is open on a terminal, an occasional line elsewhere.

    ``done`` queries were answered by earlier starts.
    """

    def __init__(self, screen: Screen, label: str, total: int, done: int) -> None:
        self.label, self.total, self.done = label, total, done
        self.bars = screen.bars()
        self._bar = self.bars.add_task(label, total=total, completed=done, note="")
        self._before, self._start = done, time.monotonic()
        self._tell = Teller(screen.say)

    def add(self, count: int) -> None:
        """Count more answered queries."""
        self.done += count
        rate = (self.done - self._before) / max(time.monotonic() - self._start, 1e-9)
        self.bars.update(self._bar, completed=self.done, note=f"{rate:.0f}/s")
        if self.bars.disable:
            left = _duration((self.total - self.done) / max(rate, 1e-9))
            self._tell(lambda: f"{self.label}: {self.done} of {self.total} queries, {rate:.0f}/s, {left} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
