"""The page on vocabulary, executed as printed; its commands exist."""

from __future__ import annotations

import re
import shutil

from hero_plugin.integrations.cli import COMMANDS
from tests.resources import REPOSITORY
from tests.vocab.samples import build, need_packages, write_world

PAGE = (REPOSITORY / "docs" / "vocabulary.md").read_text()


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    need_packages()
    world = write_world(tmp_path)
    assert build(world) == 0
    (world / "ov").mkdir()
    shutil.copy(world / "ov.json", world / "ov" / "charades_test_ood.json")
    monkeypatch.chdir(world)
    capsys.readouterr()
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "docs/vocabulary.md", "exec"), names)
    assert capsys.readouterr().out == "50.0 {0: 1, 2: 1} crate\n"
    assert names["rewording"].unseen


def test_every_command_is_on_the_page():
    assert set(re.findall(r"hero-plugin (vocab \w+)", PAGE)) == {name for name in COMMANDS if name.startswith("vocab ")}
