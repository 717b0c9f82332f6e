"""Lighthouse's own predictors and its demo, with HERO's weights; what encodes videos and words is a stand-in."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from hero_plugin import wrap_model
from hero_plugin.integrations.training.checkpoints import supported
from tests.adapters import authors
from tests.docs.pages import DOCS, python_blocks
from tests.tools.launch.layouts import checkout, environment, launch

pytestmark = [
    pytest.mark.upstream,
    pytest.mark.slow,
    pytest.mark.skipif(not supported(), reason="torch before 2.4 cannot read these checkpoints safely"),
]
MODELS = [name.partition(".")[2] for name in authors.LIGHTHOUSE]
CLASSES = {
    "moment_detr": "MomentDETRPredictor",
    "qd_detr": "QDDETRPredictor",
    "tr_detr": "TRDETRPredictor",
    "eatr": "EaTRPredictor",
    "cg_detr": "CGDETRPredictor",
    "uvcom": "UVCOMPredictor",
    "taskweave": "TaskWeavePredictor",
}
WIDTHS = {"v_feat_dim": 18, "t_feat_dim": 12}
CLIPS = 75
ENCODERS = {
    "vision_encoder": """
        def __init__(self, *args): pass
        def encode(self, path):
            torch.manual_seed(len(path))
            return torch.randn({clips}, {video}), torch.ones(1, {clips})
    """,
    "text_encoder": """
        def __init__(self, *args): pass
        def encode(self, query):
            torch.manual_seed(len(query))
            words = len(query.split())
            return torch.randn(1, words, {words}), torch.ones(1, words)
    """,
    "audio_encoder": """
        def __init__(self, *args): raise AssertionError("no sound is asked for")
    """,
}
QUERY = "a person opens the door"


@pytest.fixture(scope="module")
def lighthouse(tmp_path_factory) -> Path:
    """A copy of the clone, whose encoders make up features instead of downloading networks."""
    repository = checkout("lighthouse", tmp_path_factory.mktemp("clone"))
    for name, body in ENCODERS.items():
        title = "".join(part.title() for part in name.split("_"))
        code = body.format(clips=CLIPS, video=WIDTHS["v_feat_dim"] - 2, words=WIDTHS["t_feat_dim"])
        (repository / "lighthouse" / "feature_extractor" / f"{name}.py").write_text(
            f"import torch\n\n\nclass {title}:{code}"
        )
    if importlib.util.find_spec("torchvision") is None:  # imported for one loss, which no predictor computes
        (repository / "torchvision.py").write_text("")
    return repository


def checkpoint(name: str, path: Path, hero: bool = True) -> dict[str, object]:
    """Save a model's weights as Lighthouse does; return what the model answers to QUERY about the video v.mp4."""
    torch.manual_seed(0)
    # UVCOM's queries are the clips that it condenses a video to.
    options = {**WIDTHS, **({"num_queries": 30} if name == "uvcom" else {})}
    base, _ = authors.build(f"lighthouse.{name}", **options)
    model = wrap_model(base, levels=2) if hero else base
    if hero:
        for parameter in model.hero.parameters():
            torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "opt": Namespace(**{**authors.DEFAULTS, **options})}, path)
    model.eval()
    torch.manual_seed(len("v.mp4"))
    clips = torch.randn(CLIPS, WIDTHS["v_feat_dim"] - 2)
    starts = torch.arange(CLIPS) / CLIPS
    clips = torch.cat([clips, torch.stack([starts, starts + 1 / CLIPS], 1)], 1)
    torch.manual_seed(len(QUERY))
    words = torch.nn.functional.normalize(torch.randn(1, len(QUERY.split()), WIDTHS["t_feat_dim"]), dim=-1)
    given = {"src_vid": clips[None], "src_vid_mask": torch.ones(1, CLIPS), "src_txt": words}
    given |= {"src_txt_mask": torch.ones(1, words.shape[1]), "src_aud": None}
    given |= {"vid": None, "qid": None} if name == "cg_detr" else {}
    given |= {"epoch_i": None} if name == "taskweave" else {}
    with torch.no_grad():
        outputs = model(**given)
    outputs = outputs[0] if isinstance(outputs, tuple) else outputs  # TaskWeave's come with its losses' shares
    return {"saliency": outputs["saliency_scores"][0].tolist(), "scores": outputs["pred_logits"][0].softmax(-1)[:, 0]}


SHOW = "\nimport json\nprint(json.dumps(answer))\n"
(BLOCK,) = python_blocks(DOCS / "guide" / "somebodys_repo.md")
"""The page's Python, which asks QUERY about v.mp4."""


def asking(name: str, path: Path) -> str:
    """The page's code, for another predictor and checkpoint."""
    assert QUERY in BLOCK and "v.mp4" in BLOCK
    code = BLOCK.replace("QDDETRPredictor", CLASSES[name]).replace('"best.ckpt"', repr(str(path))) + SHOW
    if name == "taskweave":  # without a GPU it answers inside the block alone
        code = code.replace("with serving_hero():", "block = serving_hero()\nblock.__enter__()\nif True:")
    return code


def check(answer: dict[str, list], expected: dict[str, object]) -> None:
    assert answer["pred_saliency_scores"] == pytest.approx(expected["saliency"], abs=1e-4)
    best = expected["scores"].sort(descending=True).values.tolist()[:10]  # of UVCOM's 30
    assert [window[2] for window in answer["pred_relevant_windows"]] == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("name", CLASSES)
def test_a_predictor_in_ones_own_code_serves_hero(lighthouse, tmp_path, name):
    expected = checkpoint(name, tmp_path / "best.ckpt")
    done = subprocess.run(
        [sys.executable, "-c", asking(name, tmp_path / "best.ckpt")],
        capture_output=True, text=True, cwd=lighthouse, env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{CLASSES[name]} serves HERO, --levels 2" in done.stderr
    check(json.loads(done.stdout.splitlines()[-1]), expected)


@pytest.mark.parametrize("hero", [True, False])
def test_a_script_that_the_launcher_runs_serves_both(lighthouse, tmp_path, hero):
    expected = checkpoint("qd_detr", tmp_path / "best.ckpt", hero)
    code = asking("qd_detr", tmp_path / "best.ckpt").replace("with serving_hero():", "if True:")
    (tmp_path / "ask.py").write_text(code)
    command = ["python", str(tmp_path / "ask.py")]
    done = launch(lighthouse, command=command)
    check(json.loads(done.stdout.splitlines()[-1]), expected)
    assert ("serves HERO, --levels 2" if hero else "serves the plain base") in done.stderr
    assert done.returncode == (0 if hero else 2)  # HERO was not in this run
    if hero:
        done = launch(lighthouse, "--levels", "4", "--no-cmtr", command=command)
        assert done.returncode == 2 and "contradicts the checkpoint, whose HERO has --levels 2" in done.stderr


CLICK = """
import json, sys
import gradio

def launch(self, *args, **kwargs):
    demo = sys.modules["__main__"]
    list(demo.model_load("clip + qd_detr", "v.mp4"))
    print(json.dumps(demo.model.predict({query!r}, demo.loaded_video)))

gradio.Blocks.launch = launch
"""


def test_the_demo_serves_hero(lighthouse, tmp_path):
    """The demo as it is, with weights of one's own where it looks for Lighthouse's; a click stands in for a page."""
    for module in ("gradio", "pandas", "tqdm"):
        pytest.importorskip(module)
    weights = lighthouse / "gradio_demo" / "weights"
    for feature in ("clip", "clip_slowfast", "clip_slowfast_pann"):
        for name in MODELS:
            (weights / f"{feature}_{name}_qvhighlight.ckpt").touch()  # what is there is not downloaded
    for name in ("SLOWFAST_8x8_R50.pkl", "Cnn14_mAP=0.431.pth"):
        (lighthouse / name).touch()
    checkpoint("cg_detr", weights / "clip_cg_detr_qvhighlight.ckpt", hero=False)
    expected = checkpoint("qd_detr", weights / "clip_qd_detr_qvhighlight.ckpt")
    # In the place of ffmpeg-python, which cuts pictures out: it is imported first, and sees to the click.
    (lighthouse / "gradio_demo" / "ffmpeg.py").write_text(CLICK.format(query=QUERY))
    demo = lighthouse / "gradio_demo" / "demo.py"
    text = demo.read_text()
    done = launch(lighthouse, command=["python", "gradio_demo/demo.py"])
    assert demo.read_text() == text
    assert done.returncode == 0, done.stderr[-3000:]
    assert "CGDETRPredictor serves the plain base" in done.stderr
    check(json.loads(done.stdout.splitlines()[-1]), expected)
