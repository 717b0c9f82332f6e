"""`hero-plugin data timelines`, `descriptions`, `timelines-figure`, `timelines-oracle`: simulated perception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hero_plugin.integrations.data.annotations import read_many, words_of, write_annotations
from hero_plugin.integrations.data.checks import OnBroken
from hero_plugin.integrations.data.words import load_word_vectors
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.support.files import atomic_path
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.tools.timelines import (
    Timeline,
    TimelineConfig,
    build_prototypes,
    described_timelines,
    load_timelines,
    reach,
    render_folder,
    sentence_meanings,
    two_writers,
)

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]
SCORES = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
PICTURES = ("png", "pdf", "svg")


@dataclass(frozen=True)
class TimelinesConfig:
    """Render clip features from human action timelines: a folder of VIDEO.npy, as real features come in."""

    timelines: Path
    """Charades' action timelines, {VIDEO: {duration, actions: [[class, start, end], ...]}}."""
    annotations: Files
    """TRAINING annotations, whose queries give the actions their semantic half. Never test files."""
    words: Path
    """Word vectors, GloVe text or .npz."""
    output: Path
    """Folder to write."""
    seed: int = 0
    """Another seed, other prototypes and other noise."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="")] = field(default_factory=TimelineConfig)
    """Strengths; --noise multiplies all errors."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the files."""
    videos_of: Files = ()
    """Render only the videos of these annotation files."""
    on_broken: OnBroken = "error"
    """Training queries that cannot be used: stop (error), or leave them out (drop)."""
    resume: bool = False
    """Go on with a folder that was begun with the same settings."""


def timelines(config: TimelinesConfig) -> None:
    """Run the command."""
    known, lengths = timelines_of(config.timelines)
    records = read_many(config.annotations, lengths, config.on_broken)
    wanted = {r.video_id for r in read_many(config.videos_of, lengths, "drop")} if config.videos_of else None
    with bar(f"reading {config.words.name}") as progress:
        table = load_word_vectors(config.words, words_of(records), progress=progress)
    prototypes = build_prototypes(records, known, table, config.strengths, seed=config.seed)
    bare = int((prototypes.queries == 0).sum())
    files = {"timelines": config.timelines.name, "annotations": [a.name for a in config.annotations]}
    with going_on_with(config.output), bar("rendering") as progress:
        done = render_folder(
            config.output,
            known,
            prototypes,
            config.strengths,
            seed=config.seed,
            videos=wanted,
            dtype=config.dtype,
            resume=config.resume,
            sources={**files, "words": config.words.name},
            progress=progress,
        )
    print(
        f"{config.output}: {done.written} videos rendered, {done.skipped} were there; "
        f"{done.clips} clips of {config.strengths.dim} numbers"
        + (f"; {bare} actions that no query describes are random" if bare else "")
    )


@dataclass(frozen=True)
class DescriptionsConfig:
    """Render clip features of ActivityNet's videos from what one person wrote about them; the other's queries ask.

    For testing, on other videos and in another vocabulary, what was trained on timeline features: --timelines,
    --train, --words, --seed and the strengths must be those of the training features.
    """

    annotations: Path
    """ActivityNet Captions or a split of ActivityNet-CD; its videos that two people described are taken."""
    timelines: Path
    """Charades' action timelines."""
    train: Files
    """The training annotations that the training features were rendered with."""
    words: Path
    """Word vectors, GloVe text or .npz."""
    output: Path
    """Folder to write the features into."""
    queries: Path
    """Annotation file to write: the other person's queries."""
    seed: int = 0
    """As rendered."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="")] = field(default_factory=TimelineConfig)
    """As rendered."""
    dtype: Literal["float16", "float32"] = "float16"
    """Of the files."""
    on_broken: OnBroken = "error"
    """Queries that cannot be used: stop (error), or leave them out (drop)."""
    resume: bool = False
    """Go on with a folder that was begun with the same settings."""


def descriptions(config: DescriptionsConfig) -> None:
    """Run the command."""
    annotations, queries = config.annotations, config.queries
    if queries.exists() and not config.resume:
        raise UserError(f"{queries} exists already: name another file, or add --resume to write the same one again")
    known, lengths = timelines_of(config.timelines)
    records = read_many(config.train, lengths, config.on_broken)
    seen, asked = two_writers(read_many([annotations], {}, config.on_broken))
    if not seen:
        raise UserError(
            f"{annotations} has no video that two people described: ActivityNet-CD's val, test_iid and test_ood have"
        )
    with bar(f"reading {config.words.name}") as progress:
        table = load_word_vectors(config.words, words_of([*records, *seen, *asked]), progress=progress)
    prototypes = build_prototypes(records, known, table, config.strengths, seed=config.seed)
    described, looks = described_timelines(seen, prototypes, table, config.strengths, seed=config.seed)
    files = {"annotations": annotations.name, "timelines": config.timelines.name}
    files["train"] = [file.name for file in config.train]
    with going_on_with(config.output), bar("rendering") as progress:
        done = render_folder(
            config.output,
            described,
            looks,
            config.strengths,
            seed=config.seed,
            dtype=config.dtype,
            resume=config.resume,
            what="simulated clip features rendered from what one person wrote about a video",
            sources={**files, "words": config.words.name},
            progress=progress,
        )
    write_annotations(asked, queries, format="activitynet-cd")
    print(f"{config.output}: {done.written} videos rendered from {len(seen)} sentences, {done.skipped} were there")
    print(f"{queries}: {len(asked)} queries of other people about them")
    meanings = [sentence_meanings(part, prototypes, table) for part in (asked, seen)]
    scores = reach(asked, meanings[0], described, meanings[1], records)
    lines = Table("who answers", *SCORES)
    for who, each in scores.items():
        lines.add_row(who, *(f"{each[name]:.1f}" for name in SCORES))
    Console().print(lines)


def timelines_of(path: Path) -> tuple[dict[str, Timeline], dict[str, float]]:
    """Timelines by video, and the videos' lengths."""
    known = load_timelines(path)
    return known, {video: timeline.duration for video, timeline in known.items()}


@contextmanager
def going_on_with(output: Path) -> Iterator[None]:
    """Ctrl-C while a folder is rendered says how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped; nothing is half written. The same command with --resume goes on in {output}"
        ) from None


@dataclass(frozen=True)
class TimelinesFigureConfig:
    """Draw one video: its annotated actions over what its rendered clips show."""

    timelines: Path
    """Charades' action timelines."""
    annotations: Files
    """The training annotations that the features were rendered with."""
    words: Path
    """The word vectors that they were rendered with."""
    video: str
    """Name of the video."""
    output: Path
    """Picture to write, .png, .pdf or .svg."""
    seed: int = 0
    """As rendered."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="")] = field(default_factory=TimelineConfig)
    """As rendered."""


def timelines_figure(config: TimelinesFigureConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.tools.timelines.oracle import timeline_figure
    from hero_plugin.integrations.tools.timelines.render import render_video

    kind = config.output.suffix.lstrip(".").lower() or PICTURES[0]
    if kind not in PICTURES:
        raise UserError(f"--output must end in .{', .'.join(PICTURES[:-1])} or .{PICTURES[-1]}, got {config.output}")
    known, lengths = timelines_of(config.timelines)
    video, strengths, seed = config.video, config.strengths, config.seed
    if video not in known:
        raise UserError(f"{config.timelines} has no video {video!r}; its names look like {', '.join(list(known)[:3])}")
    records = read_many(config.annotations, lengths, "drop")
    table = load_word_vectors(config.words, words_of(records))
    prototypes = build_prototypes(records, known, table, strengths, seed=seed)
    figure = timeline_figure(known[video], prototypes, render_video(known[video], prototypes, strengths, seed))
    with atomic_path(config.output) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)
    print(config.output)


@dataclass(frozen=True)
class TimelinesOracleConfig:
    """Show how clear timeline features are, by noise: how well someone grounds who knows each query's action."""

    timelines: Path
    """Charades' action timelines."""
    annotations: Files
    """Training annotations."""
    test: Files
    """Annotations to score."""
    words: Path
    """Word vectors."""
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """Noise levels, one line of the table each."""
    seed: int = 0
    """Of the features."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="config")] = field(default_factory=TimelineConfig)
    """The other strengths."""


def timelines_oracle(config: TimelinesOracleConfig) -> None:
    """Run the command."""
    from hero_plugin.integrations.tools.timelines.oracle import fit_oracle, oracle_scores

    known, lengths = timelines_of(config.timelines)
    records = read_many(config.annotations, lengths, "drop")
    tests = {file.stem: read_many([file], lengths, "drop") for file in config.test}
    vectors = load_word_vectors(config.words, words_of(records))
    prototypes = build_prototypes(records, known, vectors, config.strengths, seed=config.seed)
    table = Table("noise", "queries", *SCORES)
    with bar("rendering and grounding") as progress:
        for done, level in enumerate(config.noise):
            progress(done, len(config.noise))
            louder = replace(config.strengths, noise=level)
            oracle = fit_oracle(records, known, prototypes, louder, seed=config.seed)
            for name, part in tests.items():
                scores = oracle_scores(oracle, part, known, prototypes, louder, seed=config.seed)
                table.add_row(f"{level:g}", name, *(f"{scores[metric]:.1f}" for metric in SCORES))
    Console().print(table)
