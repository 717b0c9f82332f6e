"""Features that wait where the model is: batches, and so trainings, are those of features in this machine's memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hero_plugin.integrations.data.feature_bank import DEVICE_SHARE, DeviceBatch, StoreBank, fits_in_memory
from hero_plugin.integrations.data.features import MemoryFeatures
from hero_plugin.integrations.evaluation.evaluate import EvalConfig
from hero_plugin.integrations.evaluation.evaluate import main as evaluate
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.training.bases import BASES, config_from
from hero_plugin.integrations.training.batching import batches, to_device
from hero_plugin.integrations.training.checkpoints import load_checkpoint
from hero_plugin.integrations.training.train import main
from tests.screen import QUIET
from tests.training.files import detr_settings

pytestmark = pytest.mark.slow


CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


@given(st.data(), st.sampled_from(["float32", "float16"]), st.integers(0, 2))
def test_a_lookup_gives_the_numbers_of_a_copy(data, storage, width):
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    random = np.random.default_rng(0)
    store = MemoryFeatures({str(n): random.standard_normal((n_clips, 3)) for n, n_clips in enumerate(lengths)})
    copied, looked_up = (StoreBank(store, store.keys(), storage=storage) for _ in range(2))
    looked_up.settle(CPU, "device")
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1, max_size=5))
    mask = copied.mask(rows, data.draw(st.integers(0, 9)))
    extra = random.random((*mask.shape, width), np.float32) if width else None
    waiting = looked_up.tensor(rows, mask, extra)
    assert isinstance(waiting, DeviceBatch)
    assert torch.equal(waiting.to(CPU), copied.tensor(rows, mask, extra))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("base", sorted(BASES))
def test_every_base_gets_the_same_batches(base, device, runs):
    settings = runs.files.settings(output="unused") if base == "emb" else detr_settings(runs.files, base, output="no")
    config, device = config_from(settings, "test").checked(), torch.device(device)
    data = BASES[base].read(config, {"train": config.annotations_train})
    vocabulary = BASES[base].vocabulary(config, data)

    def loaded(place):
        bank = data.bank("auto", 1.0, QUIET)
        bank.settle(device, place)
        task = BASES[base].new_task(config, data, bank, vocabulary, device)
        assert task.collate.parallelizable == (place == "host")
        items = BASES[base].examples(config, data, "train", bank, vocabulary)
        # Other processes could not hold what is on a GPU: asked for, they are not started.
        yield from batches(task.collate, items, [[0, 3, 1], [5], [2, 4]], device, workers=2)
        yield to_device(task.collate(items[:5], [1, 4]), device)

    for one, other in zip(loaded("host"), loaded("device"), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert all(one[name].device == other[name].device for name in one)


@pytest.mark.parametrize("base", ["emb", "qd_detr"])
def test_a_training_is_the_same_and_may_go_on_in_the_other_place(base, runs, tmp_path):
    settings = {"epochs": 1, "features_on": "device", "eval_every": 1, "figure_queries": 0}

    def train(name, **changes):
        paths = {"output": str(tmp_path / name), **settings, **changes}
        made = runs.files.settings(**paths) if base == "emb" else detr_settings(runs.files, base, **paths)
        return main(config_from(made, "test"), QUIET)

    device, host = train("device"), train("host", features_on="host")
    one, other = (load_checkpoint(run.last)["model"] for run in (device, host))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert device.results()["best"] == host.results()["best"]
    # What has ended with its features in one place resumes with them in another.
    resumed = replace(config_from(host.config(), "test"), output=host.path, resume=True, features_on="device")
    assert main(resumed, QUIET).results()["best"] == host.results()["best"]
    # And a run scores the same from where its settings leave the features.
    for run in (device, host):
        scores = evaluate(EvalConfig(run=(run.path,), resamples=0), QUIET)
        assert scores == {name: device.results()["best"][name] for name in scores} != {}


def test_auto_takes_a_quarter_of_what_a_gpu_has_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ([4000, 1000][index], 9000))
    for name, free in (("cuda", 1000), ("cuda:1", 1000), ("cuda:0", 4000)):
        gpu = torch.device(name)
        assert fits_in_memory(int(free * DEVICE_SHARE), gpu) and not fits_in_memory(int(free * DEVICE_SHARE) + 1, gpu)
    assert not fits_in_memory(1, CPU)


def test_features_that_stay_on_disk_are_not_promised_to_a_device(runs, tmp_path):
    bank = StoreBank(MemoryFeatures(runs.files.data.features), list(runs.files.data.features), storage="disk")
    bank.settle(CPU, "device")
    assert bank.device_features is None and bank.description == "disk features"
    output = tmp_path / "run"
    config = config_from(runs.files.settings(output=str(output), storage="disk", features_on="device"), "test")
    with pytest.raises(UserError, match="--features-on device: the features stay on disk; raise --memory"):
        main(config, QUIET)
    assert not output.exists()


def test_what_waits_can_be_pinned(monkeypatch):
    """As ``DataLoader`` does before a batch goes to a GPU; without one, no memory can be."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    store = MemoryFeatures({"a": np.ones((2, 3), np.float32)})
    bank = StoreBank(store, ["a"])
    bank.settle(CPU, "device")
    mask = bank.mask([0, 0])
    assert torch.equal(bank.tensor([0, 0], mask).pin_memory().to(CPU), torch.ones(2, 2, 3))
    extra = np.zeros((2, 2, 1), np.float32)
    assert bank.tensor([0, 0], mask, extra).pin_memory().to(CPU).shape == (2, 2, 4)
    assert sorted(pinned) == [(2,), (2,), (2, 2), (2, 2), (2, 2, 1)]
