"""A file is the old one, the new one or absent, whatever happens while it is written."""

from __future__ import annotations

import pytest

from hero_plugin.integrations.support.files import atomic_path, atomic_write, remove_leftovers, write_text


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_appears_when_it_is_complete(tmp_path, durable):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path, durable=durable) as stream:
        stream.write("whöle\n")
        stream.flush()
        assert not path.exists()
    assert path.read_bytes() == "whöle\n".encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    for before in (False, True):
        if before:
            write_text(path, "old")
        with pytest.raises(error), atomic_write(path, "wb") as stream:
            stream.write(b"half")
            raise error
        assert [p.read_text() for p in tmp_path.iterdir()] == (["old"] if before else [])


def test_a_path_for_libraries_that_open_files_themselves(tmp_path):
    path = tmp_path / "a.bin"
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"x")
        assert temporary.parent == tmp_path and temporary != path
    assert path.read_bytes() == b"x"


def test_leftovers_of_a_killed_process(tmp_path):
    (tmp_path / ".a.npy.writing-0123abcd").write_bytes(b"half")
    (tmp_path / "a.npy").write_bytes(b"whole")
    (tmp_path / ".hidden").write_bytes(b"someone else's")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "a.npy"]


def test_modes(tmp_path):
    with pytest.raises(ValueError, match="mode"), atomic_write(tmp_path / "a", "a"):
        pass
