"""Moments of a video file, as a table, JSON or clips cut out: ``hero-plugin ground``."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from hero_plugin.integrations.support import UserError, write_json
from hero_plugin.integrations.support.console import Screen
from hero_plugin.integrations.support.files import atomic_path, check_free
from hero_plugin.integrations.support.settings import too_small
from hero_plugin.integrations.support.tables import Cell, Row, Table
from hero_plugin.integrations.tools.video.decode import STREAMS, broken, need_av, upright
from hero_plugin.integrations.tools.video.grounder import Answer, VideoGrounder
from hero_plugin.integrations.training.distributed import Amp


@dataclass(kw_only=True)
class OpenRunConfig:
    """The flags of commands that ask a run about video files."""

    run: Path
    """Folder of a run that was trained on features of hero-plugin data extract."""
    checkpoint: str = "best"
    """best or last."""
    levels: tuple[int, ...] = ()
    """The levels of HERO that answer, from 0, instead of those that the run chose."""
    bridge: bool = False
    """Read words that training never had as mixtures of those that it had and that fit."""
    encoder: tuple[str, ...] = ()
    """Where the encoders of the run's features lie now, in their order, if they have moved."""
    download: bool = False
    """Fetch an encoder that is not on this machine."""
    cache: Path | None = None
    """Folder in which videos' features are kept; unless given, one in your home."""
    device: str = "auto"
    """auto takes CUDA where there is one."""
    amp: Amp = "none"
    """Half precision of the encoders; fp16 on CUDA only."""
    threads: int = 0
    """CPU threads; 0 leaves torch's choice."""

    def grounder(self) -> VideoGrounder:
        """Open the run."""
        if self.threads:
            torch.set_num_threads(self.threads)
        same = {each: getattr(self, each) for each in ("checkpoint", "levels", "bridge", "device", "amp", "download")}
        return VideoGrounder.from_run(self.run, cache=self.cache or "", encoders=self.encoder, **same)


@dataclass(kw_only=True)
class GroundConfig(OpenRunConfig):
    """Ask a run about a video file: the moments of each query, with scores.

    The video is encoded once and kept, so the next question is quick.
    """

    video: tyro.conf.Positional[Path]
    """The file."""
    query: tyro.conf.Positional[tuple[str, ...]] = ()
    """Sentences, in quotes."""
    queries: Path | None = None
    """Or a text file of them, one per line."""
    top_k: int = 5
    """Moments to show per query."""
    json: Path | None = None
    """Write all moments and the relevance of each clip here."""
    cut: Path | None = None
    """Cut the moments that are shown out of the video, into this folder, as VIDEO-NUMBER-RANK.mp4."""
    overwrite: bool = False
    """Replace such files that are there."""

    def sentences(self) -> list[str]:
        """Return the queries; raise ``UserError`` where there are none, or flags are impossible."""
        wrong = too_small(self, top_k=1, threads=0)
        found = list(self.query)
        if self.queries is not None:
            if not self.queries.is_file():
                wrong.append(f"--queries {self.queries}: no such file")
            else:
                found += [line for line in self.queries.read_text("utf-8-sig").splitlines() if line.strip()]
        if not found and not wrong:
            wrong.append('no query: hero-plugin ground VIDEO "a person opens the door" --run RUN')
        if wrong:
            raise UserError("\n".join(wrong))
        return found

    def pieces(self, queries: int) -> dict[tuple[int, int], Path]:
        """Return the file of each moment that may be cut out, by the number of its query and its rank."""
        folder, ranks = self.cut or Path(), range(1, self.top_k + 1)
        places = product(range(1, queries + 1), ranks)
        return {place: folder / f"{self.video.stem}-{place[0]}-{place[1]}.mp4" for place in places}


def main(config: GroundConfig, screen: Screen | None = None) -> list[Answer]:
    """Run the command; return the answers, in the order of the queries."""
    screen = screen or Screen()
    queries = config.sentences()
    grounder = config.grounder()
    for query in queries:
        if not grounder.words_of(query):
            raise UserError(f"no word in the query {query!r}: say what to look for")
    pieces = config.pieces(len(queries))
    for target in [*([config.json] if config.json else []), *(pieces.values() if config.cut else ())]:
        check_free(target, config.overwrite, config.video)
    video = grounder.add(config.video)
    if video.shortfall:
        screen.say(f"note: {config.video}: {video.shortfall}; answers are about what is there")
    answers = grounder.ask_all(queries)
    unseen = {query: grounder.unseen(query) for query in queries}
    for line in grounder.bridged(queries):
        screen.say(f"bridge: {line}")
    show(queries, answers, unseen, config.top_k, screen)
    if config.json is not None:
        about = {"video": str(config.video), "run": str(config.run), "duration": video.duration}
        rows = [answer_json(query, answer, unseen[query]) for query, answer in zip(queries, answers, strict=True)]
        write_json(config.json, {**about, "clip_seconds": video.clip_seconds, "answers": rows}, ascii=False)
        screen.say(f"written: {config.json}")
    if config.cut is not None:
        for (number, rank), target in pieces.items():
            if rank <= len(answers[number - 1].moments):
                moment = answers[number - 1].moments[rank - 1]
                cut(config.video, moment.start, moment.end, target)
                screen.say(f"cut: {target}")
    return answers


def show(
    queries: Sequence[str], answers: Sequence[Answer], unseen: dict[str, list[str]], top_k: int, screen: Screen
) -> None:
    """Show the best moments of each query."""
    rows = []
    for query, answer in zip(queries, answers, strict=True):
        said = query + (f" (untrained: {', '.join(unseen[query])})" if unseen[query] else "")
        for rank, moment in enumerate(answer.moments[:top_k], 1):
            times = clock(moment.start), clock(moment.end)
            rows.append(Row((said, str(rank), *times), (Cell.of(moment.score),)))
    counts = ("rank", "from", "to")
    screen.show(Table(("query", *counts), ("score",), rows, counts=counts, shared=1, digits=3).terminal())


def answer_json(query: str, answer: Answer, unseen: Sequence[str]) -> dict[str, Any]:
    """Return an answer as JSON values: moments are [start, end, score], in seconds."""
    return {
        "query": query,
        "moments": [[round(start, 3), round(end, 3), round(score, 6)] for start, end, score in answer.moments],
        "relevance": [round(float(value), 4) for value in answer.relevance],
        "unseen": list(unseen),
    }


def clock(seconds: float) -> str:
    """Return a time as people read it.

    >>> clock(75.25), clock(3600)
    ('1:15.2', '1:00:00.0')
    """
    tenths = round(seconds * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest / 10:04.1f}" if hours else f"{minutes}:{rest / 10:04.1f}"


TICKS = 90000
"""Of a second, in the clips that are cut out."""


def cut(source: Path, start: float, end: float, target: Path) -> None:
    """Cut a stretch out of a video, to the frame, with its sound, as MP4; it appears whole or not at all.

    Its first picture is the one that is on screen at ``start``. Raises ``DataError`` where no picture is in the
    stretch.
    """
    av = need_av()
    with atomic_path(target, durable=False) as temporary, av.open(str(source)) as given:
        zero = (given.start_time or 0) / av.time_base
        pictures = given.streams.video[0]
        sounds = given.streams.audio[0] if given.streams.audio else None
        rate = pictures.average_rate or 25
        length, step = round((end - start) * TICKS), round(TICKS / rate)
        with av.open(str(temporary), "w", format="mp4") as made:
            codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
            video = made.add_stream(codec, rate=rate)
            video.pix_fmt, video.codec_context.time_base = "yuv420p", Fraction(1, TICKS)
            sound = made.add_stream("aac", rate=sounds.rate) if sounds is not None else None
            heard: list[Any] = []  # until a picture is written: only the first one says how large the video is
            shown, since, written = None, 0, False

            def write(until: int) -> bool:
                """Write the picture that is on screen until then; return whether that is in the stretch."""
                first, last = max(since, 0), min(until, length)
                if last <= first:
                    return False
                picture = upright(shown, 0, "crop")
                picture = np.ascontiguousarray(picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2])
                if not written:
                    video.height, video.width = picture.shape[:2]
                # The last picture of a file is shown for one step: one that stays longer is written again at its end.
                again = [last - step] if last == length and last - first > 1.5 * step else []
                for time in (first, *again):
                    out = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    out.pts, out.time_base = time, Fraction(1, TICKS)
                    made.mux(video.encode(out))
                made.mux(heard)
                heard.clear()
                return True

            if given.format.name not in STREAMS:  # where a seek may land behind the picture that is wanted
                given.seek(max(0, int((start + zero) * av.time_base)))
            for frame in given.decode(*(each for each in (pictures, sounds) if each is not None)):
                time = float(frame.pts * frame.time_base) - zero if frame.pts is not None else start
                if isinstance(frame, av.VideoFrame):
                    at = round((time - start) * TICKS)
                    if shown is not None:
                        written |= write(at)
                    shown, since = frame, at
                    if at >= length:
                        break
                elif sound is not None and start <= time < end:
                    frame.pts = round((time - start) / frame.time_base)
                    heard += sound.encode(frame)
            if shown is not None and since < length:  # the last picture of the file
                written |= write(since + step)
            if not written:
                raise broken(source, f"no picture from {start:.1f} to {end:.1f} s")
            made.mux([*heard, *video.encode(None), *(sound.encode(None) if sound is not None else ())])
