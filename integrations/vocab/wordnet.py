"""WordNet by nltk's reader, from nltk's data or from a folder of WordNet's files."""

from __future__ import annotations

import io
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from hero_plugin.integrations.errors import UserError

__all__ = ["WordNet", "find_wordnet", "open_wordnet"]

FOLDERS = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/usr/share/nltk_data/corpora/wordnet")
_HOW = (
    "install Debian's wordnet-base, or nltk's data (python -m nltk.downloader wordnet), or name the folder of data.noun"
)
# The lexicographer files of WordNet, in their order; Debian's package leaves this list out.
_NOUNS = """Tops act animal artifact attribute body cognition communication event feeling food group location motive
object person phenomenon plant possession process quantity relation shape state substance time"""
_VERBS = """body change cognition communication competition consumption contact creation emotion motion perception
possession social stative weather"""
_LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(f"noun.{name}" for name in _NOUNS.split()),
    *(f"verb.{name}" for name in _VERBS.split()),
    "adj.ppl",
)
_RARE = 0.5  # what a sense counts that the tagged corpus never had, divided by its rank


def find_wordnet(folder: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder of WordNet's files: the one named, nltk's, or a Debian package's; None if there is none.

    Raises:
        UserError: the named folder has no WordNet.
    """
    if folder is not None:
        if not (Path(folder) / "data.noun").is_file():
            raise UserError(f"no WordNet in {folder}: expected a file data.noun there; {_HOW}")
        return Path(folder)
    homes = [Path.home() / "nltk_data", *map(Path, os.environ.get("NLTK_DATA", "").split(os.pathsep))]
    places = [*(home / "corpora" / "wordnet" for home in homes), *map(Path, FOLDERS)]
    return next((place for place in places if (place / "data.noun").is_file()), None)


def open_wordnet(folder: str | os.PathLike[str] | None = None) -> WordNet:
    """Open the WordNet of ``find_wordnet``.

    Raises:
        UserError: there is none; the message says how to get it.
    """
    found = find_wordnet(folder)
    if found is None:
        raise UserError(f"no WordNet on this machine: {_HOW}")
    return WordNet(found)


def _reader(folder: Path) -> Any:
    try:
        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
    except ImportError as error:
        raise UserError('WordNet is read by nltk: pip install "hero-plugin[vocab]"') from error

    class Reader(WordNetCorpusReader):
        def open(self, name: str) -> Any:
            if name == "lexnames":
                return io.StringIO("".join(f"{row:02}\t{each}\t0\n" for row, each in enumerate(_LEXNAMES)))
            return super().open(name)

        def map_wn(self, version: str = "wordnet") -> None:
            """Between WordNet versions; it would ask for nltk's own data."""

    folder = folder.resolve()
    if str(folder) not in nltk.data.path:
        nltk.data.path.append(str(folder))  # nltk opens nothing outside these folders
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the multilingual data, which nobody needs here
        return Reader(nltk.data.FileSystemPathPointer(str(folder)), None)


class WordNet:
    """Senses of words, and how likely each is. Parts of speech are WordNet's letters: n, v, a, r."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reader = _reader(folder)

    @lru_cache(maxsize=50_000)  # noqa: B019 (lives as long as the command)
    def senses(self, lemma: str, pos: str) -> tuple[Any, ...]:
        """Return the synsets of exactly this lemma (blanks allowed), the most frequent first."""
        name = lemma.replace(" ", "_")
        return tuple(s for s in self._reader.synsets(name, pos) if any(_same(own, name) for own in s.lemma_names()))

    @lru_cache(maxsize=50_000)  # noqa: B019
    def shares(self, lemma: str, pos: str) -> tuple[float, ...]:
        """Return how often the lemma has each of ``senses``, adding up to 1, by WordNet's counts in tagged text."""
        name = lemma.replace(" ", "_")
        counts = []
        for rank, sense in enumerate(self.senses(lemma, pos)):
            tagged = sum(own.count() for own in sense.lemmas() if _same(own.name(), name))
            counts.append(tagged + _RARE / (1 + rank))
        total = sum(counts)
        return tuple(count / total for count in counts)

    def knows(self, phrase: str, pos: str | None = None) -> bool:
        """Return whether WordNet has an entry for these words: "living room", "turn on"."""
        return bool(self._entries(phrase.replace(" ", "_"), pos))

    @lru_cache(maxsize=100_000)  # noqa: B019
    def _entries(self, name: str, pos: str | None) -> bool:
        return any(any(_same(own, name) for own in s.lemma_names()) for s in self._reader.synsets(name, pos))

    def frames(self, sense: Any, lemma: str) -> frozenset[int]:
        """Return the numbers of the sentence frames that a verb takes in a sense."""
        name = lemma.replace(" ", "_")
        return frozenset(f for own in sense.lemmas() if _same(own.name(), name) for f in own.frame_ids())


def _same(one: str, other: str) -> bool:
    return one.lower() == other.lower()
