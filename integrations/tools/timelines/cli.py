"""The commands ``hero-plugin data timelines``, ``descriptions``, ``timelines-figure`` and ``timelines-oracle``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from hero_plugin.integrations import data
from hero_plugin.integrations.data import Record, WordVectors, read_many
from hero_plugin.integrations.scoring.metrics import SCORES
from hero_plugin.integrations.support import Interrupted, UserError
from hero_plugin.integrations.support.console import bar
from hero_plugin.integrations.support.files import atomic_path
from hero_plugin.integrations.tools.timelines import descriptions as described
from hero_plugin.integrations.tools.timelines import render
from hero_plugin.integrations.tools.timelines.render import Renderer, Timeline, TimelineConfig

PICTURES = ("png", "pdf", "svg")


@dataclass(frozen=True, kw_only=True)
class PrototypeConfig:
    """What decides how the actions look."""

    timelines: Path
    """Charades' action timelines, {VIDEO: {duration, actions: [[class, start, end], ...]}}."""
    words: Path
    """Word vectors, GloVe text or .npz."""
    seed: int = 0
    """Another seed, other prototypes and other noise."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="")] = field(default_factory=TimelineConfig)
    """Strengths; --noise multiplies all errors."""

    def load_timelines(self) -> tuple[dict[str, Timeline], dict[str, float]]:
        """Return the timelines by video, and the videos' lengths."""
        known = render.load_timelines(self.timelines)
        return known, {video: timeline.duration for video, timeline in known.items()}

    def renderer(
        self, training: Sequence[Record], known: Mapping[str, Timeline], others: Sequence[Record] = ()
    ) -> tuple[Renderer, WordVectors]:
        """Return a renderer by training queries, and the vectors of the words of these and of ``others``."""
        with bar(f"reading {self.words.name}") as progress:
            table = data.load_word_vectors(self.words, data.words_of([*training, *others]), progress=progress)
        prototypes = render.build_prototypes(training, known, table, self.strengths, seed=self.seed)
        return Renderer(prototypes, self.strengths, self.seed), table


@dataclass(frozen=True, kw_only=True)
class RenderingConfig(PrototypeConfig):
    """A folder of features to write."""

    output: Path
    """Folder to write the features into."""
    dtype: Literal["float16", "float32"] = "float16"
    """Number type of the files."""
    on_broken: data.OnBroken = "error"
    """Queries that cannot be used: stop (error), or leave them out (drop)."""
    resume: bool = False
    """Go on with a folder that was begun with the same settings."""

    def render(self, timelines: Mapping[str, Timeline], renderer: Renderer, **more: Any) -> render.Rendered:
        """Render the folder; Ctrl-C says how to go on."""
        more |= {"dtype": self.dtype, "resume": self.resume}
        with bar("rendering") as progress:
            try:
                return render.render_folder(self.output, timelines, renderer, progress=progress, **more)
            except KeyboardInterrupt:
                how = f"The same command with --resume goes on in {self.output}"
                raise Interrupted(f"stopped; nothing is half written. {how}") from None


@dataclass(frozen=True, kw_only=True)
class TimelinesConfig(RenderingConfig):
    """Render clip features from human action timelines: a folder of VIDEO.npy, as real features come in."""

    annotations: tuple[Path, ...]
    """TRAINING annotations, whose queries give the actions their semantic half. Never test files."""
    videos_of: tuple[Path, ...] = ()
    """Render only the videos of these annotation files."""


def timelines(config: TimelinesConfig) -> None:
    """Render the folder of ``hero-plugin data timelines``."""
    known, lengths = config.load_timelines()
    training = read_many(config.annotations, durations=lengths, on_broken=config.on_broken)
    wanted = {each.video_id for each in read_many(config.videos_of, durations=lengths, on_broken="drop")} or None
    renderer, _ = config.renderer(training, known)
    files = {"timelines": config.timelines.name, "annotations": [a.name for a in config.annotations]}
    done = config.render(known, renderer, videos=wanted, sources={**files, "words": config.words.name})
    bare = int((renderer.prototypes.queries == 0).sum())
    print(
        f"{config.output}: {done.written} videos rendered, {done.skipped} were there; "
        f"{done.clips} clips of {config.strengths.dim} numbers"
        + (f"; {bare} actions that no query describes are random" if bare else "")
    )


@dataclass(frozen=True, kw_only=True)
class DescriptionsConfig(RenderingConfig):
    """Render clip features of ActivityNet's videos from what one person wrote about them; the other's queries ask.

    For testing, on other videos and in another vocabulary, what was trained on timeline features: --timelines,
    --train, --words, --seed and the strengths must be those of the training features.
    """

    annotations: Path
    """ActivityNet Captions or a split of ActivityNet-CD; its videos that two people described are taken."""
    train: tuple[Path, ...]
    """The training annotations that the training features were rendered with."""
    queries: Path
    """Annotation file to write: the other person's queries."""


def descriptions(config: DescriptionsConfig) -> None:
    """Render the folder of ``hero-plugin data descriptions``, write the queries, and print what can be reached."""
    annotations, queries = config.annotations, config.queries
    read = (annotations, config.timelines, config.words, *config.train)
    if queries.exists() and config.resume and queries.resolve() in [path.resolve() for path in read]:
        raise UserError(f"--queries {queries} is read: name another file to write")
    if queries.exists() and not config.resume:
        raise UserError(f"{queries} exists already: name another file, or add --resume to write the same one again")
    known, lengths = config.load_timelines()
    training = read_many(config.train, durations=lengths, on_broken=config.on_broken)
    seen, asked = described.two_writers(read_many([annotations], durations={}, on_broken=config.on_broken))
    if not seen:
        raise UserError(
            f"{annotations} has no video that two people described: ActivityNet-CD's val, test_iid and test_ood have"
        )
    actions, words = config.renderer(training, known, [*seen, *asked])
    shown, renderer = described.described_timelines(seen, actions, words)
    what = "simulated clip features rendered from what one person wrote about a video"
    files = {"annotations": annotations.name, "timelines": config.timelines.name}
    sources = {**files, "train": [file.name for file in config.train], "words": config.words.name}
    done = config.render(shown, renderer, what=what, sources=sources)
    data.write_annotations(asked, queries, format="activitynet-cd")
    print(f"{config.output}: {done.written} videos rendered from {len(seen)} sentences, {done.skipped} were there")
    print(f"{queries}: {len(asked)} queries of other people about them")
    meanings = [described.sentence_meanings(part, actions.prototypes, words) for part in (asked, seen)]
    table = Table("who answers", *SCORES)
    for who, scores in described.reach(asked, meanings[0], shown, meanings[1], training).items():
        table.add_row(who, *(f"{scores[name]:.1f}" for name in SCORES))
    Console().print(table)


@dataclass(frozen=True, kw_only=True)
class TimelinesFigureConfig(PrototypeConfig):
    """Draw one video: its annotated actions over what its rendered clips show.

    All flags but --video and --output must be those that the features were rendered with.
    """

    annotations: tuple[Path, ...]
    """The training annotations that the features were rendered with."""
    video: str
    """Name of the video."""
    output: Path
    """Picture to write, .png, .pdf or .svg."""


def timelines_figure(config: TimelinesFigureConfig) -> None:
    """Draw the picture of ``hero-plugin data timelines-figure``."""
    from hero_plugin.integrations.tools.timelines.oracle import timeline_figure

    kind = config.output.suffix.lstrip(".").lower() or PICTURES[0]
    if kind not in PICTURES:
        raise UserError(f"--output must end in .{', .'.join(PICTURES[:-1])} or .{PICTURES[-1]}, got {config.output}")
    known, lengths = config.load_timelines()
    if config.video not in known:
        few = ", ".join(list(known)[:3])
        raise UserError(f"{config.timelines} has no video {config.video!r}; its names look like {few}")
    renderer, _ = config.renderer(read_many(config.annotations, durations=lengths, on_broken="drop"), known)
    figure = timeline_figure(known[config.video], renderer)
    with atomic_path(config.output) as temporary:
        figure.savefig(temporary, format=kind, dpi=150)
    print(config.output)


@dataclass(frozen=True, kw_only=True)
class TimelinesOracleConfig(PrototypeConfig):
    """Show how clear timeline features are, by noise: how well someone grounds who knows each query's action."""

    annotations: tuple[Path, ...]
    """Training annotations."""
    test: tuple[Path, ...]
    """Annotations to score."""
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0)
    """Noise levels, one line of the table each."""
    strengths: Annotated[TimelineConfig, tyro.conf.arg(name="config")] = field(default_factory=TimelineConfig)
    """The other strengths."""


def timelines_oracle(config: TimelinesOracleConfig) -> None:
    """Print the table of ``hero-plugin data timelines-oracle``."""
    from hero_plugin.integrations.tools.timelines.oracle import fit_oracle, oracle_scores

    known, lengths = config.load_timelines()
    training = read_many(config.annotations, durations=lengths, on_broken="drop")
    tests = {file.stem: read_many([file], durations=lengths, on_broken="drop") for file in config.test}
    renderer, _ = config.renderer(training, known)
    table = Table("noise", "queries", *SCORES)
    with bar("rendering and grounding") as progress:
        for done, level in enumerate(config.noise):
            progress(done, len(config.noise))
            noisy = replace(renderer, config=replace(config.strengths, noise=level))
            oracle = fit_oracle(training, known, noisy)
            for name, queries in tests.items():
                scores = oracle_scores(oracle, queries, known, noisy)
                table.add_row(f"{level:g}", name, *(f"{scores[each]:.1f}" for each in SCORES))
    Console().print(table)
