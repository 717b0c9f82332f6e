"""Output for people: progress and tables."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.errors import LiveError

from hero_plugin.integrations.support import console
from hero_plugin.integrations.support.console import Screen, bar
from hero_plugin.integrations.training.task import brief_scores, scores_table

LINE = {
    "epoch": 2,
    "losses": {"loss": 1.5},
    "metrics": {"val": {"R1@0.3": 50.0, "R1@0.5": 40.0, "R1@0.7": 30.0, "mIoU": 35.0}},
    "seconds": 7.2,
}


def screen(terminal: bool) -> tuple[Screen, io.StringIO]:
    stream = io.StringIO()
    return Screen(Console(file=stream, force_terminal=terminal, width=100), label="run"), stream


def drive(made: Screen) -> None:
    with made.training(epochs=10, steps=4):
        made.position(1, 2)
        made.step()
        made.loss(1.25)
        made.evaluating("val", 3)
        made.evaluated()
        made.epoch_line(LINE, brief_scores(LINE["metrics"]))


def test_without_a_terminal_there_is_one_line_an_epoch():
    made, stream = screen(terminal=False)
    drive(made)
    assert stream.getvalue() == "run  epoch  2/10  loss 1.500  val 50.0/40.0/30.0/35.0  7 s\n"


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(console, "PERIOD", 0.0)
    made, stream = screen(terminal=False)
    drive(made)
    with made.working("drawing", 2) as progress:
        progress(1, 2)
        progress(1, 2)  # no news
    assert stream.getvalue().splitlines() == [
        "run  epoch 2/10: 3 of 4",
        "run  scoring val: 1 of 3  loss 1.250",
        "run  epoch  2/10  loss 1.500  val 50.0/40.0/30.0/35.0  7 s",
        "drawing: 1 of 2",
    ]


def test_reading_says_how_far_it_is_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(console, "PERIOD", 0.0)
    with bar("reading words") as progress:
        progress(1, 4)
    assert capsys.readouterr().err == "reading words: 25 %\n"


def test_on_a_terminal_there_are_bars_as_well():
    made, stream = screen(terminal=True)
    drive(made)
    for part in ("epoch 2/10", "scoring val", "7/40", "50.0/40.0/30.0/35.0"):
        assert part in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


class OneDisplay(Console):
    """A console as of rich 13, which shows one live display and no second one."""

    def set_live(self, live):
        if super().set_live(live) is False:
            raise LiveError("Only one live display may be active at once")
        return True


def test_work_within_work_has_its_bar_below():
    stream = io.StringIO()
    made = Screen(OneDisplay(file=stream, force_terminal=True, width=100))
    with made.working("further sets (runs)", 2) as outer, made.working("reading features", 3) as inner:
        inner(3, 3)
        outer(1, 2)
        made.say("said")
    with made.working("drawing", 1):
        pass
    for part in ("further sets (runs)", "reading features", "said", "drawing"):
        assert part in stream.getvalue()


def test_a_quiet_screen_says_nothing():
    stream = io.StringIO()
    made = Screen(Console(file=stream, force_terminal=True), quiet=True)
    drive(made)
    made.show(scores_table(("set",), {}).terminal())
    assert stream.getvalue() == ""
