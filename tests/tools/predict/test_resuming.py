"""Cut anywhere, killed at any moment, sharded in any number: the same bytes, every query once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.integrations.support.errors import DataError, UserError
from hero_plugin.integrations.support.process import Interrupted, Rank
from hero_plugin.integrations.tools.predict import merge as merging
from hero_plugin.integrations.tools.predict import model, store
from hero_plugin.integrations.tools.predict.store import Manifest, Part, Shard, journal_of, read_journal
from tests.tools.predict.conftest import rows


@pytest.fixture(scope="module")
def parts(trained, tmp_path_factory):
    """A finished prediction whose two parts are still there."""
    output = tmp_path_factory.mktemp("parts") / "out"
    trained.predict(output, shard="0/2")
    usual, merging._delete_parts = merging._delete_parts, lambda manifest: None
    try:
        trained.predict(output, shard="1/2")
    finally:
        merging._delete_parts = usual
    for name in ("predictions.jsonl", merging.REPORT):
        (output / name).unlink()
    return output


WINDOWS = [[f"answer {window} {line} é" for line in range(window % 4)] for window in range(12)]
WRITTEN = "".join(line + "\n" for window in WINDOWS for line in window).encode()


def write_rest(part: Path) -> list[int]:
    """Add the windows that are not there; returns which these were."""
    with Part(part, "digest", 5) as opened:
        left = range(len(opened.entries), len(WINDOWS))
        for window in left:
            opened.add(5 + window, WINDOWS[window])
    return list(left)


SHARE = st.floats(0, 1)
TORN = st.sampled_from([b"", b"\0\0\0", b'{"qid": 1', b"\n", b"[]\n"])


@settings(max_examples=40, deadline=None)
@given(part=st.tuples(SHARE, TORN), journal=st.tuples(SHARE, TORN))
def test_files_cut_anywhere_are_completed_to_the_same_bytes(tmp_path_factory, part, journal):
    path = Shard().part(tmp_path_factory.mktemp("cut"))
    assert write_rest(path) == list(range(len(WINDOWS)))
    ends = [entry["end"] for entry in read_journal(path, "digest", 5)]
    whole = {}
    for file, (kept, torn) in ((path, part), (journal_of(path), journal)):
        whole[file] = file.read_bytes()
        file.write_bytes(whole[file][: round(kept * len(whole[file]))] + torn)
    left = write_rest(path)
    assert left == list(range(len(WINDOWS) - len(left), len(WINDOWS)))
    assert path.read_bytes() == WRITTEN == whole[path]
    assert [entry["end"] for entry in read_journal(path, "digest", 5)] == ends


def test_a_journal_of_something_else_is_begun_anew(tmp_path):
    part = Shard().part(tmp_path)
    write_rest(part)
    assert read_journal(part, "another digest", 5) == [] == read_journal(part, "digest", 4)
    Part(part, "another digest", 5).close()
    assert part.read_bytes() == b""


@pytest.mark.parametrize("kept", [0.0, 0.35, 0.8])
def test_a_cut_part_is_answered_to_the_same_bytes(kept, trained, whole, parts, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(parts, output)
    part = Shard(1, 2).part(output)
    os.truncate(part, int(kept * part.stat().st_size))
    assert trained.predict(output, shard="0/2") is None
    report = trained.predict(output, shard="1/2")
    assert (output / "predictions.jsonl").read_bytes() == whole
    assert report["queries"] == report["answered"] == whole.count(b"\n")


@pytest.mark.slow
@pytest.mark.parametrize("shards", [3, 9])
def test_shards_in_any_order_make_the_file_of_one(shards, trained, whole, tmp_path):
    order = list(range(shards))
    random.Random(shards).shuffle(order)
    reports = [trained.predict(tmp_path / "out", shard=f"{index}/{shards}") for index in order]
    assert all(report is None for report in reports[:-1]) and reports[-1]["shards"] == shards
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole
    assert not list((tmp_path / "out").glob("part-*.jsonl"))


@given(st.integers(1, 40), st.integers(0, 300), st.integers(1, 20))
def test_shares_are_every_window_once(shards, size, step):
    ranges = [Shard(index, shards).windows(-(-size // step)) for index in range(shards)]
    assert [number for each in ranges for number in each] == list(range(-(-size // step)))


def test_torchrun_says_which_shard(trained, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        trained.predict(tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    with pytest.raises(UserError, match="give one of the two"):
        trained.predict(tmp_path / "out.jsonl", shard="0/2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"shards: was 2, now 3 \(another number of shards"):
        trained.predict(tmp_path / "out.jsonl")


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", "0/0"])
def test_what_is_no_shard_is_said(text):
    with pytest.raises(UserError, match="I/N"):
        Shard.of(text, Rank())


def test_a_stop_is_saved_and_the_same_command_goes_on(trained, whole, tmp_path, monkeypatch):
    usual, asked = model.RunPredictor.predict, []

    def stop_once(self, batch):
        asked.append(batch)
        if len(asked) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, batch)

    monkeypatch.setattr(model.RunPredictor, "predict", stop_once)
    with pytest.raises(Interrupted, match="they are saved; the same command goes on"):
        trained.predict(tmp_path / "out")
    (part,) = (tmp_path / "out").glob("part-*.jsonl")
    before = part.read_bytes()
    assert whole.startswith(before) and before
    assert trained.predict(tmp_path / "out")["answered"] == whole.count(b"\n")
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole


def test_blank_lines_are_no_queries_that_are_left(trained, tmp_path, monkeypatch):
    (tmp_path / "queries.jsonl").write_text(trained.queries.read_text().replace("\n", "\n\n"))
    usual, total, asked = model.RunPredictor.predict, len(rows(trained.queries)), []

    def stop(self, batch):
        asked.append(batch)
        if len(asked) % 5 == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return usual(self, batch)

    monkeypatch.setattr(model.RunPredictor, "predict", stop)
    for _ in range(2):
        with pytest.raises(Interrupted) as told:
            trained.predict(tmp_path / "out", queries=tmp_path / "queries.jsonl")
        (part,) = (tmp_path / "out").glob("part-*.jsonl")
        assert 0 < len(rows(part)) < total
        assert f"stopped at {len(rows(part))} of {total} queries" in str(told.value)


def test_one_process_a_shard(trained, tmp_path):
    trained.predict(tmp_path / "out", shard="0/2")
    with Part(Shard(1, 2).part(tmp_path / "out"), "", 0), pytest.raises(UserError, match="another process"):
        trained.predict(tmp_path / "out", shard="1/2")


def test_a_finished_prediction_is_not_made_again(trained, whole, tmp_path, monkeypatch):
    first = trained.predict(tmp_path / "out.jsonl")
    monkeypatch.setattr(model.RunPredictor, "predict", None)
    assert trained.predict(tmp_path / "out.jsonl") == first


@pytest.mark.parametrize("what", ["queries", "checkpoint", "features", "flag"])
def test_what_has_changed_between_two_starts_is_said(what, trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained.run, run)
    queries = tmp_path / "queries.jsonl"
    shutil.copy(trained.queries, queries)
    features = tmp_path / "features"
    shutil.copytree(trained.files.root / "features", features)
    (features / "manifest.json").write_text('{"what": "simulated", "seed": 0}')
    flags = {"run": run, "queries": queries, "features": (features,), "output": tmp_path / "out"}
    trained.predict(**flags, shard="0/2")
    if what == "queries":
        queries.write_text(queries.read_text().replace("the", "a", 1))
        expected = "queries_sha256: .*the query file has changed"
    elif what == "checkpoint":
        with open(run / "best.pt", "ab") as stream:
            stream.write(b"\0")
        expected = "weights: .*the checkpoint has changed"
    elif what == "features":
        (features / "manifest.json").write_text('{"what": "simulated", "seed": 1}')
        expected = "made_by: .*the features have been made anew"
    else:
        flags["batch_size"], expected = 7, "batch_size: was 3, now 7"
    with pytest.raises(UserError, match=expected):
        trained.predict(**flags, shard="0/2")


class TestAManifestThatNothingCameOf:
    @pytest.fixture
    def output(self, tmp_path):
        self.start(tmp_path / "out", {"a": 1}).close()
        return tmp_path / "out"

    def start(self, output, facts):
        agreed = Manifest.agree(output, facts)
        return Part(Shard().part(agreed.folder), agreed.digest, 0)

    def test_it_gives_way_to_the_leading_process(self, output, monkeypatch):
        monkeypatch.setattr(store, "PATIENCE", 0.0)
        with pytest.raises(UserError, match="shard 0, started first, replaces it"):
            Manifest.agree(output, {"a": 2}, leads=False)
        assert Manifest.open(output).facts == {"a": 1}
        assert Manifest.agree(output, {"a": 2}).facts == {"a": 2} == Manifest.open(output).facts

    def test_the_others_wait_for_that(self, output):
        with ThreadPoolExecutor() as pool:
            other = pool.submit(Manifest.agree, output, {"a": 2}, leads=False)
            time.sleep(0.3)
            assert not other.done()
            Manifest.agree(output, {"a": 2})
            assert other.result(timeout=30).facts == {"a": 2}

    def test_not_while_somebody_is_at_work(self, output):
        with self.start(output, {"a": 1}), pytest.raises(UserError, match="a: was 1, now 2"):
            Manifest.agree(output, {"a": 2})

    @pytest.mark.parametrize("leads", [True, False])
    def test_not_once_a_window_is_done_even_one_without_answers(self, output, leads):
        with self.start(output, {"a": 1}) as part:
            part.add(0, [])
        with pytest.raises(UserError, match="a: was 1, now 2"):
            Manifest.agree(output, {"a": 2}, leads=leads)

    def test_whoever_was_replaced_before_it_held_a_part_stops(self, output):
        agreed = Manifest.open(output)
        agreed.check_agreed(output)
        Manifest.agree(output, {"a": 2})
        with pytest.raises(UserError, match="begun here at the same time"):
            agreed.check_agreed(output)


def test_a_prediction_that_an_earlier_version_began_goes_on(trained, whole, tmp_path):
    """It did not note what made the features."""
    trained.predict(tmp_path / "out", shard="0/2")
    file = tmp_path / "out" / store.MANIFEST
    facts = json.loads(file.read_text())
    del facts["made_by"]
    file.write_text(json.dumps(facts))
    (tmp_path / "out" / "part-00000-of-00002.journal").unlink()
    assert trained.predict(tmp_path / "out", shard="0/2") is None
    assert trained.predict(tmp_path / "out", shard="1/2")
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == whole


def test_a_manifest_of_something_else_is_not_merged(tmp_path):
    Manifest.agree(tmp_path / "out", {"a": 1})
    with pytest.raises(UserError, match="no prediction here; its manifest is of something else"):
        merging.main(merging.PredictMergeConfig(tmp_path / "out"))


def test_a_part_that_somebody_changed_is_not_merged(trained, whole, parts, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(parts, output)
    part = Shard(1, 2).part(output)
    part.write_bytes(part.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(DataError, match="is not what its journal says"):
        trained.predict(output, shard="0/2")
    assert trained.predict(output, shard="1/2") and (output / "predictions.jsonl").read_bytes() == whole


def test_what_is_no_prediction_is_left_alone(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no predictions"):
        trained.predict(tmp_path)
    features = tmp_path / "features"
    features.mkdir()
    (features / "A.npy").write_text("mine")
    (features / "manifest.json").write_text('{"what": "features"}')  # a name that predictions use, too
    with pytest.raises(UserError, match="holds no predictions"):
        trained.predict(features)
    assert (features / "manifest.json").read_text() == '{"what": "features"}'
    (tmp_path / "mine.jsonl").write_text("mine")
    with pytest.raises(UserError, match=r"mine.jsonl: exists"):
        trained.predict(tmp_path / "mine.jsonl")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_killed_command_goes_on(trained, tmp_path):
    """The real command, killed for real, at a moment nobody chose."""
    queries = tmp_path / "many.jsonl"
    lines = [{**row, "qid": number} for number, row in enumerate(rows(trained.queries) * 10)]
    queries.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = {"queries": queries, "sync_seconds": 0.0, "threads": 1}
    trained.predict(tmp_path / "whole.jsonl", **flags)
    output = tmp_path / "killed.jsonl"
    given = {"run": trained.run, "output": output, "device": "cpu", "window": 5, "batch_size": 3, **flags}
    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "predict", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    part, deadline = Shard().part(tmp_path / "killed.jsonl.parts"), time.monotonic() + 120
    while process.poll() is None and not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(random.uniform(0, 0.05))
    process.kill()
    _, message = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 0), message
    trained.predict(output, **flags)
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
