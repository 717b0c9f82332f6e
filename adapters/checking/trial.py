"""One base and its adapter under test: what ``check_adapter`` runs."""

import copy
import math
import random
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hero_plugin.adapters.checking.compare import Fault, agree, distance, gaps, looks_like, rounding
from hero_plugin.aggregation import MASKED
from hero_plugin.config import HeroConfig
from hero_plugin.levels import map_tensors, stack, tensors_of, unfold
from hero_plugin.losses import without_hero
from hero_plugin.model import HeroModel
from hero_plugin.protocol import Grounder, Pair
from hero_plugin.tensors import check_mask

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a forward, by place and by name."""


def first_words(error: Exception) -> str:
    """Return an error's message, shortened."""
    return textwrap.shorten(str(error), 200)


def copied(structure: Any) -> Any:
    """Return the structure with a copy of every tensor: a base may write into what it is given."""
    return map_tensors(lambda tensor, key: tensor.detach().clone(), structure)


def call(model: nn.Module, given: Inputs, seed: int = 0) -> Any:
    """Return the model's outputs for a copy of these inputs, without the entry that HERO adds while training."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    args, named = copied(given)
    return without_hero(model(*args, **named))


def signal(outputs: Any) -> Tensor:
    """Return a smooth loss that every output with a gradient takes part in; padding does not."""
    parts = [tensor[tensor > MASKED].float() for _, tensor in tensors_of(outputs) if tensor.requires_grad]
    if not parts:
        raise Fault("no output has a gradient")
    return torch.stack([F.softplus(part).mean() for part in parts if part.numel()]).sum()


def learning(model: nn.Module, loss: Any) -> dict[str, bool]:
    """Return the parameters that a backward reaches, and whether with anything but zeros."""
    model.zero_grad(set_to_none=True)
    loss.backward()
    found = {name: bool(p.grad.any()) for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def reaches(relevance: Tensor | None, leaf: Tensor) -> bool:
    """Return whether the gradient of relevance logits gets to this leaf."""
    if relevance is None or not relevance.requires_grad:
        return False
    real = relevance[relevance > MASKED]
    weighed = (real * torch.linspace(0.5, 1.5, real.numel()).to(real)).sum()
    (gradient,) = torch.autograd.grad(weighed, leaf, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(gradient.any())


LEVELS = 2


class NothingToCheck(Exception):
    """Why a check says nothing here."""


class Trial:
    """A copy of a base, with its adapter. A check returns its figure, or None; where something is wrong it raises.

    Raises:
        ValueError: the base itself does not run on these inputs.
    """

    def __init__(
        self, base: nn.Module, make: Callable[[nn.Module], Grounder], given: Inputs, wrapped: HeroModel | None
    ) -> None:
        self.make, self.given, self.wrapped = make, given, wrapped
        self.base, self.with_dropout = copy.deepcopy(base), copy.deepcopy(base)
        self.allowed = rounding(base.parameters())
        if wrapped is not None and wrapped._frozen is not None:
            wrapped._frozen.restore(self.base)
        for module in self.base.modules():
            for rate in ("p", "dropout", "drop_prob"):
                if isinstance(getattr(module, rate, None), float):
                    setattr(module, rate, 0.0)
        try:
            self.expected = self.answers(given)
        except NothingToCheck as reason:
            raise ValueError(f"{reason}; give check_adapter what the base's own forward takes") from reason
        self.modes = list(self.expected)
        if nan := [name for name, tensor in tensors_of([*self.expected.values()]) if tensor.isnan().all()]:
            raise ValueError(f"the base's output {nan[0]!r} is NaN throughout, and nothing can be compared")

    # What the checks look at.

    @cached_property
    def model(self) -> HeroModel:
        """A fresh wrapper."""
        grounder = self.make(self.base)
        relevance: Literal["base", "pair"] = "base"
        with suppress(Exception):  # a check will say so
            if self.wrapped is not None:
                relevance = self.wrapped.config.relevance
            elif grounder.ground(self._embed(grounder)).relevance is None:
                relevance = "pair"
        config = HeroConfig(levels=LEVELS, stride=1, dropout=0.0, num_heads=math.gcd(8, grounder.dim))
        return HeroModel(self.base, replace(config, relevance=relevance), self.make)

    @cached_property
    def moved(self) -> HeroModel:
        """A wrapper whose levels differ, as after a training."""
        model = HeroModel(self.base, self.model.config, self.make)
        for parameter in model.hero.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape).to(parameter)
        return model

    def embed(self, given: Inputs | None = None, training: bool | None = None) -> Pair:
        """Return the pair of these inputs, in the first mode that the base runs in or another."""
        return self._embed(self.model.grounder, given, training)

    def _embed(self, grounder: Grounder, given: Inputs | None = None, training: bool | None = None) -> Pair:
        self.base.train(self.modes[0] if training is None else training)
        args, named = copied(given or self.given)
        return grounder.embed(*args, **named)

    def at_levels(self, training: bool | None = None) -> tuple[Pair, Tensor, Tensor]:
        """Return the pair, and clips and words of levels that differ, (N, B, T, D) and (N, B, L, D)."""
        pair, hero = self.embed(training=training), self.moved.hero
        words = hero.words(pair.query, pair.query_mask)
        return pair, hero.clips(pair.video, words, pair.query_mask), words

    def unfolded(self, pair: Pair, clips: Tensor, words: Tensor) -> Any:
        """Return the outputs of all levels in one batch, (N, B, ...)."""
        grounder = self.model.grounder
        outputs = grounder.ground(pair.at_levels(clips, words)).outputs
        return unfold(outputs, LEVELS, grounder.kinds, len(pair.video), getattr(grounder, "part_of_batch", ()))

    def answers(self, given: Inputs, modes: Sequence[bool] = (False, True)) -> dict[bool, Any]:
        """Return what the base itself answers, in each of these modes that it runs in: training or not."""
        found: dict[bool, Any] = {}
        for training in modes:
            try:
                found[training] = call(self.base.train(training), given)
            except Exception as error:  # the base's own, which says nothing of its adapter
                refused = f"the base itself does not run on these inputs: {type(error).__name__}: {first_words(error)}"
        if not found:
            raise NothingToCheck(refused)
        return found

    @cached_property
    def random_modes(self) -> list[bool]:
        """The modes in which the base draws at random, also without dropout."""
        again = {training: call(self.base.train(training), self.given, seed=1) for training in self.modes}
        return [mode for mode, one in again.items() if max(gaps(self.expected[mode], one).values()) > self.allowed]

    def behind_seam(self, given: Inputs, training: bool) -> Any:
        """Return the base's outputs by HERO's way, without HERO."""
        grounder, pair = self.model.grounder, self.embed(given, training)
        outputs = grounder.ground(pair).outputs
        return grounder.complete(outputs, pair) if hasattr(grounder, "complete") else outputs

    def cut(self, rows: list[int]) -> Inputs:
        """Return the inputs of these samples."""
        batch = len(self.embed().video)

        def of_samples(items: list[Any], key: str) -> list[Any] | None:
            tensors = [tensor for _, tensor in tensors_of(items)]
            whole = tensors and all(tensor.shape[:1] == (batch,) for tensor in tensors)
            return [items[row] for row in rows] if len(items) == batch and not whole else None

        return map_tensors(lambda x, _: x[rows] if x.shape[:1] == (batch,) else x, self.given, on_list=of_samples)

    # The checks, in the order of the report.

    def pair(self) -> None:
        """Ask whether ``embed`` gives clips and words of width D, with masks."""
        pair, dim = self.embed(), self.model.grounder.dim
        for name, mask_name, axes in (("video", "video_mask", "B, T"), ("query", "query_mask", "B, L")):
            tensor, mask = getattr(pair, name), getattr(pair, mask_name)
            if tensor.ndim != 3 or tensor.shape[-1] != dim or len(tensor) != len(pair.video):
                raise Fault(f"{name} must be ({axes}, D) with D = {dim}, got {tuple(tensor.shape)}")
            _expect_shape(mask_name, mask, tensor.shape[:2])
            what = "clips" if name == "video" else "words"
            check_mask(mask_name, what, mask)
            if empty := [row for row, real in enumerate(mask.bool().any(-1).tolist()) if not real]:
                raise Fault(f"{mask_name} has no real {what} in sample {empty[0]}: a mask that is 1 at padding?")

    def off(self) -> float:
        """Compare the wrapper with HERO off with the base, bit for bit, dropout included."""
        off = HeroModel(self.with_dropout, HeroConfig.off(), self.make)
        for training in self.modes:
            expected, found = (call(one.train(training), self.given) for one in (self.with_dropout, off))
            agree(expected, found, 0.0)
        return 0.0

    def one_level(self) -> float:
        """Compare the base by HERO's way, without HERO, with the base."""
        return max(agree(x, self.behind_seam(self.given, mode), self.allowed) for mode, x in self.expected.items())

    def fresh(self, training: bool, given: Inputs | None = None) -> float:
        """Compare a fresh wrapper with the base."""
        given = given or self.given
        expected = self.answers(given, [training])[training]
        if training in self.random_modes:
            raise NothingToCheck("the base draws at random in this mode: two runs of it differ")
        return agree(expected, call(self.model.train(training), given), self.allowed)

    def padded(self, name: str, left: bool) -> float:
        """Compare a fresh wrapper with the base under another mask, of the words or of the clips."""
        mask = getattr(self.embed(), name)
        batch, length = mask.shape
        # The first sample stays whole, where there are others: a base may cut padding that all of them have.
        cut = torch.arange(batch) * max(1, length // (2 * batch)) if batch > 1 else torch.ones(1)
        place = torch.arange(length).expand(batch, -1)
        real = (place.flip(-1) if left else place) < (length - cut.unsqueeze(-1)).clamp(min=1)
        wanted = real.to(mask.device)

        def masked(tensor: Tensor, key: str) -> Tensor:
            if tensor.shape == mask.shape and torch.equal(tensor.to(mask), mask):
                return wanted.to(tensor)
            is_padding = tensor.dtype == torch.bool and torch.equal(~tensor, mask.bool())
            return ~wanted if is_padding else tensor

        given = map_tensors(masked, self.given)
        if length < 2 or not torch.equal(getattr(self.embed(given), name).bool(), wanted):
            raise NothingToCheck(f"no input is the {name} that embed gives")
        return self.fresh(self.modes[0], given)

    def kinds(self) -> None:
        """Ask whether every output has a kind, and values that go with it."""
        kinds = self.model.grounder.kinds
        pair, clips, words = self.at_levels()
        outputs = tensors_of(self.unfolded(pair, clips, words))
        whole = [name for name, tensor in outputs if not tensor.is_floating_point() and name not in kinds]
        for _ in range(8 if whole else 0):  # a whole number, as of an argmax, takes more than noise to change
            noise = words + 3 * words.float().std().to(words) * torch.randn(words.shape).to(words)
            again = dict(tensors_of(self.unfolded(pair, clips, noise)))
            outputs += [(name, again[name]) for name in whole]
        faults = [fault for name, levels in outputs if (fault := self.misfit(name, levels, kinds.get(name)))]
        known = {name for name, _ in outputs} | set(getattr(self.model.grounder, "optional_outputs", ()))
        faults += [f"kinds has {name!r}, which is no output" for name in kinds if name not in known]
        if faults:
            raise Fault("; ".join(dict.fromkeys(faults)))

    def misfit(self, name: str, levels: Tensor, kind: str | None) -> str:
        """Say what is wrong with the kind of an output (N, B, ...); empty where nothing is."""
        looks = looks_like(levels, self.allowed)
        if kind not in ("shared", "whole") and levels.ndim == 1 and levels.is_floating_point():
            return f"{name!r} is one number, of a loss, say: compute it outside, from the combined outputs"
        if kind is None and levels.is_floating_point():
            return f"{name!r} has none, and looks like {looks!r}"
        if kind == "probability" and levels.numel() and (levels.min() < -1e-3 or levels.max() > 1 + 1e-3):
            return f"{name!r} is called a probability, but has values outside [0, 1]"
        if kind == "direction" and looks not in ("direction", "shared"):
            return f"{name!r} is called a direction, but its vectors are not of unit length"
        if kind in ("shared", None) and looks != "shared":
            outside = "" if levels.is_floating_point() else ": compute it outside, from the combined outputs"
            return f"{name!r} is taken from level 0, but it depends on the query{outside}"
        return ""

    def one_by_one(self) -> float:
        """Compare all levels in one batch with the levels one after the other."""
        grounder, (pair, clips, words) = self.model.grounder, self.at_levels()
        levels = zip(clips.split(1), words.split(1), strict=True)
        single = stack([grounder.ground(pair.at_levels(*level)).outputs for level in levels], grounder.kinds)
        # A negative pair is of two neighbours: those at the edge of a level meet one of another level.
        return agree(single, self.unfolded(pair, clips, words), self.allowed, edges=self.reads_neighbours())

    def reads_neighbours(self) -> set[str]:
        """Return the outputs of which a sample's depends on the others in the batch."""
        batch, mode = len(self.embed().video), self.modes[0]
        other = self.answers(self.cut([*range(batch - 1), 0]), [mode])[mode]
        inner = [map_tensors(lambda x, _: x[: batch - 1] if x.ndim else x, one) for one in (self.expected[mode], other)]
        return {name for name, gap in gaps(*inner).items() if gap > self.allowed}

    def batch_of(self, size: int | None) -> float:
        """Compare a fresh wrapper with the base in a batch of another size, also where one level answers."""
        batch = len(self.embed().video)
        given = self.cut([row % batch for row in range(size or (batch - 1 if batch > 2 else batch + 1))])
        worst = 0.0
        for training, expected in self.answers(given).items():
            found = [self.behind_seam(given, training), call(self.model.train(training), given)]
            last = self.model.last_forward
            if last.relevance is not None and last.video_mask is not None:
                _expect_shape("relevance", last.relevance, last.video_mask.shape)
            if not training:
                found.append(call(self.model.keep_level(1), given))
                self.model.keep_level()
            worst = max(worst, *(agree(expected, one, self.allowed) for one in found))
        return worst

    def relate(self) -> float:
        """Compare what ``relate`` gives with the relevance of ``ground``."""
        grounder, (pair, clips, words) = self.model.grounder, self.at_levels()
        if self.model.config.relevance == "pair":
            raise NothingToCheck("not used: HERO's own head scores the clips (relevance='pair')")
        worst, inside = 0.0, True
        for one in (pair, pair.at_levels(clips, words)):
            expected, real = grounder.ground(one).relevance, one.video_mask.bool()
            if expected is None:
                raise Fault("ground gives no relevance: give one, or wrap the base with relevance='pair'")
            _expect_shape("the relevance of ground", expected, real.shape)
            inside &= bool(((expected[real] >= 0) & (expected[real] <= 1)).all())
            found = grounder.relate(one)
            _expect_shape("the relevance of relate", found, real.shape)
            worst = max(worst, distance(expected[real], found[real]))
            if worst > self.allowed:
                raise Fault("the two differ", worst)
        if inside:
            raise Fault("all relevance is in [0, 1], as probabilities are: return logits, as before a sigmoid")
        return worst

    @torch.enable_grad()
    def gradients(self) -> None:
        """Ask whether all learns that learns in the base without HERO, and all of HERO."""
        training = self.modes[-1]
        try:
            alone = learning(self.base, signal(call(self.base.train(training), self.given)))
        except Fault:  # nothing of the base learns
            alone = {}
        except Exception as error:
            raise NothingToCheck(
                f"the base itself has no backward here: {type(error).__name__}: {first_words(error)}"
            ) from error
        model = self.moved.train(training)
        pair, *levels = self.at_levels(training)
        clips, words = (each.detach().requires_grad_() for each in levels)
        if model.config.relevance == "base":
            one = pair.at_levels(clips, words)
            for name, relevance in (
                ("ground", model.grounder.ground(one).relevance),
                ("relate", model.grounder.relate(one)),
            ):
                for what, leaf in (("clips", clips), ("words", words)):
                    if not reaches(relevance, leaf):
                        raise Fault(f"the relevance of {name} has no gradient for the {what}")
        outputs = call(model, self.given)
        mask = model.last_forward.video_mask
        assert mask is not None  # a forward with HERO has just been
        inside = torch.arange(mask.shape[1], device=mask.device).expand_as(mask) < mask.shape[1] / 2
        there = learning(model, signal(outputs) + model.weighted_hero_loss(inside))
        wanted = {f"base.{name}" for name, moves in alone.items() if moves}
        missing = sorted(name for name in wanted if not there.get(name))
        # Masked words, and what serves them, are there in training alone.
        hero = [f"hero.{name}" for name, _ in model.hero.named_parameters() if training or not name.startswith("cmtr.")]
        missing += [name for name in hero if name not in there]
        if missing:
            raise Fault(f"no gradient in {len(missing)} parameters: {', '.join(missing[:3])}")

    def pair_is_left(self) -> None:
        """Ask whether ``ground`` and ``relate`` write into what they are given."""
        grounder, (pair, clips, words) = self.model.grounder, self.at_levels()
        # Where a base multiplies by its masks in place, zeros at padding would hide it.
        junk = [(~mask.bool()).to(clips.dtype).unsqueeze(-1) for mask in (pair.video_mask, pair.query_mask)]
        one = pair.at_levels(clips + junk[0], words + junk[1])
        before = copied({"pair": one})
        for name in ("ground",) if self.model.config.relevance == "pair" else ("ground", "relate"):
            getattr(grounder, name)(one)
            if written := [part for part, gap in gaps(before, {"pair": one}).items() if gap > 0]:
                raise Fault(f"{name} writes into {', '.join(written)}")

    def base_is_left(self) -> None:
        """Ask whether a forward leaves the base's modes and, in eval mode, its weights and buffers as they are."""
        for training in self.modes:
            self.model.train(training)
            modes = {name: module.training for name, module in self.base.named_modules()}
            call(self.model, self.given)  # what is made once, at the first call, is there
            before = copied(dict(self.base.state_dict()))
            call(self.model, self.given)
            if self.model.config.relevance == "base":
                self.model.grounder.relate(self.embed(training=training))
            if turned := [name for name, module in self.base.named_modules() if module.training is not modes[name]]:
                raise Fault(f"the mode of {', '.join(name or 'the base' for name in turned[:3])} changes")
            moved = [name for name, gap in gaps(before, dict(self.base.state_dict())).items() if gap > 0]
            if moved and not training:
                raise Fault(f"{', '.join(moved[:3])} changes in eval mode")


def _expect_shape(name: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tensor.shape != tuple(shape):
        raise Fault(f"{name} must be {tuple(shape)}, got {tuple(tensor.shape)}")
