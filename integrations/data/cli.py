"""The commands ``hero-plugin data convert``, ``info`` and ``check``, on annotations and features."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hero_plugin.integrations.data.annotations import Format, format_name, read_many, words_of, write_annotations
from hero_plugin.integrations.data.checks import (
    Durations,
    OnBroken,
    OnOutside,
    ReadReport,
    differing_lengths,
    load_durations,
)
from hero_plugin.integrations.data.features import FeatureStore, missing_features, open_features
from hero_plugin.integrations.data.moments import Conversion, clip_length_problem, convert_records
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import lacking_words, load_word_vectors, tokenize
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import Problem, Problems, UserError
from hero_plugin.integrations.support.files import check_free, write_text


@dataclass(frozen=True)
class ConvertConfig:
    """Convert an annotation file into another format."""

    input: Path
    """The file to read."""
    output: Path
    """The file to write; it appears whole or not at all."""
    to: Format
    """Its format."""
    from_: Annotated[Format | Literal["json-array", "auto"], tyro.conf.arg(name="from")] = "auto"
    """Format of the input; auto looks into the file."""
    durations: tuple[Path, ...] = ()
    """Video lengths where the input has none (Charades-STA text): Charades' action timelines, any Charades-CD file,
    Charades' own CSV, ..."""
    durations_from_features: Path | None = None
    """Or take them from these features: clips divided by --clips-per-second."""
    clips_per_second: float | None = None
    """Rate of those features."""
    on_outside: OnOutside = "clamp"
    """A moment that ends after its video: cut it at the end, keep it, or call it an error."""
    on_broken: OnBroken = "error"
    """Queries that cannot be used (end before start, empty, malformed, ...): stop, or leave them out."""
    choices: tyro.conf.OmitArgPrefixes[Conversion] = field(default_factory=Conversion)
    overwrite: bool = False
    """Replace an existing output."""


def convert(config: ConvertConfig) -> None:
    """Run the command."""
    output = config.output
    check_free(output, config.overwrite, config.input)
    if config.durations and config.durations_from_features is not None:
        raise UserError("give --durations or --durations-from-features, not both")
    try:
        config.choices.check()
    except ValueError as error:
        raise UserError(str(error)) from error
    lengths: Durations | None = config.durations or None
    if config.durations_from_features is not None:
        if config.clips_per_second is None or not config.clips_per_second > 0:
            raise UserError("--durations-from-features needs --clips-per-second, the rate of those features")
        store = open_features(config.durations_from_features)
        lengths = {video: len(store[video]) / config.clips_per_second for video in store.keys()}  # noqa: SIM118
    report, same_ids = ReadReport(), config.choices.query_ids == "keep"
    records = read_many(
        [config.input],
        report=report,
        format=config.from_,
        durations=lengths,
        on_outside=config.on_outside,
        on_broken=config.on_broken,
        unique_ids=same_ids,
    )
    target = format_name(config.to)
    by_video = {"captions", "charades-cd"}  # formats that understand each other's extras
    keep = report.format == target or {report.format, target} <= by_video
    converted = convert_records(records, config.choices, keep_extra=keep)
    write_annotations(converted, output, format=target)
    videos = len({record.video_id for record in converted})
    print(f"{output}: {len(converted)} queries of {videos} videos, {report.format} -> {target}")
    _print_report(report, " (--on-outside)")


@dataclass(frozen=True)
class InfoConfig:
    """Say what annotation files hold: format, queries, videos, lengths, what is wrong with them."""

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Annotation files."""
    durations: tuple[Path, ...] = ()
    """Video lengths where a file has none (Charades-STA text)."""
    on_broken: OnBroken = "drop"
    """Count queries that cannot be used (drop), or stop at them (error)."""


def info(config: InfoConfig) -> None:
    """Run the command."""
    names = ("file", "format", "queries", "videos", "moments", "moment, s", "video, s", "words", "clamped", "broken")
    table = Table(*names)
    found = Problems()
    for file in config.files:
        report = ReadReport()
        records: list[Record] | None = None
        with found.collecting(str(file)):
            records = read_many([file], report=report, durations=config.durations or None, on_broken=config.on_broken)
        if records is None:
            continue
        moments = [end - start for record in records for start, end in record.moments]
        video = {record.video_id: record.duration for record in records}
        table.add_row(
            file.name,
            report.format,
            *map(str, (len(records), len(video), len(moments))),
            f"{np.median(moments):.1f}" if moments else "-",
            f"{np.median(list(video.values())):.1f}" if video else "-",
            *map(str, (len(words_of(records)), report.clamped, len(report.dropped))),
        )
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    found.raise_if_any()


@dataclass(frozen=True)
class CheckConfig:
    """Check annotations, their videos' features and their words, and report every problem at once."""

    annotations: tuple[Path, ...]
    """Annotation files, any format."""
    features: tuple[Path, ...] = ()
    """Feature folders or HDF5 files; several are concatenated."""
    words: Path | None = None
    """Word vectors, GloVe text or .npz."""
    durations: tuple[Path, ...] = ()
    """Video lengths where a file has none (Charades-STA text)."""
    max_clips: int | None = None
    """Longer videos are pooled to this many clips."""
    clip_length: float | None = None
    """Seconds per clip, as --clip-length of train: videos whose clips do not last that long are a problem."""
    on_broken: OnBroken = "error"
    """Queries that cannot be used are problems (error), or left out (drop)."""
    problems: Path | None = None
    """Also write all problems to this file, one per line."""


def check(config: CheckConfig) -> None:
    """Run the command."""
    if config.max_clips is not None and config.max_clips < 1:
        raise UserError(f"--max-clips must be at least 1, got {config.max_clips}")
    found = Problems()
    records: list[Record] = []
    lengths: dict[str, float] | None = None
    with found.collecting("--durations"):
        lengths = load_durations(config.durations) if config.durations else None
    for file in () if found else config.annotations:  # without the lengths, each would repeat the problem
        with found.collecting("--annotations"):
            report = ReadReport()
            more = read_many([file], report=report, durations=lengths, on_broken=config.on_broken)
            print(f"{file}: {report.format}, {len(more)} queries of {len({r.video_id for r in more})} videos")
            _print_report(report)
            if bare := sum(not record.moments for record in more):
                print(f"  {bare} queries have no moment: they can be answered, and neither trained on nor scored")
            records += more
            ends = [end for record in more for _, end in record.moments]
            if ends and max(ends) <= 1 and min(record.duration for record in more) > 2:
                what = "no moment ends after the first second: they look like shares of the video, not seconds"
                found.add(str(file), what, "multiply them by the videos' durations")
    for video in differing_lengths(records):
        found.add("--annotations", f"video {video}", "correct one of the files")
    if config.features and records:
        with found.collecting("--features"):
            found += _check_features(config.features, records, config.max_clips, config.clip_length)
    if config.words is not None and records:
        with found.collecting("--words"):
            found += _check_words(config.words, records)
    if config.problems is not None:
        write_text(config.problems, "".join(f"{problem}\n" for problem in found))
    found.raise_if_any()
    print("no problems found")


def _check_features(
    paths: Sequence[Path], records: Sequence[Record], max_clips: int | None, clip_length: float | None = None
) -> list[Problem]:
    store: FeatureStore = open_features(list(paths), max_clips=max_clips)
    problems = Problems(missing_features(store, Counter(record.video_id for record in records), "annotations"))
    durations = {record.video_id: record.duration for record in records}
    found: dict[str, tuple[float, int]] = {}
    with bar("reading features") as progress:
        for done, (video, duration) in enumerate(durations.items(), 1):
            with problems.collecting():
                if video in store:
                    found[video] = duration, len(store[video])
            progress(done, len(durations))
    print(f"features: {len(found)} of {len(durations)} videos are usable, {store.dim} numbers per clip")
    if found:
        rates = [clips / duration for duration, clips in found.values()]
        low, middle, high = np.percentile(rates, [1, 50, 99])
        print(f"  clips per second: median {middle:.2f}, from {low:.2f} to {high:.2f} for 98 in 100 videos")
        counts = {clips for _, clips in found.values()}
        if len(found) > 1 and len(counts) == 1 and min(counts) > store.dim:
            print(f"  all have {min(counts)} clips of fewer numbers: if their axes are (dim, clips), swap them")
    if clip_length and (problem := clip_length_problem(found, clip_length, max_clips)):
        problems.append(problem)
    elif clip_length == 2:  # QVHighlights': no problem, but one such video takes saliency from its whole set
        off = {video: each for video, each in found.items() if abs(each[1] - np.ceil(each[0] / clip_length)) > 2}
        if off:
            print(f"  {len(off)} videos are more than two clips off: QVHighlights' form has no saliency for them")
        for video, (seconds, clips) in list(off.items())[:20]:
            print(f"    {video}: {clips} clips, {seconds:g} s")
    return problems


def _check_words(path: Path, records: Sequence[Record]) -> list[Problem]:
    """Print how many words have vectors; return what is wrong with the table."""
    counts = Counter(word for record in records for word in tokenize(record.sentence))
    with bar(f"reading {path.name}") as progress:
        table = load_word_vectors(path, set(counts), progress=progress)
    lacking, too_many = lacking_words(counts, table.index)
    lost = {word: counts[word] for word in lacking}
    share = 1 - sum(lost.values()) / max(sum(counts.values()), 1)
    print(f"words: {len(counts) - len(lost)} of {len(counts)} have vectors, {100 * share:.2f}% of what is said")
    if lost:
        most = sorted(lost, key=lambda word: -lost[word])[:10]
        print(f"  without: {', '.join(f'{word} ({lost[word]})' for word in most)}" + (" ..." if len(lost) > 10 else ""))
    if not too_many:
        return []
    what = f"{len(lost)} of the {len(counts)} words of the queries have no vector"
    return [Problem(str(path), what, "give --words a table of these words; they are looked up in lower case")]


def _print_report(report: ReadReport, flag: str = "") -> None:
    """Print what was changed or left out; ``flag`` says which flag would choose otherwise."""
    if report.clamped:
        print(f"  {report.clamped} moments ended after their video and were cut at its end{flag}")
    if report.lost_windows:
        print(f"  left out {len(report.lost_windows)} windows of queries that keep others, the first:")
        print(f"    {report.lost_windows[0]}")
    if report.dropped:
        print(f"  left out {len(report.dropped)} broken queries (--on-broken):")
        for problem in report.dropped[:20]:
            print(f"    {problem.where}: {problem.what}")
