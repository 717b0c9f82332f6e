"""What ``eval --bridge`` gives a run on a word table: by meaning, by place, by both, and by other constants.

``python -m tests.benchmarks.word_bridge ANNOTATIONS RUN [RUN ...]`` prints R1@0.5 of each run. Choose on val and its
rewordings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

from hero_plugin import Bridge
from hero_plugin.integrations.data import contexts
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.training import word_bridge
from tests.screen import QUIET


def nothing(*_: object) -> dict[str, float]:
    """Expect no word more than by its count."""
    return {}


MEANING_ALONE = partial(mock.patch.object, contexts.Contexts, "expected", nothing)
WAYS = {
    "by meaning alone, cosine over 0.4": (MEANING_ALONE, partial(mock.patch.object, word_bridge, "NEAREST", 0.4)),
    "by meaning alone, cosine over 0.1": (MEANING_ALONE,),
    "by place alone": (partial(mock.patch.object, word_bridge, "Bridge", partial(Bridge, temperature=1e9)),),
    "by both": (),
    "... cosine over 0.25": (partial(mock.patch.object, word_bridge, "NEAREST", 0.25),),
    "... cosine over 0.4": (partial(mock.patch.object, word_bridge, "NEAREST", 0.4),),
    "... temperature 0.07": (partial(mock.patch.object, word_bridge, "Bridge", partial(Bridge, temperature=0.07)),),
    "... temperature 0.14": (partial(mock.patch.object, word_bridge, "Bridge", partial(Bridge, temperature=0.14)),),
    "... the first word alone": (partial(mock.patch.object, word_bridge, "Bridge", partial(Bridge, neighbours=1)),),
    "... ten words": (partial(mock.patch.object, word_bridge, "Bridge", partial(Bridge, neighbours=10)),),
    "... counts over 3": (partial(mock.patch.object, contexts, "FEW", 3.0),),
    "... counts over 30": (partial(mock.patch.object, contexts, "FEW", 30.0),),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("run", type=Path, nargs="+")
    given = parser.parse_args()
    print("no bridge: ", ", ".join(scores(given.run, given.annotations, bridge=False)), flush=True)
    for name, patches in WAYS.items():
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            print(f"{name}: ", ", ".join(scores(given.run, given.annotations, bridge=True)), flush=True)


def scores(runs: list[Path], annotations: Path, bridge: bool) -> Iterator[str]:
    """Yield R1@0.5 of each run."""
    for run in runs:
        flags = {"annotations": (f"set={annotations}",), "device": "cpu", "resamples": 0, "threads": 1}
        found = evaluate(EvalConfig(run=(run,), bridge=bridge, **flags), QUIET)
        yield f"{found['set']['R1@0.5']:.1f}"


if __name__ == "__main__":
    main()
