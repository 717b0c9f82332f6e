"""The cost of a batch of EMB before it is on the device: features copied into it, or waiting there.

``python -m tests.benchmarks.loading`` prints the processor time of both, median and quartiles, one line per kind of
features: batches of 16 videos of 20 to 128 clips, in turns, one thread. ``--device cuda`` adds the way there, pinned,
and the lookup.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from hero_plugin.integrations.data.feature_bank import StoreBank
from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.data.words import Vocabulary, tokenize
from hero_plugin.integrations.training.batching import to_device
from hero_plugin.integrations.training.distributed import keep_freed_memory
from hero_plugin.integrations.training.emb import WordIds
from hero_plugin.integrations.training.task import VectorCollate, VectorExample

WIDTHS = {"word vectors": 384, "I3D": 1024, "SlowFast and CLIP": 2816}
VIDEOS, BATCH = 500, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--turns", type=int, default=200)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory(torch.device("cpu"))
    random = np.random.default_rng(0)
    lengths = random.integers(20, 129, VIDEOS)
    for name, width in WIDTHS.items():
        store = MemoryFeatures({str(n): random.random((length, width), np.float32) for n, length in enumerate(lengths)})
        host, waiting = StoreBank(store, store.keys()), StoreBank(store, store.keys())
        waiting.settle(given.device, "device")
        record = Record("q", "0", "a person opens a door", ((1.0, 2.0),), 30.0)
        words = WordIds(Vocabulary(tuple(record.sentence.split())), tokenize, 128)
        items = [VectorExample(record, row, 1, 2) for row in range(VIDEOS)]
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(given.turns):
            chosen = [items[row] for row in random.integers(0, VIDEOS, BATCH)]
            for bank in (host, waiting):
                start = time.process_time()
                batch = VectorCollate(bank, words)(chosen)
                if given.device.type == "cuda":
                    to_device({key: value.pin_memory() for key, value in batch.items()}, given.device)
                seconds[bank is waiting].append(time.process_time() - start)
        print(
            f"{name} ({width}), ms: {spread(seconds[False])} with the features, "
            f"{spread(seconds[True])} where they wait on the device, {given.turns} batches"
        )


def spread(seconds: list[float]) -> str:
    """Return median and quartiles, in ms."""
    low, median, high = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
