"""Words, and their vectors from text and .npz."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_plugin.integrations.data.records import clean_sentence
from hero_plugin.integrations.data.words import WordVectors, load_word_vectors, tokenize
from hero_plugin.integrations.support.errors import DataError
from tests.resources import shared


def test_tokens_by_example():
    assert tokenize("A person's WALK-IN closet, opened.") == ["a", "person's", "walk-in", "closet", "opened"]
    assert tokenize("he/she isn’t 2nd!") == ["he", "she", "isn't", "2nd"]
    assert tokenize(" ... ") == []
    assert tokenize("A man doesn't close the man's door, ok.", "treebank") == (
        ["a", "man", "does", "n't", "close", "the", "man", "'s", "door", ",", "ok", "."]
    )
    with pytest.raises(ValueError, match="style must be"):
        tokenize("a", "spacy")


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(max_codepoint=0x2100), max_size=40), st.sampled_from(["words", "treebank"]))
def test_tokens_are_lower_case_and_hold_no_blanks(text, style):
    tokens = tokenize(text, style)
    assert all(token and token == token.lower() and not any(c.isspace() for c in token) for token in tokens)


@given(st.text("abc '-.,é5", max_size=40))
def test_tokenizing_words_again_changes_nothing(text):
    assert tokenize(" ".join(tokenize(text))) == tokenize(text)


def write(tmp_path, lines, name="vectors.txt"):
    path = tmp_path / name
    path.write_bytes(b"\n".join(line.encode("utf-8") if isinstance(line, str) else line for line in lines) + b"\n")
    return path


@pytest.mark.parametrize("style", ["words", "treebank"])
def test_accents_and_hyphens_in_any_coding_do_not_cut_words(style):
    composed = tokenize("Naïve café re-open baseball", style)
    assert composed == ["naïve", "café", "re-open", "baseball"]
    written = unicodedata.normalize("NFD", "Naïve café re\u2011open base\u00adball")
    assert tokenize(written, style) == composed == tokenize(clean_sentence(written), style)


def test_glove_text(tmp_path):
    path = write(tmp_path, ["the 1 2 3", "door -0.5 1e-3 0", "at name@domain.com 7 8 9", "\x85 4 4 4", "the 9 9 9", ""])
    table = load_word_vectors(path)
    assert table.words == ["the", "door", "at name@domain.com", "\x85"]
    assert table.dim == 3 and table.vectors.dtype == np.float32
    np.testing.assert_array_equal(table.get("the"), [1, 2, 3])  # the first of two
    assert "door" in table and table.get("window") is None
    some = load_word_vectors(path, only={"door", "at name@domain.com", "window"})
    assert some.words == ["door", "at name@domain.com"]
    assert len(load_word_vectors(path, only=set())) == 0


def test_word2vec_header_is_skipped(tmp_path):
    assert load_word_vectors(write(tmp_path, ["2 3", "a 1 2 3", "b 1 2 3"])).words == ["a", "b"]


def test_malformed_lines_are_all_reported(tmp_path):
    path = write(tmp_path, ["a 1 2 3", "b 1 2", "c 1 x 3", "d 1 nan 3", "e 1 2 3"])
    with pytest.raises(DataError) as caught:
        load_word_vectors(path)
    assert [p.where for p in caught.value.problems] == [f"{path}:{n}" for n in (2, 3, 4)]
    with pytest.raises(DataError):  # a truncated line shows whoever is wanted
        load_word_vectors(path, only={"a"})
    for text in ("", "one two three\n"):
        with pytest.raises(DataError):
            load_word_vectors(write(tmp_path, [text]))
    with pytest.raises(FileNotFoundError, match="no word vector file"):
        load_word_vectors(tmp_path / "none.txt")


def test_progress_reaches_the_end(tmp_path):
    seen = []
    path = write(tmp_path, [f"w{i} 1 2" for i in range(50000)])
    assert len(load_word_vectors(path, only={"w7"}, progress=lambda done, total: seen.append((done, total)))) == 1
    assert len(seen) == 3 and seen[-1] == (path.stat().st_size,) * 2


def test_npz(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, words=np.array(["a", "b", "a"]), vectors=np.eye(3, dtype=np.float16))
    table = load_word_vectors(path)
    assert table.words == ["a", "b"] and table.vectors.dtype == np.float32
    np.testing.assert_array_equal(table.get("a"), [1, 0, 0])
    assert load_word_vectors(path, only=["b", "c"]).words == ["b"]


@pytest.mark.parametrize(
    "arrays",
    [
        {"vectors": np.eye(2)},
        {"words": np.array(["a"]), "vectors": np.eye(2)},
        {"words": np.array([1, 2]), "vectors": np.eye(2)},
        {"words": np.array(["a", "b"]), "vectors": np.array([[1.0, np.nan], [0.0, 1.0]])},
    ],
)
def test_bad_npz(tmp_path, arrays):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(DataError, match=r"v\.npz"):
        load_word_vectors(tmp_path / "v.npz")


def test_damaged_npz(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, words=np.array(["a", "b"]), vectors=np.eye(2))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"PK\x03\x04 nonsense", b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"v\.npz"):
            load_word_vectors(path)


def test_tables_must_make_sense():
    with pytest.raises(ValueError, match="one row per word"):
        WordVectors(["a"], np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="distinct"):
        WordVectors(["a", "a"], np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(("name", "dim"), [("minilm_words_384.npz", 384), ("glove_charades_300.npz", 300)])
def test_real_tables(name, dim):
    table = load_word_vectors(shared("vectors", name))
    assert table.dim == dim and "door" in table and np.isfinite(table.vectors).all()
