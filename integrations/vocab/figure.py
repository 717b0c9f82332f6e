"""Figure of drift: how many queries have unseen words, and which words those are."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hero_plugin.integrations.figures.style import CYCLE, GRID, INK, MUTED, SETTINGS, new_figure
from hero_plugin.integrations.vocab.stats import TestSet

__all__ = ["drift_figure"]

_BINS = ("only seen words", "1 unseen", "2 or more unseen")
_SHADES = (GRID, CYCLE[2], CYCLE[4])
_POS = ("noun", "verb", "adjective", "adverb", "other", "not tagged")


def drift_figure(tests: Sequence[TestSet], training_words: int, top: int = 18) -> Figure:
    """Draw queries by their number of unseen words and, below, each set's most common unseen words."""
    with mpl.rc_context(SETTINGS):
        return _draw(tests, training_words, top)


def _draw(tests: Sequence[TestSet], training_words: int, top: int) -> Figure:
    columns = len(tests)
    figure, axes = new_figure(
        max(7.5, 4.2 * columns),
        1.6 + 0.5 * columns + 0.22 * top,
        2,
        columns,
        height_ratios=(0.55 * columns + 0.5, 0.24 * top),
    )
    grid = axes[0][0].get_gridspec()
    for axis in axes[0]:
        axis.remove()
    shares = figure.add_subplot(grid[0, :])
    for row, test in enumerate(tests):
        left = 0.0
        for shade, width in zip(_SHADES, _shares(test), strict=True):
            shares.barh(row, width, left=left, height=0.62, color=shade)
            if width >= 2.5:
                ink = INK if shade == GRID else "white"
                shares.text(left + width / 2, row, f"{width:.1f}", ha="center", va="center", fontsize=9, color=ink)
            left += width
        shares.text(101, row, f"{test.drift.queries:,} queries", va="center", fontsize=9, color=MUTED)
    shares.set_yticks(range(len(tests)), [test.name for test in tests])
    shares.set(xlim=(0, 100), ylim=(len(tests) - 0.5, -0.5), xlabel="% of queries")
    shares.set_title(f"Queries by unseen words; training has {training_words:,} words", pad=24)
    shares.grid(False)
    shares.tick_params(axis="y", length=0)
    handles = [shares.barh(0, 0, color=shade) for shade in _SHADES]
    shares.legend(handles, _BINS, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    used = {test.pos.get(word.word, "not tagged") for test in tests for word in test.drift.ranking[:top]}
    colors = {pos: CYCLE[place] if pos != "other" else MUTED for place, pos in enumerate(_POS)}
    for column, test in enumerate(tests):
        axis = axes[1][column]
        words = test.drift.ranking[:top]
        for row, word in enumerate(words):
            axis.barh(row, word.queries, height=0.7, color=colors[test.pos.get(word.word, "not tagged")])
            axis.text(word.queries, row, f" {word.queries}", va="center", fontsize=8, color=MUTED)
        axis.set_yticks(range(len(words)), [word.word for word in words], fontsize=9, color=INK)
        axis.set(ylim=(top - 0.4, -0.6), xlabel="queries")
        axis.set_title(f"{test.name}: {len(test.drift.ranking):,} unseen words", fontsize=10)
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axis.grid(axis="y", visible=False)
        axis.tick_params(axis="y", length=0)
    shown = [pos for pos in _POS if pos in used]
    last = axes[1][-1]
    last.legend([last.barh(0, 0, color=colors[pos]) for pos in shown], shown, loc="lower right")
    return figure


def _shares(test: TestSet) -> tuple[float, float, float]:
    numbers, total = test.drift.by_number(), test.drift.queries
    none, one = numbers.get(0, 0), numbers.get(1, 0)
    return 100 * none / total, 100 * one / total, 100 * (total - none - one) / total
