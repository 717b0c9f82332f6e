"""The training loop on a toy task: what it learns, writes and reports, and that a crash anywhere changes nothing."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hero_plugin.integrations.scoring.metrics import temporal_iou
from hero_plugin.integrations.support.process import Interrupted
from hero_plugin.integrations.training.batching import predict_set
from hero_plugin.integrations.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from hero_plugin.integrations.training.engine import Diverged
from hero_plugin.integrations.training.run_folder import RunFolder
from tests.training.toy import RECIPE, ToyTask, fit, items, trainer


class Killed(BaseException):
    """Nothing in the code under test may catch this, as nothing catches SIGKILL."""


def comparable(run) -> list[dict]:
    """The log without what a clock decides."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in run.history()]


def same_weights(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


@pytest.fixture
def finished(tmp_path):
    """A run that nothing interrupted."""
    made = trainer(tmp_path / "whole")
    fit(made)
    return made


def check_equal(made, finished):
    assert same_weights(made.task.model.state_dict(), finished.task.model.state_dict())
    assert comparable(made.run) == comparable(finished.run)
    for name in ("last", "best"):
        one, other = load_checkpoint(getattr(made.run, name)), load_checkpoint(getattr(finished.run, name))
        assert same_weights(one["model"], other["model"])


def test_a_run_learns_and_logs_one_line_an_epoch(finished):
    history = finished.run.history()
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert history[-1]["losses"]["loss"] < history[0]["losses"]["loss"]
    assert set(history[0]["metrics"]) == {"val", "test"}
    assert history[0]["step"] == 5
    assert history[-1]["lr"] == pytest.approx(RECIPE.lr / 15)
    assert len(history[0]["recall"]["test"]) == 19
    steps = [step for line in history for step, _ in line["curve"]]
    assert steps == list(range(1, 16))


def test_an_epochs_mean_loss_is_the_mean_of_its_curve(finished):
    for line in finished.run.history():
        mean = sum(loss for _, loss in line["curve"]) / len(line["curve"])
        assert line["losses"]["loss"] == pytest.approx(mean, rel=1e-5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tmp_path, finished):
    again = trainer(tmp_path / "again")
    fit(again)
    other = trainer(tmp_path / "other", replace(RECIPE, seed=2))
    fit(other)
    check_equal(again, finished)
    assert not same_weights(other.task.model.state_dict(), finished.task.model.state_dict())


def test_workers_do_not_change_the_bits(tmp_path, finished):
    made = trainer(tmp_path / "workers", replace(RECIPE, workers=1))
    fit(made)
    check_equal(made, finished)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 2])
def test_a_crash_in_any_step_changes_nothing(tmp_path, finished, monkeypatch, steps):
    recipe = replace(RECIPE, checkpoint_steps=steps)
    for step in range(15):
        folder = tmp_path / f"crash{step}"
        made, losses = trainer(folder, recipe), ToyTask.losses

        def dies(self, *args, losses=losses, step=step):
            if len(self.steps) == step:
                raise Killed
            return losses(self, *args)

        monkeypatch.setattr(ToyTask, "losses", dies)
        with pytest.raises(Killed):
            fit(made)
        monkeypatch.undo()
        resumed = trainer(folder, recipe, resume=True)
        lost = step % 5 % 2 if steps else step % 5
        assert resumed.progress.epoch * 5 + resumed.progress.step == step - lost
        fit(resumed)
        check_equal(resumed, finished)


@pytest.mark.slow
def test_a_crash_before_or_after_any_file_is_renamed_changes_nothing(tmp_path, finished, monkeypatch):
    replace_file, crashes = os.replace, 0
    for survived in range(40):
        for before in (True, False):
            folder, calls = tmp_path / f"crash{survived}{before}", 0
            made = trainer(folder)

            def dies(source, target, survived=survived, before=before):
                nonlocal calls
                calls += 1
                if calls > survived and before:
                    raise Killed
                replace_file(source, target)
                if calls > survived:
                    raise Killed

            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", dies)
                try:
                    fit(made)
                except Killed:
                    crashes += 1
            if calls <= survived:
                assert crashes == 2 * survived >= 18
                return
            resumed = trainer(folder, resume=True)
            fit(resumed)
            check_equal(resumed, finished)
    pytest.fail("the run never ended")


@pytest.mark.slow
def test_interrupts_save_and_resume_during_training_and_scoring(tmp_path, finished, monkeypatch):
    import signal

    for where in ("losses", "predict"):
        for at in range(1, 12, 3):
            folder, method, calls = tmp_path / f"{where}{at}", getattr(ToyTask, where), 0

            def interrupts(self, *args, method=method, at=at):
                nonlocal calls
                calls += 1
                if calls == at:
                    signal.raise_signal(signal.SIGINT if at % 2 else signal.SIGTERM)
                return method(self, *args)

            made = trainer(folder)
            before = signal.getsignal(signal.SIGINT)
            monkeypatch.setattr(ToyTask, where, interrupts)
            with pytest.raises(Interrupted):
                fit(made)
            monkeypatch.undo()
            assert signal.getsignal(signal.SIGINT) is before
            resumed = trainer(folder, resume=True)
            fit(resumed)
            check_equal(resumed, finished)


def test_events_hold_each_step_once_after_a_resume(tmp_path, finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = trainer(tmp_path / "run", replace(RECIPE, epochs=3))
    made.fit({"val": items(5, seed=1)}, select="val")
    resumed = trainer(tmp_path / "run", resume=True)
    fit(resumed)
    accumulator = EventAccumulator(str(resumed.run.events))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("train/loss")] == [5, 10, 15]
    assert [event.step for event in accumulator.Scalars("train/running_loss")] == list(range(1, 16))
    assert accumulator.Scalars("val/mIoU")[-1].value == pytest.approx(made.run.history()[-1]["metrics"]["val"]["mIoU"])


def test_the_best_checkpoint_is_the_best_on_the_chosen_set(finished):
    history = finished.run.history()
    merits = [sum(line["metrics"]["val"].values()) for line in history]
    best = load_checkpoint(finished.run.best)
    assert best["epoch"] == merits.index(max(merits)) + 1 == history[-1]["best_epoch"]
    finished.task.model.load_state_dict(best["model"])
    queries = items(5, seed=1)
    scores = finished.task.scores(queries, predict_set(finished.task, queries, RECIPE.eval_batch_size))
    assert scores == pytest.approx(best["metrics"]["val"])


def test_without_a_set_to_choose_on_the_best_is_the_last(tmp_path):
    made = trainer(tmp_path / "run")
    made.fit({"test": items(7, seed=2)}, select=None)
    assert load_checkpoint(made.run.best)["epoch"] == 3


def test_scores_come_every_few_epochs_and_at_the_end(tmp_path):
    made = trainer(tmp_path / "run", replace(RECIPE, epochs=5, eval_every=2))
    fit(made)
    assert [bool(line["metrics"]) for line in made.run.history()] == [False, True, False, True, True]


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    made = trainer(tmp_path / "run", replace(RECIPE, lr=math.inf))
    with pytest.raises(Diverged, match="lower --lr"):
        fit(made)


def test_a_gradient_that_is_no_number_in_the_last_step_stops_the_run(tmp_path):
    """No later loss would show it, and the weights would be saved as the best."""
    made = trainer(tmp_path / "run")
    parameter, steps = next(made.task.model.parameters()), 0

    def spoil(gradient):
        nonlocal steps
        steps += 1
        return gradient * math.nan if steps == 15 else gradient

    parameter.register_hook(spoil)
    with pytest.raises(Diverged, match="the gradient became nan by step 15"):
        fit(made)


def test_an_epoch_that_comes_out_otherwise_the_second_time_leaves_the_best_weights(tmp_path, monkeypatch):
    """Killed before ``last.pt``, then resumed on another device, say: ``best.pt`` is of the epochs that count."""
    merits = iter([10.0, 20.0, 9.0, 5.0])
    monkeypatch.setattr(ToyTask, "merit", lambda self, scores: next(merits))
    made, append = trainer(tmp_path / "run"), RunFolder.append

    def dies(run, line):
        if line["epoch"] == 2:
            raise Killed
        append(run, line)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", dies)
        with pytest.raises(Killed):
            fit(made)
    resumed = trainer(tmp_path / "run", resume=True)
    fit(resumed)
    assert resumed.run.history()[-1]["best_epoch"] == load_checkpoint(resumed.run.best)["epoch"] == 1
    assert not resumed.run.next_best.exists()


def test_predictions_keep_the_order_of_the_items_whatever_the_batches():
    task, queries = ToyTask(), items(11)
    alone = [predict_set(task, [query], clips=True) for query in queries]
    together = predict_set(task, queries, batch_size=4, clips=True)
    for index in range(len(queries)):
        assert len(together.relevance[index]) == len(queries[index].clips)
    lengths = [len(query.clips) for query in queries]
    uniform = [index for index in range(11) if lengths[index] == max(lengths)]
    for index in uniform:  # the toy's mean counts padding, so only unpadded ones can agree
        torch.testing.assert_close(torch.tensor(together.moments[index]), torch.tensor(alone[index].moments[0]))
    assert predict_set(task, []).moments.shape == (0, 1, 2)


def test_scores_take_the_nearest_of_several_annotations_and_skip_queries_without():
    class Many(ToyTask):
        def truth(self, item):
            return {0: (), 1: ((100.0, 101.0), (item.start, item.end))}.get(position[id(item)], super().truth(item))

    task, queries = Many(), items(3)
    position = {id(query): index for index, query in enumerate(queries)}
    grounded = predict_set(task, queries)
    ious = [temporal_iou(grounded.moments[index, 0], [queries[index].start, queries[index].end]) for index in (1, 2)]
    assert task.scores(queries, grounded)["mIoU"] == pytest.approx(100 * sum(map(float, ious)) / 2)


def test_a_damaged_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(path)
    path.write_bytes(b"half of it")
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    torch.save({"version": 1, "model": Trap()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "trapped").exists()


def test_a_checkpoint_of_another_version_says_so(tmp_path):
    save_checkpoint({"version": 99, "model": {}}, tmp_path / "old.pt")
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(Path(tmp_path / "old.pt"))


def test_the_log_is_one_json_object_a_line(finished):
    lines = finished.run.log_file.read_text().splitlines()
    assert len(lines) == 3
    assert all(isinstance(json.loads(line), dict) for line in lines)
