"""Check an adapter on real inputs: whether HERO around a base does what it promises, point by point."""

import functools
import random
import textwrap
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hero_plugin import levels
from hero_plugin.adapters.checking.compare import Fault
from hero_plugin.adapters.checking.trial import NothingToCheck, Trial, first_words
from hero_plugin.protocol import Grounder
from hero_plugin.wrap import checked_adapter, find_hero_model

WIDTH = 100
CAUSES = ("embed gives a pair", "off is the base", "one level is the base", "words padded right", "clips padded right")
"""Checks whose faults make others fail, the first cause first."""


@dataclass(frozen=True)
class Finding:
    """One row of a report."""

    check: str
    result: Literal["passed", "failed", "skipped"]
    figure: float | None = None
    """The largest difference, as a share of the output's largest value; None where nothing was compared."""
    note: str = ""
    """What is wrong and what to change; of a skipped check, why it was skipped."""


@dataclass(frozen=True)
class AdapterReport:
    """What ``check_adapter`` found. ``str(report)`` is a table."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> list[Finding]:
        """The rows of the checks that failed."""
        return [finding for finding in self.findings if finding.result == "failed"]

    def raise_for_failures(self) -> None:
        """Raise ``ValueError`` with the table where a check failed."""
        if not self.ok:
            raise ValueError(f"{len(self.failures)} of {len(self.findings)} checks failed:\n{self}")

    def __str__(self) -> str:
        names = max(len("check"), *(len(finding.check) for finding in self.findings))
        lines = [f"{'check':{names}}  result   figure   what to change"]
        for finding in self.findings:
            figure = "" if finding.figure is None else f"{finding.figure:.1e}"
            start = f"{finding.check:{names}}  {finding.result:7}  {figure:7}  "
            note = textwrap.wrap(finding.note, WIDTH - len(start)) or [""]
            lines += [(start + note[0]).rstrip(), *(" " * len(start) + line for line in note[1:])]
        if len(self.failures) > 2:
            failed = [finding.check for finding in self.failures]
            first = next((name for name in CAUSES if name in failed), failed[0])
            lines.append(f"{len(failed)} checks failed. Begin with {first!r}: the others may fail for the same reason.")
        return "\n".join(lines)


def check_adapter(
    model: nn.Module, *inputs: Any, adapter: Callable[[nn.Module], Grounder] | None = None, **named: Any
) -> AdapterReport:
    """Check on real inputs that HERO fits a base: its adapter, its kinds, its padding, its gradients.

    A fresh wrapper goes around a copy of the base, without its dropout. The model, its mode, the inputs and the random
    generators stay as they are. A check that fails, or raises an error, is a row of the report; the others still run.

    Args:
        model: a base, or a wrapped model, also inside what torch puts around it.
        *inputs: a batch as the base's forward takes it, best of three samples or more that differ in length.
        adapter: as in ``wrap_model``, for a bare base.
        **named: arguments of the forward that are given by name.

    Returns:
        The report: ``print(report)`` shows what failed and what to change, ``report.ok`` whether all is well.

    Raises:
        TypeError: as ``wrap_model``: no adapter knows the base, or it lacks what its adapter needs.
        ValueError: the base itself does not run on these inputs.

    Example:
        >>> check_adapter(model, video, query, video_mask, query_mask).raise_for_failures()
    """
    wrapped = find_hero_model(model)
    base = model if wrapped is None else wrapped.base
    make = checked_adapter(base, adapter) if wrapped is None else wrapped.adapter
    devices = sorted({parameter.get_device() for parameter in base.parameters() if parameter.is_cuda})
    state, numpys = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.no_grad():
            return AdapterReport(tuple(_findings(Trial(base, make, (inputs, named), wrapped))))
    finally:
        random.setstate(state)
        np.random.set_state(numpys)


def _findings(trial: Trial) -> Iterator[Finding]:
    """Run every check."""
    seen: set[str] = set()
    for name, check, advice in _checks(trial):
        torch.manual_seed(0)
        try:
            yield Finding(name, "passed", check())
        except NothingToCheck as reason:
            yield Finding(name, "skipped", note=str(reason))
        except Fault as fault:
            yield Finding(name, "failed", fault.figure, f"{fault}. {advice}")
        except Exception as error:  # an adapter may raise anything
            said = f"{type(error).__name__}{_place(error)}: {first_words(error)}"
            yield Finding(name, "failed", None, "as above" if said in seen else f"{said}. {advice}")
            seen.add(said)


def _place(error: Exception) -> str:
    """Return where the adapter, or the base, raised the error."""
    own = (*(str(Path(file).parent) for file in (levels.__file__, __file__, torch.__file__)), functools.__file__)
    theirs = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(own)]
    return f" at {Path(theirs[-1].filename).name}:{theirs[-1].lineno}" if theirs else ""


def _checks(trial: Trial) -> Iterator[tuple[str, Callable[[], float | None], str]]:
    """Name every check, and say what to change where it fails."""
    whole = "embed and ground together must run all that the base's forward does, once"
    size = "Nothing may squeeze the batch away, count on its size, or keep it for the next call"
    yield "embed gives a pair", trial.pair, "Pair says which shapes embed has to give"
    yield "off is the base", trial.off, "The base, or its adapter, keeps something from one call to the next"
    yield "one level is the base", trial.one_level, whole
    for mode in ("eval", "train"):
        yield (
            f"fresh is the base, {mode}",
            functools.partial(trial.fresh, mode == "train"),
            "The rows of padding say more",
        )
    reads = (
        "Hand query_mask on to all that reads words. If the base itself reads padded ones, say reads_padding=True, of "
        "Pair or TwoStage"
    )
    for what, mask, advice in (("words", "query_mask", reads), ("clips", "video_mask", whole)):
        for side in ("right", "left"):
            yield f"{what} padded {side}", functools.partial(trial.padded, mask, side == "left"), advice
    yield "every output has a kind", trial.kinds, "Name each output in kinds: without, it is summed as logits"
    extra = "Look at Pair.extra, its per_sample and constant, and at what ground compares within the batch"
    yield "levels one by one", trial.one_by_one, extra
    yield "batch of one", functools.partial(trial.batch_of, 1), size
    yield "odd last batch", functools.partial(trial.batch_of, None), size
    yield "relate is ground's relevance", trial.relate, "relate must give what ground gives as relevance"
    yield "gradients arrive", trial.gradients, "Nothing may be detached on the way from embed to outputs and relevance"
    yield "the pair is left alone", trial.pair_is_left, "Other levels still need it: write into a copy"
    yield "the base is left alone", trial.base_is_left, "embed, ground and relate may read the base, not change it"
