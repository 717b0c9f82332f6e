"""What a script's imports lack is found without running any of it."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.tools.launch.run import how_to_install, missing_modules, parse_command


@pytest.fixture
def repository(tmp_path):
    for folder in ("package/inner", "tools/more"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("package/__init__.py", "package/inner/__init__.py"):
        (tmp_path / name).write_text("")
    return tmp_path


def lacked(repository, **files):
    for name, code in files.items():
        (repository / (name.replace("__", "/") + ".py")).write_text(code)
    return missing_modules(parse_command(repository, ["package/train.py"]))


def test_through_the_repositorys_own_files(repository):
    found = lacked(
        repository,
        package__train="import os, absent_a\nfrom package.inner import deep\nimport beside\n",
        package__beside="import package.other as other\n",
        package__other="from .inner.deep import x\nfrom . import inner\nfrom absent_b.c import d\n",
        package__inner__deep="from .. import sibling\nimport numpy.linalg, package.train\n",
        package__sibling="import absent_c\n",
        package__unused="import absent_d\n",
    )
    assert found == ["absent_a", "absent_b", "absent_c"]


def test_what_need_not_be_there(repository):
    found = lacked(
        repository,
        package__train="try:\n    import absent_a\nexcept ImportError:\n    pass\n"
        "if False:\n    import absent_b\ndef late():\n    import absent_c\nimport python_2\n"
        "import sys\nsys.path.append('tools')\nimport helper, more\n",
        package__python_2="print 'an import of absent_d'\nimport absent_d\n",
        tools__helper="",
        tools__more__start="",
    )
    assert found == []


def test_one_line_installs_all():
    assert how_to_install("EMB", ["nltk", "sklearn"]).endswith("pip install nltk scikit-learn")
    assert how_to_install("Lighthouse", ["clip", "ffmpeg"]).endswith(
        "pip install git+https://github.com/openai/CLIP.git ffmpeg-python"  # pip's own clip and ffmpeg are others
    )
