"""Pages to look at moments in a browser: `show` writes one, one HTML file; `app` serves one."""

import json
import logging
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
import tyro

from hero_plugin.integrations.data import Record
from hero_plugin.integrations.scoring.metrics import nearest_iou
from hero_plugin.integrations.support import DataError, UserError, write_text
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.files import check_free
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.tools.video.decode import SUFFIXES
from hero_plugin.integrations.tools.video.extract import find_videos
from hero_plugin.integrations.tools.video.ground import OpenRunConfig, clock
from hero_plugin.integrations.tools.video.grounder import Answer, VideoGrounder, merged
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.config import AnswerInputs
from hero_plugin.integrations.training.distributed import choose_device
from hero_plugin.integrations.training.load_run import load_run, with_inputs
from hero_plugin.integrations.training.run_folder import RunFolder

POINTS = 200
"""Most points of a relevance curve on the page."""
FOR_SETS = (
    *("annotations", "videos", "features", "words", "query_features", "durations", "on_broken"),
    *("limit", "batch_size"),
)
"""Choices of ``show`` that say nothing about a video file."""


@dataclass(kw_only=True)
class ShowConfig(AnswerInputs):
    """Write a page that shows each query's annotated moment, a run's, and the base's, over the relevance of the clips.

    Queries are those of annotations, or your own about a video file. The page is one file and asks the network for
    nothing; videos are linked where they lie.
    """

    query: tyro.conf.Positional[tuple[str, ...]] = ()
    """With --video: sentences to ask, in quotes."""
    output: Path = Path("moments.html")
    """The HTML file to write."""
    base: Path | None = None
    """Another run to show beside it, such as the base without HERO."""
    annotations: tuple[str, ...] = ()
    """Annotations to show, as PATH or NAME=PATH; none: the run's own test sets."""
    video: Path | None = None
    """A video file to ask instead."""
    videos: Path | None = None
    """Folder of the annotations' videos, VIDEO.mp4 or another ending: a click on a moment plays it."""
    checkpoint: str = "best"
    """best or last."""
    limit: int = 2000
    """Most queries per set; of more, every so many are shown."""
    batch_size: int = 64
    """Queries at once."""
    overwrite: bool = False
    """Replace an existing output."""

    def check(self) -> None:
        """Raise ``UserError`` for what is impossible or does not go together."""
        wrong = too_small(self, limit=1, batch_size=1, threads=0)
        if (self.video is None) != (not self.query):
            wrong.append(
                '--video FILE and sentences go together: hero-plugin show --run RUN --video FILE "a dog jumps"'
            )
        given = [f"--{name.replace('_', '-')}" for name in FOR_SETS if getattr(self, name) != getattr(ShowConfig, name)]
        if self.video is not None and given:
            wrong.append(f"with --video, leave out what is for annotated sets: {', '.join(given)}")
        if self.videos is not None and not self.videos.is_dir():
            wrong.append(f"--videos {self.videos}: no such folder")
        if self.output.is_dir():
            wrong.append(f"--output {self.output}: is a folder; name a file")
        if wrong:
            raise UserError("\n".join(wrong))
        check_free(self.output, self.overwrite)


def main(config: ShowConfig, screen: Screen | None = None) -> Path:
    """Run the command; return the path of the page."""
    screen = screen or Screen()
    config.check()
    if config.threads:
        torch.set_num_threads(config.threads)
    runs = [each for each in (config.base, config.run) if each is not None]
    if config.video is not None:
        shown = ask(runs, config.video, config.query, config)
        title = f"{config.video.name}: {len(config.query)} queries"
    else:
        shown = of_sets(runs, config, screen)
        title = f"Moments of {config.run.name}"
    write_text(config.output, page(title, shown))
    screen.say(f"{config.output}: queries: {len(shown['items'])}; open it in a browser")
    return config.output


def page(title: str, shown: Mapping[str, Any]) -> str:
    """Return the HTML of what ``of_sets`` or ``of_answers`` returned."""
    data = json.dumps({"title": title, **shown}, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    template = (resources.files(__package__) / "show.html").read_text(encoding="utf-8")
    return template.replace("__DATA__", data.replace("<", "\\u003c"), 1)  # "</script>" in a query must end nothing


def of_sets(runs: Sequence[Path], config: ShowConfig, screen: Screen) -> dict[str, Any]:
    """Return what the page shows of annotated sets.

    Raises ``UserError`` where a run has none, or the runs answer different queries.
    """
    models, answers = [], []
    records: list[tuple[str, Record]] = []
    for path in runs:
        run = RunFolder.open(path)
        settings = with_inputs(run.settings(), config, config.annotations, run)
        if not settings.test_sets():
            raise UserError(f"{path}: the run has no test sets; name some with --annotations")
        data = BASES[settings.base].read(settings, dict(settings.test_sets()), screen, for_training=False)
        data.sets = {name: _thinned(each, config.limit) for name, each in data.sets.items()}
        device = choose_device(config.device)
        levels, bridge = (() if settings.base_only else config.levels), config.bridge
        loaded = load_run(run, data, screen, checkpoint=config.checkpoint, device=device, levels=levels, bridge=bridge)
        asked = [(name, record) for name, each in data.sets.items() for record in each]
        if records and [each.query_id for _, each in asked] != [each.query_id for _, each in records]:
            raise UserError(f"{path}: answers other queries than {runs[0]}; name the same sets with --annotations")
        records = asked
        mine: list[Any] = []
        for name, items in loaded.sets.items():
            with screen.working(f"asking {name}", 1):
                found = predict_set(loaded.task, items, config.batch_size, amp=settings.amp, clips=True)
            mine += zip(found.moments[:, 0], found.scores[:, 0], found.relevance, strict=True)
        models.append(settings.model_name)
        answers.append(mine)
    if len(set(models)) < len(models):
        models = [f"{model}, {path.name}" for model, path in zip(models, runs, strict=True)]
    unseen = loaded.vocabulary.unseen
    items = []
    for place, (name, record) in enumerate(records):
        each = [(moment, score) for moment, score, _ in (mine[place] for mine in answers)]
        words = unseen(data.tokenize(record.sentence))
        items.append(_item(record, name, each, answers[-1][place][2], words))
    about = {record.video_id: record.duration for _, record in records}
    inside = sorted(config.videos.iterdir()) if config.videos is not None else []
    files = {each.stem: each for each in inside if each.suffix.lower() in SUFFIXES}
    links = {name: _link(files.get(name), config.output) for name in about}
    if config.videos is not None and not any(links.values()):
        raise UserError(
            f"--videos {config.videos}: no file is called like a video of the sets: {records[0][1].video_id}.mp4, ..."
        )
    videos = {name: {"duration": round(seconds, 2), "src": links[name]} for name, seconds in about.items()}
    return {"models": models, "sets": list(data.sets), "videos": videos, "items": items}


def ask(runs: Sequence[Path], video: Path, queries: Sequence[str], config: ShowConfig) -> dict[str, Any]:
    """Return what the page shows of one's own queries about a video file."""
    grounders = []
    for path in runs:
        plain = path == config.base and RunFolder.open(path).settings().base_only
        grounder = VideoGrounder.from_run(
            path,
            checkpoint=config.checkpoint,
            levels=() if plain else config.levels,
            bridge=config.bridge,
            device=config.device,
        )
        grounders.append(grounder)
    *_, about = [grounder.add(video) for grounder in grounders]
    answers = [(each.settings.model_name, each.ask_all(queries)) for each in grounders]
    unseen = [grounders[-1].unseen(query) for query in queries]
    return of_answers(video.name, about.duration, _link(video, config.output), queries, answers, unseen)


def of_answers(
    name: str,
    duration: float,
    link: str | None,
    queries: Sequence[str],
    answers: Sequence[tuple[str, Sequence[Answer]]],
    unseen: Sequence[Sequence[str]],
    top_k: int = 3,
) -> dict[str, Any]:
    """Return what the page shows of the answers of one or two models about one video; the last one's curve."""
    items = []
    for place, query in enumerate(queries):
        found = [each[place] for _, each in answers]
        record = Record(str(place), name, query, (), duration)
        each = [(np.array(answer.moments[0][:2]), answer.moments[0].score) for answer in found]
        item = _item(record, "", each, found[-1].relevance, unseen[place])
        for said, answer in zip(item["answers"], found, strict=True):
            others = answer.moments[1:top_k]
            said["others"] = [[*_rounded(moment[:2]), round(moment.score, 4)] for moment in others]
        items.append(item)
    videos = {name: {"duration": round(duration, 2), "src": link}}
    return {"models": [model for model, _ in answers], "sets": [""], "videos": videos, "items": items}


def _item(
    record: Record,
    name: str,
    answers: Iterable[tuple[np.ndarray, float]],
    relevance: np.ndarray,
    unseen: Sequence[str],
) -> dict[str, Any]:
    said = []
    for moment, score in answers:
        iou = float(nearest_iou(moment[None], [record.moments])[0]) if record.moments else None
        said.append(
            {"moment": _rounded(moment), "score": round(float(score), 4), "iou": None if iou is None else round(iou, 4)}
        )
    step = -(-len(relevance) // POINTS)
    return {
        "id": record.query_id,
        "set": name,
        "video": record.video_id,
        "query": record.sentence,
        "truth": [_rounded(moment) for moment in record.moments],
        "answers": said,
        "relevance": [round(float(value), 3) for value in relevance[::step]],
        "unseen": list(unseen),
    }


def _rounded(moment: Iterable[float]) -> list[float]:
    return [round(float(time), 2) for time in moment]


def _thinned(records: Sequence[Record], limit: int) -> list[Record]:
    """Return at most ``limit`` records, evenly spread."""
    count = min(limit, len(records))
    return [records[place * len(records) // count] for place in range(count)]


def _link(video: Path | None, output: Path) -> str | None:
    """Return the address of a video as the page has it: relative, so that both can move together."""
    if video is None or video.suffix.lower() not in SUFFIXES:
        return None
    try:
        return quote(Path(os.path.relpath(video.resolve(), output.resolve().parent)).as_posix())
    except ValueError:  # another drive of Windows
        return video.resolve().as_uri()


POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What a browser may load for the page: nothing from anywhere else, whatever Gradio's own page asks for."""
PLACEHOLDER = "a dog jumps into the water"


@dataclass(kw_only=True)
class AppConfig(OpenRunConfig):
    """Open a page in which to ask a run about videos: moments with scores, relevance, and a player.

    The page is served from this machine, to this machine unless --host says otherwise, and sends nothing elsewhere. A
    video is encoded once and kept, so the next question is quick.
    """

    videos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Video files to choose from, or folders of such; others can be dropped on the page."""
    top_k: int = 5
    """Moments to show per query, of those that no better one overlaps by more than half (IoU)."""
    host: str = "127.0.0.1"
    """Address to serve at; 0.0.0.0 lets other machines ask."""
    port: int = 7860
    """Port to serve at; 0 takes a free one."""


def serve(config: AppConfig, screen: Screen | None = None) -> None:
    """Run the command until it is stopped.

    Raises ``UserError`` where Gradio is missing, the run cannot be asked, or the port is taken.
    """
    screen = screen or Screen()
    if wrong := too_small(config, top_k=1, port=0, threads=0):
        raise UserError("\n".join(wrong))
    files = find_videos(config.videos) if config.videos else {}
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(f"no video at {file}")
    with TemporaryDirectory() as dropped, _listening(config.host, config.port) as listening:
        # What is dropped on the page goes when the command ends.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(dropped).resolve())
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        served = application(config.grounder(), files, config.top_k)
        import uvicorn  # comes with Gradio

        class Server(uvicorn.Server):
            def handle_exit(self, sig: int, frame: Any) -> None:
                logging.disable()  # an open page still listens: cutting it off is no error
                super().handle_exit(sig, frame)

        host = f"[{config.host}]" if ":" in config.host else config.host
        screen.say(f"http://{host}:{listening.getsockname()[1]} is open; Ctrl-C ends it")
        Server(uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=1)).run(sockets=[listening])


def application(grounder: VideoGrounder, files: Mapping[str, Path], top_k: int = 5) -> Any:
    """Return the page as an ASGI application, for a choice of videos by name.

    Raises ``UserError`` where Gradio is not installed.
    """
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        raise UserError(f'the page needs Gradio ({error}): pip install "hero-plugin[app]"') from error

    def answer(query: str, chosen: str | None, dropped: str | None, before: dict[str, Any]) -> tuple[Any, ...]:
        file = Path(dropped) if dropped else files.get(chosen or "")
        try:
            if file is None:
                raise UserError("no video yet: choose one, or drop one on the page")
            if not query.strip():
                raise UserError(f"no query yet: type what to look for, such as: {PLACEHOLDER}")
            about = grounder.add(file, str(file))  # files of one name may be dropped
            all_moments, relevance = grounder.ask(query, str(file))
        except (UserError, DataError, OSError) as error:
            why = str(error).replace(str(file), file.name if file else "")
            return f'<p class="wrong">{escape(why)}</p>', gr.update(), gr.update()
        found = Answer(merged(all_moments), relevance)
        answers = {query: found}  # newest first; another video starts anew
        if before.get("file") == file:
            answers |= {text: each for text, each in before["answers"].items() if text != query}
        unseen = {text: grounder.unseen(text) for text in answers}
        link = f"gradio_api/file={quote(file.resolve().as_posix())}"
        model = grounder.settings.model_name
        shown = of_answers(
            file.name,
            about.duration,
            link,
            list(answers),
            [(model, list(answers.values()))],
            list(unseen.values()),
            top_k=top_k,
        )
        frame = f'<iframe title="Moments" srcdoc="{escape(page(file.name, shown))}"></iframe>'
        return _said(found, unseen[query], about.shortfall), frame, {"file": file, "answers": answers}

    with gr.Blocks(title="hero-plugin", analytics_enabled=False) as blocks:
        gr.HTML(STYLE)
        asked = gr.State({})
        with gr.Row():
            names = list(files)
            chosen = gr.Dropdown(names, value=names[0] if names else None, label="Video", visible=bool(names))
            label = "Or drop another one here" if names else "Drop a video here"
            dropped = gr.File(label=label, file_types=["video"], height=120)
        query = gr.Textbox(label="What to look for", placeholder=PLACEHOLDER, max_lines=1, autofocus=True)
        button = gr.Button("Ask", variant="primary")
        said, shown = gr.HTML(elem_id="said"), gr.HTML()
        gr.on([query.submit, button.click], answer, [query, chosen, dropped, asked], [said, shown, asked])
        blocks.load(None, js="() => document.getElementById('said').setAttribute('aria-live', 'polite')")
    allowed = [str(file.resolve()) for file in files.values()]
    # Fonts of the browser's: Gradio may fetch its own.
    theme = gr.themes.Default(font=gr.themes.Font("system-ui"), font_mono=gr.themes.Font("monospace"))
    given: dict[str, Any] = {"allowed_paths": allowed, "theme": theme, "ssr_mode": False}
    return _alone(gr.mount_gradio_app(FastAPI(), blocks, path="/", **given))


STYLE = """<style>
iframe { border: 0; width: 100%; }
footer { display: none !important; }
.wrong { border-left: 4px solid #c0392b; padding-left: .7em; overflow-wrap: anywhere; }
</style>
<h1>Find a moment</h1>"""


def _said(found: Answer, unseen: list[str], shortfall: str) -> str:
    """Return an answer in words, for who does not see the page, too."""
    best = found.moments[0]
    said = [f"Best: {clock(best.start)} to {clock(best.end)}, score {best.score:.2f}."]
    if unseen:
        said.append(f"Training never had: {', '.join(unseen)}.")
    if shortfall:
        said.append(f"Of the file {shortfall}.")
    return f"<p>{escape(' '.join(said))}</p>"


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens there; raise ``UserError`` where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"cannot serve at {host}, port {port} ({error}): name another --port, 0 for a free one"
        ) from error


def _alone(served: Any) -> Any:
    """Return an application whose every answer tells the browser to ask nobody else."""

    async def alone(scope: Any, receive: Any, send: Any) -> None:
        async def answered(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await served(scope, receive, answered)

    return alone
