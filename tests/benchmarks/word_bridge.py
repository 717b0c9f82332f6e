"""What ``eval --bridge`` gives a run on a word table: by meaning, by place, by both, and by other constants.

``python -m tests.benchmarks.word_bridge ANNOTATIONS RUN [RUN ...]`` prints R1@0.5 of each run, and the processor time
that the bridge takes per unseen word. Choose on val and its rewordings.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from hero_plugin import Bridge
from hero_plugin.integrations.data import contexts
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.training import queries
from hero_plugin.integrations.training.bases import BASES
from hero_plugin.integrations.training.load_run import load_run
from hero_plugin.integrations.training.run_folder import RunFolder
from tests.screen import QUIET


def nothing(*_: object) -> dict[str, float]:
    """Expect no word more than by its count."""
    return {}


MEANING_ALONE = partial(mock.patch.object, contexts.Contexts, "expected", nothing)
WAYS = {
    "by meaning alone, cosine over 0.4": (MEANING_ALONE, partial(mock.patch.object, queries, "NEAREST", 0.4)),
    "by meaning alone, cosine over 0.1": (MEANING_ALONE,),
    "by place alone": (partial(mock.patch.object, queries, "Bridge", partial(Bridge, temperature=1e9)),),
    "by both": (),
    "... cosine over 0.25": (partial(mock.patch.object, queries, "NEAREST", 0.25),),
    "... cosine over 0.4": (partial(mock.patch.object, queries, "NEAREST", 0.4),),
    "... temperature 0.07": (partial(mock.patch.object, queries, "Bridge", partial(Bridge, temperature=0.07)),),
    "... temperature 0.14": (partial(mock.patch.object, queries, "Bridge", partial(Bridge, temperature=0.14)),),
    "... the first word alone": (partial(mock.patch.object, queries, "Bridge", partial(Bridge, neighbours=1)),),
    "... ten words": (partial(mock.patch.object, queries, "Bridge", partial(Bridge, neighbours=10)),),
    "... counts over 3": (partial(mock.patch.object, contexts, "FEW", 3.0),),
    "... counts over 30": (partial(mock.patch.object, contexts, "FEW", 30.0),),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("run", type=Path, nargs="+")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("no bridge: ", ", ".join(scores(given.run, given.annotations, bridge=False)), flush=True)
    for name, patches in WAYS.items():
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch())
            print(f"{name}: ", ", ".join(scores(given.run, given.annotations, bridge=True)), flush=True)
    print(f"{1e3 * seconds_per_word(RunFolder(given.run[0]), given.annotations):.2f} ms per unseen word")


def seconds_per_word(run: RunFolder, annotations: Path) -> float:
    """Return the processor time that reading all queries in batches of 64 takes more than without the bridge."""
    settings = run.settings()
    data = BASES[settings.base].read(settings, {"set": annotations})
    queries = load_run(run, data, QUIET, bridge=True).task.collate.queries
    records = data.sets["set"]
    seconds = []
    for each in (queries, queries.queries):
        began = time.process_time()
        for first in range(0, len(records), 64):
            each.batch(records[first : first + 64])
        seconds.append(time.process_time() - began)
    return (seconds[0] - seconds[1]) / sum(len(queries.read_as(record.sentence)) for record in records)


def scores(runs: list[Path], annotations: Path, bridge: bool) -> Iterator[str]:
    """Yield R1@0.5 of each run."""
    for run in runs:
        flags = {"annotations": (f"set={annotations}",), "device": "cpu", "resamples": 0, "threads": 1}
        found = evaluate(EvalConfig(run=(run,), bridge=bridge, **flags), QUIET)
        yield f"{found['set']['R1@0.5']:.1f}"


if __name__ == "__main__":
    main()
