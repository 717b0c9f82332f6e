"""A page to ask a run about videos, in a browser: ``hero-plugin app``."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

import tyro

from hero_plugin.integrations.support import DataError, UserError
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.tools.video.extract import find_videos
from hero_plugin.integrations.tools.video.ground import OpenRunConfig, clock
from hero_plugin.integrations.tools.video.grounder import Answer, VideoGrounder, merged
from hero_plugin.integrations.tools.video.page import of_answers, page

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


def main(config: AppConfig, screen: Screen | None = None) -> None:
    """Run the command until it is stopped.

    Raises:
        UserError: Gradio is missing, the run cannot be asked, or the port is taken.
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
    """Return the page as an ASGI application.

    Args:
        grounder: Who answers.
        files: Videos to choose from, by name.
        top_k: Moments to show per query.

    Raises:
        UserError: Gradio is not installed.
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
            about = grounder.add(file)
            all_moments, relevance = grounder.ask(query, file.stem)
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
    """Return a socket that listens there.

    Raises:
        UserError: It cannot.
    """
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
