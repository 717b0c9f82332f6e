"""How fast HERO shall be, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hero_plugin.integrations.bases import BASE_NAMES, BaseName
from hero_plugin.integrations.bench.cases import Mode, Model, ModelName, device_name
from hero_plugin.integrations.bench.measure import Measurement
from hero_plugin.integrations.bench.timing import Spread

Quantity = Literal["time", "memory"]
Verdict = Literal["met", "not met", "not measured"]
LEVELS = 4


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of two models' step times or peak memory, in one run."""

    letter: str
    base: BaseName
    mode: Mode
    device: str
    over: ModelName
    under: ModelName
    quantity: Quantity
    bound: float
    at_least: bool = False

    @property
    def statement(self) -> str:
        what = "step" if self.mode == "train" else "inference"
        what = what if self.quantity == "time" else "peak memory"
        return f"{what}: {SHORT[self.over]} / {SHORT[self.under]}"

    @property
    def limit(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


SHORT = {
    "plain": "plain base",
    "hero": "HERO",
    "pair": 'HERO with relevance="pair"',
    "checkpoint": "HERO with checkpoint=True",
    "literal": "literal paper",
    "upstream": "upstream's plain base",
}


def _targets() -> Iterable[Target]:
    yield Target("a", "emb", "train", "cpu", "hero", "upstream", "time", 1.0)
    for device, bound in (("cpu", 3.0), ("cuda", 4.0)):
        for base in BASE_NAMES:
            yield Target("b", base, "train", device, "literal", "hero", "time", bound, at_least=True)
    for mode, bound in (("train", 1.6), ("inference", 1.3)):
        for base in BASE_NAMES:
            yield Target("c", base, mode, "cuda", "hero", "plain", "time", bound)
    for device in ("cpu", "cuda"):
        for base in BASE_NAMES:
            yield Target("d", base, "train", device, "pair", "hero", "time", 0.65)
    for device in ("cpu", "cuda"):
        for base in BASE_NAMES:
            yield Target("e", base, "train", device, "hero", "literal", "memory", 1.0)
            yield Target("e", base, "train", device, "checkpoint", "plain", "memory", 2.0)


TARGETS: tuple[Target, ...] = tuple(_targets())


@dataclass(frozen=True)
class Result:
    """A target and what was measured of it."""

    target: Target
    dtype: str
    ratio: Spread | None
    reason: str = ""
    """Why nothing was measured."""

    @property
    def verdict(self) -> Verdict:
        if self.ratio is None:
            return "not measured"
        return "met" if self.target.met(self.ratio.median) else "not met"


def models_for(base: str, mode: Mode, device: str, clones: bool) -> tuple[ModelName, ...]:
    """Models of a base that its targets compare on a device."""
    wanted = [each for each in TARGETS if (each.base, each.mode, each.device) == (base, mode, device)]
    names = dict.fromkeys(name for target in wanted for name in (target.under, target.over))
    return tuple(name for name in names if clones or name != "upstream")


def judge(measurements: Sequence[Measurement]) -> list[Result]:
    """Every target of the measured bases, in every measured number format."""
    found = {(*_place(each), each.model): each for each in measurements}
    bases = {each.setting.base for each in measurements}
    dtypes = dict.fromkeys(each.setting.dtype for each in measurements)
    results = []
    for target in TARGETS:
        for dtype in dtypes if target.base in bases else ():
            place = (target.base, target.mode, target.device, dtype)
            over, under = (found.get((*place, model_of(name))) for name in (target.over, target.under))
            ratio = None if over is None or under is None else ratio_of(over, under, target.quantity)
            results.append(Result(target, dtype, ratio, "" if ratio else why_not(target, measurements)))
    return results


def why_not(target: Target, measurements: Sequence[Measurement]) -> str:
    """Why there is no ratio to judge."""
    there = [each for each in measurements if _place(each)[2] == target.device]
    if not there:
        return f"nothing on a {device_name(target.device)}"
    if "upstream" in (target.over, target.under) and not any(each.model.name == "upstream" for each in there):
        return "no clone: give --upstream"
    return "not asked for" if any(each.seconds for each in there) else "not timed"


def model_of(name: ModelName) -> Model:
    return Model(name, 0 if name in ("plain", "upstream") else LEVELS)


def ratio_of(over: Measurement, under: Measurement, quantity: Quantity) -> Spread | None:
    """None where a time was not taken."""
    if quantity == "memory":
        return Spread.of([over.memory / under.memory])
    return Spread.of_ratio(over.seconds, under.seconds) if over.seconds and under.seconds else None


def _place(each: Measurement) -> tuple[str, str, str, str]:
    setting = each.setting
    return setting.base, setting.mode, setting.device.partition(":")[0], setting.dtype
