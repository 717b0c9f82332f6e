"""Features of videos and queries: equal to a slow reference, resumed, and refused where they would be wrong."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("transformers")

import torch

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.data import load_word_vectors, open_features
from hero_plugin.integrations.data.feature_bank import manifest_difference, read_manifest
from hero_plugin.integrations.support import DataError, UserError
from hero_plugin.integrations.tools.video import encoders
from hero_plugin.integrations.tools.video import extract as extracting
from hero_plugin.integrations.tools.video.decode import ClipSampler, Video
from hero_plugin.integrations.tools.video.encoders import TextEncoder, TransformersEncoder, load_encoder
from hero_plugin.integrations.tools.video.extract import ExtractConfig, Extractor
from tests.screen import QUIET
from tests.tools.video.conftest import EVENTS
from tests.tools.video.movies import save_clip, write_movie

CPU = torch.device("cpu")
QUERIES = {"plain": {"duration": 15.5, "timestamps": [[1, 6], [8, 12]], "sentences": ["a red square", "the blue disc"]}}


def colors(frames):
    """The mean color of each frame: an encoder of one's own."""
    return frames.reshape(*frames.shape[:2], -1, 3).mean(axis=2)


colors.size, colors.frames_per_second = 16, 2.0


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.json"
    path.write_text(json.dumps(QUERIES))
    return path


def extract(clip, *videos, output, **flags):
    return extracting.main(ExtractConfig(output=output, videos=videos, encoder=(str(clip),), **flags), QUIET)


@pytest.mark.parametrize("rate, average", [("0.5", 1), ("1", 2)])
def test_features_are_those_of_a_slow_reference(clip, movie, tmp_path, ffmpeg, rate, average):
    """The steps of Moment-DETR's ``run_on_video``: ffmpeg's fps, scale and crop, then the model, frame by frame."""
    side, wide = 32, 32 * 64 // 48
    chain = f"fps={rate},scale={wide}:{side},crop={side}:{side}:{(wide - side) // 2}:0"
    raw = ffmpeg("-i", movie, "-vf", chain, "-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "bicubic", "-")
    frames = np.frombuffer(raw, np.uint8).reshape(-1, side, side, 3)
    # Two builds of swscale round differently where colors meet: pictures are compared, and features of equal pictures.
    sampler, video = ClipSampler(2.0, float(rate), side, "crop"), Video(movie)
    clips = [each for time, frame in video.frames() for each in sampler.add(time, frame)]
    pictures = np.concatenate([*clips, *sampler.finish(video.duration)])[: len(frames)]
    assert np.abs(pictures.astype(int) - frames[: len(pictures)]).mean(axis=(1, 2, 3)).max() < 2  # of 255
    encoder = TransformersEncoder(str(clip), CPU)
    mean, std = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])
    rows = []
    for picture in pictures:
        pixels = torch.tensor(((picture / 255 - mean) / std).transpose(2, 0, 1), dtype=torch.float32)
        with torch.no_grad():
            states = encoder._model.vision_model(pixel_values=pixels[None]).pooler_output
            rows.append(encoder._model.visual_projection(states)[0].numpy())
    slow = [np.mean(rows[first : first + average], axis=0) for first in range(0, len(rows), average)]
    assert extract(clip, movie, output=tmp_path / "out", frames_per_second=float(rate)) == 0
    found = open_features(tmp_path / "out")["plain"]
    assert found.shape == (8, 48)
    np.testing.assert_allclose(found, np.stack(slow)[: len(found)], atol=1e-4 * np.abs(found).max())


@pytest.fixture(scope="module")
def bert(clip, tmp_path_factory):
    """A model of texts alone, with random weights and the tokenizer of ``clip``."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("bert") / "bert"
    shutil.copytree(clip, folder)
    (folder / "preprocessor_config.json").unlink()
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, vocab_size=64, max_position_embeddings=32)).save_pretrained(folder)
    return folder


def write_queries(folder, *texts):
    """Write queries without moments."""
    lines = [{"qid": place, "vid": "plain", "query": text, "duration": 16} for place, text in enumerate(texts)]
    path = folder / "queries.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_batches_run_over_the_ends_of_videos_and_change_nothing(clip, movie, tmp_path):
    short = tmp_path / "short.mp4"
    write_movie(short, EVENTS, 5.0)
    files = {"plain": movie, "short": short, "again": movie}
    encoder = load_encoder(str(clip), CPU)
    one, all_ = (dict(Extractor([encoder], 2.0, batch_size=size).extract(files)) for size in (1, 64))
    for name in files:
        np.testing.assert_allclose(one[name].features, all_[name].features, atol=1e-5)
    assert list(all_) == list(files) and len(all_["short"].features) == 3
    np.testing.assert_array_equal(all_["plain"].features, all_["again"].features)


def test_several_encoders_stand_side_by_side(clip, movie, tmp_path):
    own = f"{__name__}:colors"
    config = ExtractConfig(output=tmp_path / "both", videos=(movie,), encoder=(str(clip), own))
    assert extracting.main(config, QUIET) == 0
    extract(clip, movie, output=tmp_path / "clip")
    found, alone = (open_features(tmp_path / name)["plain"] for name in ("both", "clip"))
    np.testing.assert_allclose(found[:, :48], alone, atol=1e-6)
    assert found.shape == (8, 51) and 60 < found[0, 48:].min() < 110  # four frames per clip, of a grey ground
    rates = [each["frames_per_second"] for each in read_manifest(tmp_path / "both")["encoders"]]
    assert rates == [0.5, 2.0]


def wrong_shape(frames):
    return np.zeros((3, 3, 3))


def test_queries_need_no_lengths_of_videos(clip, tmp_path, capsys):
    queries = tmp_path / "charades_sta.txt"
    queries.write_text("AAAAA 1.0 6.0##a red square\nAAAAA 9.0 3.0##the blue disc\nAAAAA 1.0 2.0##\n")
    config = ExtractConfig(output=tmp_path / "text", queries=(queries,), encoder=(str(clip),))
    assert extracting.main(config) == 0
    assert "charades_sta.txt: left out 1 queries" in " ".join(capsys.readouterr().out.split())
    assert {each.name for each in (tmp_path / "text").glob("qid*")} == {"qidAAAAA_0.npz", "qidAAAAA_1.npz"}


@pytest.mark.parametrize("name, what", [("wrong_shape", "must return"), ("nothing", "nothing"), ("json:x", "has no")])
def test_a_function_that_is_no_encoder_is_refused(movie, tmp_path, name, what):
    own = name if ":" in name else f"{__name__}:{name}"
    with pytest.raises(UserError, match=what):
        extracting.main(ExtractConfig(output=tmp_path / "x", videos=(movie,), encoder=(own,)), QUIET)


def test_a_function_whose_code_changed_makes_other_features(movie, tmp_path, monkeypatch):
    code = "def encode(frames):\n    return frames.reshape(*frames.shape[:2], -1)[..., :3]\n"
    (tmp_path / "my_encoder.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = ExtractConfig(output=tmp_path / "out", videos=(movie,), encoder=("my_encoder:encode",))
    assert extracting.main(config, QUIET) == 0 == extracting.main(config, QUIET)
    manifest = read_manifest(config.output)
    (tmp_path / "my_encoder.py").write_text(code + "# as float\n")
    monkeypatch.delitem(sys.modules, "my_encoder")
    with pytest.raises(UserError, match=r"my_encoder:encode \(source \w+, .*and not my_encoder:encode \(source"):
        extracting.main(config, QUIET)
    del manifest["encoders"][0]["source"]
    (config.output / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"my_encoder:encode \(source \w+, .*and not my_encoder:encode \(0.5 frames"):
        extracting.main(config, QUIET)


def test_queries_are_laid_out_as_moment_detrs(clip, queries, tmp_path, capsys):
    config = ExtractConfig(
        output=tmp_path / "text", queries=(queries,), encoder=(str(clip),), word_table=tmp_path / "words.npz"
    )
    assert extracting.main(config) == 0
    assert "words.npz: vectors of 6 words" in " ".join(capsys.readouterr().out.split())
    with np.load(tmp_path / "text" / "qidplain_0.npz") as found:
        assert {name: found[name].shape for name in found.files} == {
            "last_hidden_state": (5, 48),  # a red square, and two marks
            "pooler_output": (48,),
            "sentence": (),
        }
        encoder = TransformersEncoder(str(clip), CPU)
        ids = encoder._tokens[0](["a red square"], return_tensors="pt")["input_ids"]
        with torch.no_grad():  # one sentence alone, without padding
            slow = encoder._model.text_model(input_ids=ids)
            pooled = encoder._model.text_projection(slow.last_hidden_state[0, -1])
        np.testing.assert_allclose(found["last_hidden_state"], slow.last_hidden_state[0], atol=1e-5)
        np.testing.assert_allclose(found["pooler_output"], pooled, atol=1e-5)
    table = load_word_vectors(tmp_path / "words.npz")
    assert set(table.words) == {"a", "red", "square", "the", "blue", "disc"}
    red, nothing = (encoder.encode_text([word])[0][1] for word in ("red", ""))
    np.testing.assert_allclose(table.get("red"), red - nothing, atol=1e-5)
    assert read_manifest(tmp_path / "words.npz") == read_manifest(tmp_path / "text")
    assert extracting.main(config) == 0  # all is there
    more = queries.with_name("more.json")
    more.write_text(queries.read_text().replace("a red square", "a green square").replace("plain", "more"))
    assert extracting.main(replace(config, queries=(more,))) == 0
    joined = load_word_vectors(tmp_path / "words.npz")
    assert joined.words[: len(table.words)] == table.words and "green" in joined
    np.testing.assert_array_equal(joined.get("red"), table.get("red"))
    queries.write_text(queries.read_text().replace("a red square", "a red disc"))
    with pytest.raises(UserError, match=r"qidplain_0\.npz: holds 'a red square', and query plain_0 is 'a red disc'"):
        extracting.main(config)


def test_siglip_works_alike(tmp_path, movie, clip):
    from transformers import SiglipConfig, SiglipModel

    folder = tmp_path / "siglip"
    shutil.copytree(clip, folder)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 64, "max_position_embeddings": 16, "projection_size": 32}
    SiglipModel(
        SiglipConfig(text_config=text, vision_config={**sizes, "image_size": 24, "patch_size": 8})
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    )
    found = TransformersEncoder(str(folder), CPU)
    assert (found.size, found.fit) == (24, "squash")
    assert extract(folder, movie, output=tmp_path / "out") == 0
    assert open_features(tmp_path / "out")["plain"].shape == (8, 32)
    words, pooled = found.encode_text(["a red square"])[0]
    assert words.shape == (5, 32) and pooled.shape == (32,)


@pytest.mark.parametrize("kind", ["clip", "bert"])
def test_layers_of_the_text_encoder_stand_side_by_side(kind, clip, bert, tmp_path):
    folder = clip if kind == "clip" else bert
    queries = write_queries(tmp_path, "a red square", "the blue disc and a red square")
    config = ExtractConfig(
        output=tmp_path / "text", queries=(queries,), encoder=(str(folder),), text_layers=(0, 2), device="cpu"
    )
    assert extracting.main(config) == 0
    plain, layered = TextEncoder(str(folder), CPU), TextEncoder(str(folder), CPU, layers=(0, 2))
    last = plain.encode_text(["the blue disc and a red square"])[0][0]
    width = last.shape[1]
    with np.load(tmp_path / "text" / "qid1.npz") as found:
        words = found["last_hidden_state"]
    np.testing.assert_allclose(words[:, width:], last, atol=1e-5)  # the last layer, as without --text-layers
    tokens = plain._tokens[0](["the blue disc and a red square"], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first = getattr(plain._model, "text_model", plain._model).embeddings(input_ids=tokens)[0]
    np.testing.assert_allclose(words[:, :width], first, atol=1e-5)
    np.testing.assert_allclose(layered.encode_words(["red"]), plain.encode_words(["red"]), atol=1e-5)

    of_text = read_manifest(tmp_path / "text")
    assert of_text["encoders"][0]["layers"] == [0, 2]
    alone = extracting.text_manifest(plain)
    assert "layers 0, 2" in manifest_difference(alone, of_text) and manifest_difference(of_text, alone)
    with pytest.raises(UserError, match="has layers 0 to 2, and no 3"):
        TextEncoder(str(folder), CPU, layers=(0, 3))


def test_a_model_of_texts_alone_encodes_queries(tmp_path, bert):
    """Vectors of tokens are those of a sentence alone; in a batch, no other sentence's length changes them."""
    texts = ["a red square", "the blue disc and a red square"]
    queries = write_queries(tmp_path, *texts)
    config = ExtractConfig(output=tmp_path / "text", queries=(queries,), encoder=(str(bert),), device="cpu")
    assert extracting.main(config) == 0
    encoder = TextEncoder(str(bert), CPU)
    for place, text in enumerate(texts):
        tokens = encoder._tokens[0]([text], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            alone = encoder._model(input_ids=tokens).last_hidden_state[0]
        with np.load(tmp_path / "text" / f"qid{place}.npz") as found:
            np.testing.assert_allclose(found["last_hidden_state"], alone, atol=1e-5)
            np.testing.assert_allclose(found["pooler_output"], alone.mean(0), atol=1e-5)
    with pytest.raises(UserError, match="preprocessor_config"):
        load_encoder(str(bert), CPU)


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, "to 256 and cuts out 224"),
        ({"size": 224, "do_rescale": False}, r"not scaled to \[0, 1\]"),
        ({"size": 224, "rescale_factor": 1 / 127.5}, r"not scaled to \[0, 1\]"),
        ({"size": "large"}, "no size"),
    ],
)
def test_preprocessing_that_is_not_done_is_refused(picture, said):
    with pytest.raises(UserError, match=said):
        encoders._preprocessing(picture, "clip")


def test_colors_that_are_not_normalized_stay():
    _, _, mean, deviation = encoders._preprocessing(
        {"size": 24, "do_normalize": False, "image_mean": [9.0] * 3}, "clip"
    )
    assert not mean.any() and (deviation == 1).all()


def test_it_goes_on_where_it_was_stopped(clip, movie, tmp_path, monkeypatch):
    other, out = tmp_path / "other.mp4", tmp_path / "out"
    shutil.copy(movie, other)
    read = Extractor._read

    def stopped(self, path, waiting):
        if path == movie:
            raise KeyboardInterrupt
        read(self, path, waiting)

    monkeypatch.setattr(Extractor, "_read", stopped)
    words = ["data", "extract", str(other), str(movie), "--output", str(out), "--encoder", str(clip)]
    assert command([*words, "--batch-size", "2"]) == 130
    before = (out / "other.npz").stat().st_mtime_ns
    monkeypatch.setattr(Extractor, "_read", read)
    assert command(words) == 0
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "other.npz", "plain.npz"]
    assert (out / "other.npz").stat().st_mtime_ns == before


def test_features_of_another_file_of_the_name_are_refused(clip, movie, tmp_path):
    first, out = tmp_path / "a" / "v.mp4", tmp_path / "out"
    first.parent.mkdir()
    shutil.copy(movie, first)
    config = ExtractConfig(output=out, videos=(first,), encoder=(str(clip),))
    assert extracting.main(config) == 0
    features = np.load(out / "v.npz")["features"]
    (out / "v.npz").write_bytes(b"")  # damaged: made again
    assert extracting.main(config) == 0
    assert np.array_equal(np.load(out / "v.npz")["features"], features)
    write_movie(first, [], 4.0)
    with pytest.raises(UserError, match=r"v\.npz: holds features of another file than .*v\.mp4"):
        extracting.main(config)
    np.savez(out / "v.npz", features=features)  # an earlier version did not say
    assert extracting.main(config) == 0


def test_features_that_are_no_numbers_are_passed_over(movie, tmp_path, monkeypatch, capsys):
    (tmp_path / "nans.py").write_text(
        "import numpy as np\ndef encode(clips):\n    return np.full((len(clips), 3), np.nan)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["data", "extract", str(movie), "--output", str(tmp_path / "out"), "--encoder", "nans:encode"]
    assert command(words) == 1
    assert "passed over: plain: the encoder gives no numbers for 8 of its 8 clips" in capsys.readouterr().out
    assert not (tmp_path / "out" / "plain.npz").exists()


def test_a_bad_file_is_named_and_passed_over(clip, movie, tmp_path, capsys):
    bad, out = tmp_path / "bad.mp4", tmp_path / "out"
    bad.write_bytes(movie.read_bytes()[:2000])
    assert command(["data", "extract", str(bad), str(movie), "--output", str(out), "--encoder", str(clip)]) == 1
    said = capsys.readouterr().out
    assert f"passed over: {bad}: cannot be read" in said and "1 of 2 videos" in said
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "plain.npz"]


def test_a_full_disk_leaves_nothing_partial(clip, movie, tmp_path, monkeypatch, capsys):
    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", stream.name)

    monkeypatch.setattr(extracting.np, "savez", full)
    assert command(["data", "extract", str(movie), "--output", str(tmp_path / "out"), "--encoder", str(clip)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def test_features_of_another_kind_do_not_mix(clip, movie, tmp_path):
    out = tmp_path / "out"
    extract(clip, movie, output=out)
    with pytest.raises(UserError, match=r"a clip every 1 s.*and not .*a clip every 2 s"):
        extract(clip, movie, output=out, clip_seconds=1.0)
    other = save_clip(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=f"asked for {other} .*and not {clip}"):
        extract(other, movie, output=out)
    copy = tmp_path / "copy"
    shutil.copytree(clip, copy)
    assert extract(copy, movie, output=out) == 0  # the same weights elsewhere
    (tmp_path / "foreign").mkdir()
    np.save(tmp_path / "foreign" / "a.npy", np.zeros((2, 2)))
    with pytest.raises(UserError, match="say nothing of their encoder"):
        extract(clip, movie, output=tmp_path / "foreign")


def test_manifests_of_other_tools_are_none(tmp_path):
    (tmp_path / "manifest.json").write_text('{"weights": "x"}')
    assert read_manifest(tmp_path) is None and read_manifest(tmp_path / "nowhere") is None
    assert not manifest_difference(None, {"encoders": []})
    (tmp_path / "manifest.json").write_text('{"weights"')
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json", "preprocessor_config.json", "a tensor"])
def test_an_incomplete_folder_of_weights_is_refused(clip, tmp_path, lost):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(clip, folder)
    if lost == "a tensor":
        weights = load_file(folder / "model.safetensors")
        del weights["visual_projection.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        (folder / lost).unlink()
    with pytest.raises(UserError, match=r"incomplete weights.*visual_projection" if lost == "a tensor" else "needs"):
        load_encoder(str(folder), CPU)


def test_nothing_is_downloaded_unasked():
    with pytest.raises(UserError, match="--download"):
        load_encoder("nobody/has-this", CPU)


def test_impossible_requests_are_refused(clip, movie, queries, tmp_path):
    out = tmp_path / "out"
    for config, what in (
        (ExtractConfig(output=out), "give videos, or --queries"),
        (ExtractConfig(output=out, videos=(movie,), queries=(queries,)), "give videos, or --queries"),
        (ExtractConfig(output=out, videos=(movie,), word_table=tmp_path / "w.npz"), "goes with --queries"),
        (ExtractConfig(output=out, videos=(movie,), clip_seconds=0.0), "--clip-seconds must be positive"),
        (ExtractConfig(output=out, videos=(tmp_path / "no.mp4",)), "no such file"),
        (ExtractConfig(output=movie, videos=(movie,)), "is a file"),
        (ExtractConfig(output=out, queries=(queries,), encoder=(f"{__name__}:colors",)), "encodes frames only"),
    ):
        with pytest.raises(UserError, match=what):
            extracting.main(config, QUIET)
    assert not out.exists()
    queries.write_text(json.dumps({"v": {"duration": 5, "timestamps": [[1, 2]], "sentences": ["?!"]}}))
    with pytest.raises(DataError, match="no word in"):
        extracting.main(ExtractConfig(output=out, queries=(queries,), encoder=(str(clip),)), QUIET)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no videos in it"):
        extracting.main(ExtractConfig(output=out, videos=(tmp_path / "none",)), QUIET)
    shutil.copy(movie, tmp_path / "plain.mov")
    with pytest.raises(DataError, match="is called 'plain' like"):
        extracting.main(ExtractConfig(output=out, videos=(movie, tmp_path / "plain.mov")), QUIET)
