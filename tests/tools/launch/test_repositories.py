"""Which repository is which, and which checkpoint a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.launch.cli import REPOSITORIES, recognise, unknown
from tests.resources import upstream
from tests.tools.launch.layouts import CLONES

NAMES = dict(zip(CLONES, ("EMB", "Moment-DETR", "QD-DETR", "TR-DETR", "FlashVTG", "Lighthouse"), strict=True))


@pytest.mark.upstream
@pytest.mark.parametrize("name", CLONES)
def test_clones_are_recognised(name):
    assert recognise(upstream(CLONES[name])).name == NAMES[name]


@pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda repository: repository.name)
def test_by_their_files(repository, tmp_path):
    for sign in repository.signs:
        (tmp_path / sign).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / sign).touch()
    assert recognise(tmp_path) is repository


def test_a_repository_that_is_none_of_them(tmp_path):
    with pytest.raises(
        UserError, match=r"(?s)none of the repositories known here.*Moment-DETR .*--build MODULE:FUNCTION"
    ):
        recognise(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        recognise(tmp_path / "clone")
    with pytest.raises(UserError, match=r"--build takes MODULE:FUNCTION, as in .*, got 'model'"):
        unknown(tmp_path, "model")


@pytest.mark.parametrize(
    ("name", "words", "path"),
    [
        ("EMB", "--mode test --model_name a", "sessions/charades/a/model_best.pth.tar"),
        ("EMB", "--mode=test --task tacos --model_dir m --model_name a", "m/tacos/a/model_best.pth.tar"),
        ("EMB", "--mode train --model_name a", None),
        ("Moment-DETR", "--resume results/a/model_best.ckpt --eval_split_name val", "results/a/model_best.ckpt"),
        ("QD-DETR", "--resume=b.ckpt --resume_all", "b.ckpt"),
        ("TR-DETR", "--resume_all", None),
        ("FlashVTG", "data/MR.py --resume b.ckpt --eval_split_name val", "b.ckpt"),
        ("Lighthouse", "--model qd_detr --model_path c.ckpt", "c.ckpt"),
        ("Lighthouse", "-m qd_detr -r d.ckpt", "d.ckpt"),
    ],
)
def test_the_checkpoint_that_a_command_names(name, words, path):
    repository = next(each for each in REPOSITORIES if each.name == name)
    assert repository.checkpoint(words.split()) == (path and Path(path))
