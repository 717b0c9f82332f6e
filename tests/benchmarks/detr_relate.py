"""The cost of the masked path beside the other, for every base of the DETR family.

``HERO_UPSTREAM=FOLDER_OF_CLONES python -m tests.benchmarks.detr_relate`` prints the processor time of ``ground`` and of
``relate``, and their ratio, one line per base.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from hero_plugin import Pair
from tests.adapters.detr_bases import BASES, RELATIVES, batch, build, grounder_of, model_of
from tests.adapters.detr_bases import targets as targets_of


def main() -> None:
    """Time training forwards of 3 pairs at 4 levels: 75 clips, 20 words, layers of the published size; medians of 7."""
    torch.set_num_threads(1)
    for name in (*BASES, *RELATIVES):
        sizes = {"hidden_dim": 256} if name.startswith("reference") else {}
        base, _ = build(name, dim_feedforward=1024, **sizes)
        grounder, inputs = grounder_of(base.train()), batch(name, clips=(75, 75, 60), words=(20, 12, 15))
        if model_of(name) == "cg_detr":
            inputs["targets"] = targets_of(inputs)
        pair = grounder.embed(**inputs)
        four = pair.at_levels(pair.video.expand(4, -1, -1, -1), pair.query.expand(4, -1, -1, -1))
        times = [(seconds(grounder.ground, four), seconds(grounder.relate, four)) for _ in range(8)][1:]
        ground, relate = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{name:28} ground {ground * 1e3:5.0f} ms  relate {relate * 1e3:5.0f} ms  ratio {relate / ground:.2f}")


def seconds(stage: Callable[[Pair], object], pair: Pair) -> float:
    """Return the processor time of one call, which other programs disturb less than the clock on the wall."""
    start = time.process_time()
    stage(pair)
    return time.process_time() - start


if __name__ == "__main__":
    main()
