"""`hero-plugin data timelines`, `descriptions`, `timelines-figure`, `timelines-oracle`: simulated perception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hero_plugin.integrations.annotations import write_annotations
from hero_plugin.integrations.annotations.checks import OnBroken
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import atomic_path
from hero_plugin.integrations.interrupts import Interrupted
from hero_plugin.integrations.progress_bar import bar
from hero_plugin.integrations.reading import read_many, words_of
from hero_plugin.integrations.timelines import (
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
from hero_plugin.integrations.words import load_word_vectors

__all__ = ["descriptions", "timelines", "timelines_figure", "timelines_oracle"]

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]
SCORES = ("R1@0.3", "R1@0.5", "R1@0.7", "mIoU")
PICTURES = ("png", "pdf", "svg")


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
    known, lengths = timelines_of(timelines)
    records = read_many(annotations, lengths, on_broken)
    wanted = {r.video_id for r in read_many(videos_of, lengths, "drop")} if videos_of else None
    with bar(f"reading {words.name}") as progress:
        table = load_word_vectors(words, words_of(records), progress=progress)
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
    known, lengths = timelines_of(timelines)
    records = read_many(train, lengths, on_broken)
    seen, asked = two_writers(read_many([annotations], {}, on_broken))
    if not seen:
        raise UserError(
            f"{annotations} has no video that two people described: ActivityNet-CD's val, test_iid and test_ood have"
        )
    with bar(f"reading {words.name}") as progress:
        table = load_word_vectors(words, words_of([*records, *seen, *asked]), progress=progress)
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

    kind = output.suffix.lstrip(".").lower() or PICTURES[0]
    if kind not in PICTURES:
        raise UserError(f"--output must end in .{', .'.join(PICTURES[:-1])} or .{PICTURES[-1]}, got {output}")
    known, lengths = timelines_of(timelines)
    if video not in known:
        raise UserError(f"{timelines} has no video {video!r}; its names look like {', '.join(list(known)[:3])}")
    records = read_many(annotations, lengths, "drop")
    prototypes = build_prototypes(records, known, load_word_vectors(words, words_of(records)), config, seed=seed)
    figure = timeline_figure(known[video], prototypes, render_video(known[video], prototypes, config, seed))
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)
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

    known, lengths = timelines_of(timelines)
    records = read_many(annotations, lengths, "drop")
    tests = {file.stem: read_many([file], lengths, "drop") for file in test}
    prototypes = build_prototypes(records, known, load_word_vectors(words, words_of(records)), config, seed=seed)
    table = Table("noise", "queries", *SCORES)
    with bar("rendering and grounding") as progress:
        for done, level in enumerate(noise):
            progress(done, len(noise))
            louder = replace(config, noise=level)
            oracle = fit_oracle(records, known, prototypes, louder, seed=seed)
            for name, part in tests.items():
                scores = oracle_scores(oracle, part, known, prototypes, louder, seed=seed)
                table.add_row(f"{level:g}", name, *(f"{scores[metric]:.1f}" for metric in SCORES))
    Console().print(table)
