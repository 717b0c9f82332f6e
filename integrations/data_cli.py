"""`hero-plugin data ...`: convert and check annotations and features, render timeline features."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from hero_plugin.integrations.annotations import (
    ReadReport,
    convert_records,
    load_durations,
    read_annotations,
    write_annotations,
)
from hero_plugin.integrations.annotations.checks import OnBroken, OnOutside
from hero_plugin.integrations.annotations.conversion import Period, QueryIds, SaliencyChoice, Snap, Windows
from hero_plugin.integrations.annotations.detect import format_name
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.features import FeatureStore, open_features
from hero_plugin.integrations.files import atomic_path, write_text
from hero_plugin.integrations.interrupts import Interrupted
from hero_plugin.integrations.problems import DataError, Problem
from hero_plugin.integrations.records import Record
from hero_plugin.integrations.timelines import (
    TimelineConfig,
    build_prototypes,
    described_timelines,
    load_timelines,
    reach,
    render_folder,
    sentence_meanings,
    two_writers,
)
from hero_plugin.integrations.words import load_word_vectors, tokenize

__all__ = [
    "COMMANDS",
    "bar",
    "check",
    "command",
    "convert",
    "descriptions",
    "info",
    "main",
    "timelines",
    "timelines_figure",
    "timelines_oracle",
]

Format = Literal[
    "charades-sta",
    "charades-cd",
    "charades-cg",
    "activitynet",
    "activitynet-cd",
    "captions",
    "qvhighlights",
    "lighthouse",
]
Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]
_BY_VIDEO = ("captions", "charades-cd")  # formats that understand each other's extras


def convert(
    *,
    input: Path,
    output: Path,
    to: Format,
    from_: Annotated[Format | Literal["auto"], tyro.conf.arg(name="from")] = "auto",
    durations: Files = (),
    durations_from_features: Path | None = None,
    clips_per_second: float | None = None,
    on_outside: OnOutside = "clamp",
    on_broken: OnBroken = "error",
    clip_length: float = 2.0,
    rounding: Snap = "none",
    windows: Windows = "keep",
    saliency: SaliencyChoice = "keep",
    saliency_score: float = 4.0,
    annotators: int = 3,
    query_ids: QueryIds = "keep",
    first_query_id: int = 0,
    period: Period = "keep",
    overwrite: bool = False,
) -> None:
    """Convert an annotation file into another format.

    Args:
        input: The file to read.
        output: The file to write; it appears whole or not at all.
        to: Its format.
        from_: Format of the input; auto looks into the file.
        durations: Video lengths where the input has none (Charades-STA text): Charades' action timelines, any
            Charades-CD file, Charades' own CSV, ...
        durations_from_features: Or take them from these features: clips divided by --clips-per-second.
        clips_per_second: Rate of those features.
        on_outside: A moment that ends after its video: cut it at the end, keep it, or call it an error.
        on_broken: Queries that cannot be used (end before start, empty, malformed, ...): stop, or leave them out.
        clip_length: Seconds a clip, for --rounding and --saliency.
        rounding: Move moments to clip edges: not at all, to the best overlap (EMB), both boundaries down
            (Moment-DETR), to the nearest edge, or outward.
        windows: Several moments of a query: keep them (QVHighlights only), the first, the longest, their hull,
            or one query each.
        saliency: Highlight labels: keep what is there, none, or made from moments: every clip inside, in
            proportion to the overlap, or as lighthouse and QD-DETR make them for Charades-STA.
        saliency_score: Score of a clip inside a moment (QVHighlights: 0 to 4).
        annotators: How often the score is repeated a clip (QVHighlights: 3).
        query_ids: Keep ids, number them, or VIDEO_0, VIDEO_1, ...
        first_query_id: Where --query-ids number begins; give every split its own range.
        period: The full stop at the end of sentences: keep, strip or add it.
        overwrite: Replace an existing output.
    """
    if output.exists() and (not overwrite or output.resolve() == input.resolve()):
        raise UserError(f"{output} exists already: add --overwrite, or name another file (never the input itself)")
    if not clip_length > 0 or annotators < 1:
        raise UserError(f"--clip-length and --annotators must be positive, got {clip_length} and {annotators}")
    lengths = _durations(durations, durations_from_features, clips_per_second)
    report = ReadReport()
    with bar(f"reading {input.name}") as progress:
        records = read_annotations(
            input,
            format=from_,
            durations=lengths,
            on_outside=on_outside,
            on_broken=on_broken,
            report=report,
            progress=progress,
        )
    target = format_name(to)
    converted = convert_records(
        records,
        clip_length=clip_length,
        rounding=rounding,
        windows=windows,
        saliency=saliency,
        saliency_score=saliency_score,
        annotators=annotators,
        query_ids=query_ids,
        first_query_id=first_query_id,
        period=period,
        keep_extra=report.format == target or {report.format, target} <= set(_BY_VIDEO),
    )
    write_annotations(converted, output, format=target)
    videos = len({record.video_id for record in converted})
    print(f"{output}: {len(converted)} queries of {videos} videos, {report.format} -> {target}")
    _print_report(report)


def info(files: tyro.conf.Positional[Files], /, *, durations: Files = (), on_broken: OnBroken = "drop") -> None:
    """Say what annotation files hold: format, queries, videos, lengths, what is wrong with them.

    Args:
        files: Annotation files.
        durations: Video lengths where a file has none (Charades-STA text).
        on_broken: Count queries that cannot be used (drop), or stop at them (error).
    """
    lengths = load_durations(durations) if durations else None
    table = Table(
        "file", "format", "queries", "videos", "moments", "moment, s", "video, s", "words", "clamped", "broken"
    )
    for file in files:
        report = ReadReport()
        with bar(f"reading {file.name}") as progress:
            records = read_annotations(file, durations=lengths, on_broken=on_broken, report=report, progress=progress)
        moments = [end - start for record in records for start, end in record.moments]
        video = {record.video_id: record.duration for record in records}
        table.add_row(
            file.name,
            report.format,
            str(len(records)),
            str(len(video)),
            str(len(moments)),
            f"{np.median(moments):.1f}" if moments else "-",
            f"{np.median(list(video.values())):.1f}",
            str(len({word for record in records for word in tokenize(record.sentence)})),
            str(report.clamped),
            str(len(report.dropped)),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def check(
    *,
    annotations: Files,
    features: Files = (),
    words: Path | None = None,
    durations: Files = (),
    max_clips: int | None = None,
    on_broken: OnBroken = "error",
    problems: Path | None = None,
) -> None:
    """Check annotations, their videos' features and their words, and report every problem at once.

    Args:
        annotations: Annotation files, any format.
        features: Feature folders or HDF5 files; several are concatenated.
        words: Word vectors, GloVe text or .npz.
        durations: Video lengths where a file has none (Charades-STA text).
        max_clips: Longer videos are pooled to so many clips.
        on_broken: Queries that cannot be used are problems (error), or left out (drop).
        problems: Also write all problems to this file, one a line.
    """
    found: list[Problem] = []
    records: list[Record] = []
    lengths = load_durations(durations) if durations else None
    for file in annotations:
        report = ReadReport()
        try:
            with bar(f"reading {file.name}") as progress:
                part = read_annotations(file, durations=lengths, on_broken=on_broken, report=report, progress=progress)
        except DataError as error:
            found += error.problems
            continue
        print(f"{file}: {report.format}, {len(part)} queries of {len({r.video_id for r in part})} videos")
        _print_report(report)
        records += part
    if features and records:
        found += _check_features(features, records, max_clips)
    if words is not None and records:
        _check_words(words, records)
    if problems is not None:
        write_text(problems, "".join(f"{problem}\n" for problem in found))
    if found:
        raise DataError(found)
    print("no problems found")


def timelines(
    *,
    timelines: Path,
    annotations: Files,
    words: Path,
    output: Path,
    seed: int = 0,
    config: Annotated[TimelineConfig, tyro.conf.arg(name="")] = TimelineConfig(),  # noqa: B008 (frozen)
    dtype: Literal["float16", "float32"] = "float16",
    videos_of: Files = (),
    on_broken: OnBroken = "error",
    resume: bool = False,
) -> None:
    """Render clip features from human action timelines: a folder of VIDEO.npy, as real features come in.

    Args:
        timelines: Charades' action timelines, {VIDEO: {duration, actions: [[class, start, end], ...]}}.
        annotations: TRAINING annotations, whose queries give the actions their semantic half. Never test files.
        words: Word vectors, GloVe text or .npz.
        output: Folder to write.
        seed: Another seed, other prototypes and other noise.
        config: Strengths; --noise multiplies all errors.
        dtype: Of the files.
        videos_of: Render only the videos of these annotation files.
        on_broken: Training queries that cannot be used: stop (error), or leave them out (drop).
        resume: Go on with a folder that was begun with the same settings.
    """
    known = load_timelines(timelines)
    lengths = {video: timeline.duration for video, timeline in known.items()}
    records = _read_all(annotations, lengths, on_broken)
    wanted = {r.video_id for r in _read_all(videos_of, lengths, "drop")} if videos_of else None
    with bar(f"reading {words.name}") as progress:
        table = load_word_vectors(words, _vocabulary(records), progress=progress)
    prototypes = build_prototypes(records, known, table, config, seed=seed)
    bare = int((prototypes.queries == 0).sum())
    sources = {"timelines": timelines.name, "annotations": [a.name for a in annotations], "words": words.name}
    with going_on_with(output), bar("rendering") as progress:
        done = render_folder(
            output,
            known,
            prototypes,
            config,
            seed=seed,
            videos=wanted,
            dtype=dtype,
            resume=resume,
            sources=sources,
            progress=progress,
        )
    print(
        f"{output}: {done.written} videos rendered, {done.skipped} were there; "
        f"{done.clips} clips of {config.dim} numbers"
        + (f"; {bare} actions that no query describes are random" if bare else "")
    )


def descriptions(
    *,
    annotations: Path,
    timelines: Path,
    train: Files,
    words: Path,
    output: Path,
    queries: Path,
    seed: int = 0,
    config: Annotated[TimelineConfig, tyro.conf.arg(name="")] = TimelineConfig(),  # noqa: B008 (frozen)
    dtype: Literal["float16", "float32"] = "float16",
    on_broken: OnBroken = "error",
    resume: bool = False,
) -> None:
    """Render clip features of ActivityNet's videos from what one person wrote about them; the other's queries ask.

    For testing, on other videos and in another vocabulary, what was trained on timeline features: --timelines,
    --train, --words, --seed and the strengths must be those of the training features.

    Args:
        annotations: ActivityNet Captions or a split of ActivityNet-CD; its videos that two people described are taken.
        timelines: Charades' action timelines.
        train: The training annotations that the training features were rendered with.
        words: Word vectors, GloVe text or .npz.
        output: Folder to write the features into.
        queries: Annotation file to write: the other person's queries.
        seed: As rendered.
        config: As rendered.
        dtype: Of the files.
        on_broken: Queries that cannot be used: stop (error), or leave them out (drop).
        resume: Go on with a folder that was begun with the same settings.
    """
    if queries.exists() and not resume:
        raise UserError(f"{queries} exists already: name another file, or add --resume to write the same one again")
    known = load_timelines(timelines)
    lengths = {video: timeline.duration for video, timeline in known.items()}
    records = _read_all(train, lengths, on_broken)
    seen, asked = two_writers(_read_all([annotations], {}, on_broken))
    if not seen:
        raise UserError(
            f"{annotations} has no video that two people described: ActivityNet-CD's val, test_iid and test_ood have"
        )
    with bar(f"reading {words.name}") as progress:
        table = load_word_vectors(words, _vocabulary([*records, *seen, *asked]), progress=progress)
    prototypes = build_prototypes(records, known, table, config, seed=seed)
    described, looks = described_timelines(seen, prototypes, table, config, seed=seed)
    files = {"annotations": annotations.name, "timelines": timelines.name, "train": [file.name for file in train]}
    with going_on_with(output), bar("rendering") as progress:
        done = render_folder(
            output,
            described,
            looks,
            config,
            seed=seed,
            dtype=dtype,
            resume=resume,
            what="simulated clip features rendered from what one person wrote about a video",
            sources={**files, "words": words.name},
            progress=progress,
        )
    write_annotations(asked, queries, format="activitynet-cd")
    print(f"{output}: {done.written} videos rendered from {len(seen)} sentences, {done.skipped} were there")
    print(f"{queries}: {len(asked)} queries of other people about them")
    meanings = [sentence_meanings(part, prototypes, table) for part in (asked, seen)]
    scores = reach(asked, meanings[0], described, meanings[1], records)
    names = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    lines = Table("who answers", *names)
    for who, each in scores.items():
        lines.add_row(who, *(f"{each[name]:.1f}" for name in names))
    Console().print(lines)


@contextmanager
def going_on_with(output: Path) -> Iterator[None]:
    """Ctrl-C while a folder is rendered says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; nothing is half written. The same command with --resume goes on in {output}"
        ) from None


def timelines_figure(
    *,
    timelines: Path,
    annotations: Files,
    words: Path,
    video: str,
    output: Path,
    seed: int = 0,
    config: Annotated[TimelineConfig, tyro.conf.arg(name="")] = TimelineConfig(),  # noqa: B008 (frozen)
) -> None:
    """Draw one video: its annotated actions over what its rendered clips show.

    Args:
        timelines: Charades' action timelines.
        annotations: The training annotations that the features were rendered with.
        words: The word vectors that they were rendered with.
        video: Name of the video.
        output: Picture to write, .png, .pdf or .svg.
        seed: As rendered.
        config: As rendered.
    """
    from hero_plugin.integrations.timelines.figure import timeline_figure
    from hero_plugin.integrations.timelines.render import render_video

    known = load_timelines(timelines)
    if video not in known:
        raise UserError(f"{timelines} has no video {video!r}; its names look like {', '.join(list(known)[:3])}")
    records = _read_all(annotations, {v: t.duration for v, t in known.items()}, "drop")
    prototypes = build_prototypes(records, known, load_word_vectors(words, _vocabulary(records)), config, seed=seed)
    figure = timeline_figure(known[video], prototypes, render_video(known[video], prototypes, config, seed))
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format=output.suffix.lstrip(".") or "png", dpi=150)
    print(output)


def timelines_oracle(
    *,
    timelines: Path,
    annotations: Files,
    test: Files,
    words: Path,
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0),
    seed: int = 0,
    config: Annotated[TimelineConfig, tyro.conf.arg(name="config")] = TimelineConfig(),  # noqa: B008 (frozen)
) -> None:
    """Show how clear timeline features are, by noise: how well someone grounds who knows each query's action.

    Args:
        timelines: Charades' action timelines.
        annotations: Training annotations.
        test: Annotations to score.
        words: Word vectors.
        noise: Noise levels, one line of the table each.
        seed: Of the features.
        config: The other strengths.
    """
    from hero_plugin.integrations.timelines.oracle import fit_oracle, oracle_scores

    known = load_timelines(timelines)
    lengths = {video: timeline.duration for video, timeline in known.items()}
    records = _read_all(annotations, lengths, "drop")
    tests = {file.stem: _read_all([file], lengths, "drop") for file in test}
    prototypes = build_prototypes(records, known, load_word_vectors(words, _vocabulary(records)), config, seed=seed)
    names = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
    table = Table("noise", "queries", *names)
    with bar("rendering and grounding") as progress:
        for done, level in enumerate(noise):
            progress(done, len(noise))
            louder = replace(config, noise=level)
            oracle = fit_oracle(records, known, prototypes, louder, seed=seed)
            for name, part in tests.items():
                scores = oracle_scores(oracle, part, known, prototypes, louder, seed=seed)
                table.add_row(f"{level:g}", name, *(f"{scores[metric]:.1f}" for metric in names))
    Console().print(table)


COMMANDS: dict[str, Callable[..., None]] = {
    "convert": convert,
    "check": check,
    "info": info,
    "timelines": timelines,
    "descriptions": descriptions,
    "timelines-figure": timelines_figure,
    "timelines-oracle": timelines_oracle,
}


def command(argv: Sequence[str]) -> None:
    """`hero-plugin data ...`: run one of COMMANDS; mistakes in the input come out as exceptions."""
    tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="hero-plugin data",
        description="Convert and check annotations and features, render timeline features.",
        args=list(argv),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program: 0, or 2 and a message for a mistake in the input, or 130 when stopped."""
    try:
        command(sys.argv[1:] if argv is None else argv)
    except (DataError, UserError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("\nstopped; nothing was written", file=sys.stderr)
        return 130
    return 0


def _durations(files: Sequence[Path], features: Path | None, clips_per_second: float | None) -> dict[str, float] | None:
    if files and features is not None:
        raise UserError("give --durations or --durations-from-features, not both")
    if features is None:
        return load_durations(list(files)) if files else None
    if clips_per_second is None or not clips_per_second > 0:
        raise UserError("--durations-from-features needs --clips-per-second, the rate of those features")
    store = open_features(features)
    return {video: len(store[video]) / clips_per_second for video in store.keys()}  # noqa: SIM118 (no iterator)


def _read_all(files: Sequence[Path], lengths: dict[str, float], on_broken: OnBroken) -> list[Record]:
    records: list[Record] = []
    problems: list[Problem] = []
    for file in files:
        try:
            with bar(f"reading {file.name}") as progress, warnings.catch_warnings():
                warnings.simplefilter("ignore" if on_broken == "drop" else "default")
                records += read_annotations(file, durations=lengths, on_broken=on_broken, progress=progress)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return records


def _vocabulary(records: Sequence[Record]) -> set[str]:
    return {word for record in records for word in tokenize(record.sentence)}


def _check_features(paths: Sequence[Path], records: Sequence[Record], max_clips: int | None) -> list[Problem]:
    try:
        store: FeatureStore = open_features(list(paths), max_clips=max_clips)
    except DataError as error:
        return error.problems
    problems: list[Problem] = []
    durations = {record.video_id: record.duration for record in records}
    rates = []
    with bar("reading features") as progress:
        for done, (video, duration) in enumerate(durations.items(), 1):
            try:
                rates.append(len(store[video]) / duration)
            except DataError as error:
                problems += error.problems
            progress(done, len(durations))
    print(f"features: {len(rates)} of {len(durations)} videos are usable, {store.dim} numbers a clip")
    if rates:
        low, middle, high = np.percentile(rates, [1, 50, 99])
        print(f"  clips per second: median {middle:.2f}, from {low:.2f} to {high:.2f} for 98 in 100 videos")
    return problems


def _check_words(path: Path, records: Sequence[Record]) -> None:
    counts = Counter(word for record in records for word in tokenize(record.sentence))
    with bar(f"reading {path.name}") as progress:
        table = load_word_vectors(path, set(counts), progress=progress)
    lost = {word: count for word, count in counts.items() if word not in table}
    share = 1 - sum(lost.values()) / max(sum(counts.values()), 1)
    print(f"words: {len(counts) - len(lost)} of {len(counts)} have vectors, {100 * share:.2f}% of what is said")
    if lost:
        most = sorted(lost, key=lambda word: -lost[word])[:10]
        print(f"  without: {', '.join(f'{word} ({lost[word]})' for word in most)}" + (" ..." if len(lost) > 10 else ""))


def _print_report(report: ReadReport) -> None:
    if report.clamped:
        print(f"  {report.clamped} moments ended after their video and were cut at its end (--on-outside)")
    if report.dropped:
        print(f"  left out {len(report.dropped)} broken queries (--on-broken):")
        for problem in report.dropped[:20]:
            print(f"    {problem.where}: {problem.what}")


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], Any]]:
    """A progress bar on the terminal's error stream; none where that is a file."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    sys.exit(main())
