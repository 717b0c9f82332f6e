"""Sources of rewordings: their interface, several as one, a file of paraphrases, and a language model.

The language model speaks OpenAI's chat format, through an HTTP endpoint or a command.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Protocol

from hero_plugin.integrations.data.records import Change, Rewording, clean_sentence
from hero_plugin.integrations.data.words import tokenize
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.grammar import TaggedQuery


class Source(Protocol):
    """A proposer of rewordings, which filters judge. The same query must get the same proposals every time."""

    name: str

    def propose(self, query: TaggedQuery) -> Iterable[Rewording]:
        """Return rewordings of a query."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""


class CombinedSource:
    """Several sources as one; each rewording names the source that it came from."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self.name = ", ".join(source.name for source in sources)
        self.jobs = max(getattr(source, "jobs", 1) for source in sources)

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Iterate over the rewordings of every source."""
        for source in self._sources:
            for rewording in source.propose(query):
                yield replace(rewording, source=source.name)

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return {"kind": "several", "sources": [source.describe() for source in self._sources]}


def paraphrase(query: TaggedQuery, sentence: str) -> Rewording | None:
    """Return a new sentence as a rewording, None if it says nothing new."""
    sentence = clean_sentence(sentence)
    before, after = tokenize(query.sentence), tokenize(sentence)
    changes = tuple(
        Change(" ".join(before[a:b]), " ".join(after[c:d]), "paraphrase")
        for what, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
        if what != "equal"
    )
    return Rewording(sentence, changes) if sentence and changes else None


class Paraphrases:
    """A file of ready paraphrases, one per line.

    JSON ``{"query": ID, "sentence": NEW}`` or ``{"original": TEXT, "sentence": NEW}``, or tab-separated: the original
    sentence or the query's id, then the new sentence.
    """

    name = "paraphrases"

    def __init__(self, path: Path, checksum: str) -> None:
        self._facts = {"kind": "paraphrases", "file": path.name, "sha256": checksum}
        self._known: dict[str, list[str]] = defaultdict(list)
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                key, sentence = _pair(path, number, line)
                self._known[clean_sentence(key).lower()].append(sentence)

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Iterate over the paraphrases of a query."""
        keys = (query.record.query_id.lower(), query.sentence.lower())
        for sentence in dict.fromkeys(s for key in keys for s in self._known.get(key, ())):
            if (found := paraphrase(query, sentence)) is not None:
                yield found

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        return self._facts


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    shapes = '{"query": ID, "sentence": TEXT}, {"original": TEXT, "sentence": TEXT}, or ID or TEXT, tab, TEXT'
    if line.lstrip().startswith("{"):
        try:
            row = json.loads(line)
            return str(row["query"] if "query" in row else row["original"]), str(row["sentence"])
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}:{number}: {error}; expected {shapes}") from error
    key, tab, sentence = line.partition("\t")
    if not tab or not sentence.strip():
        raise UserError(f"{path}:{number}: cannot be read: {line[:60]!r}; expected {shapes}")
    return key, sentence


Transport = Callable[[dict[str, Any]], dict[str, Any]]
"""What answers a chat request."""

_PROMPT = """You reword a sentence that describes a moment of a video, to test how models cope with words new to them.
- Keep the meaning exactly: the same people, objects, actions and their order. Add nothing, leave nothing out.
- Change at least one content word to a real, correctly spelled English word that is less usual.
- Keep the grammar right: number, tense, articles.
Answer with a JSON list of {number} different rewordings and nothing else.

Sentence: {sentence}"""
_RETRIES = 3


@dataclass(frozen=True)
class ChatConfig:
    """Settings of a language model as a source."""

    url: str = ""
    """The endpoint: http://HOST/v1, or all of it up to /chat/completions."""
    command: str = ""
    """Or a command that reads a chat request (JSON) on its standard input and writes the response."""
    model: str = "default"
    rewordings: int = 3
    """Rewordings requested per query."""
    temperature: float = 0.7
    timeout: float = 60.0
    """Seconds that one answer may take."""
    jobs: int = 1
    """Requests at the same time."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the endpoint's key, where it wants one. The key is never written anywhere."""
    prompt: str = _PROMPT
    """The request, with {sentence} and {number} in it."""


class Chat:
    """A language model that proposes several rewordings of a query per request."""

    name = "chat"

    def __init__(self, config: ChatConfig, seed: int, transport: Transport | None = None) -> None:
        if transport is None and bool(config.url) == bool(config.command):
            raise UserError("a chat source needs --chat.url (an endpoint) or --chat.command, one of the two")
        if "{sentence}" not in config.prompt:
            raise UserError("--chat.prompt must have {sentence} in it, where the query goes")
        self.config, self._seed = config, seed
        self.jobs = max(1, config.jobs)
        self._ask = transport or (http_transport(config) if config.url else command_transport(config))

    def propose(self, query: TaggedQuery) -> Iterator[Rewording]:
        """Ask for rewordings of a query."""
        config = self.config
        prompt = config.prompt.replace("{sentence}", query.sentence).replace("{number}", str(config.rewordings))
        request = {
            "model": config.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": config.temperature,
            "seed": self._seed,
        }
        response = self._ask(request)
        try:
            answer = str(response["choices"][0]["message"]["content"])
        except (LookupError, TypeError) as error:
            shape = '{"choices": [{"message": {"content": ...}}]}'
            raise UserError(f"not a chat response: expected {shape}, got {str(response)[:200]}") from error
        for sentence in dict.fromkeys(_sentences(answer)):
            if (found := paraphrase(query, sentence)) is not None:
                yield found

    def describe(self) -> dict[str, Any]:
        """Return the settings, for the manifest."""
        settings = {name: getattr(self.config, name) for name in ("model", "temperature", "rewordings", "prompt")}
        return {"kind": "chat", "through": "http" if self.config.url else "command", **settings}


def http_transport(config: ChatConfig) -> Transport:
    """Return a transport to an endpoint; the client repeats what a busy or failing server does not answer.

    Raises:
        UserError: the ``openai`` package is not installed; while asking, the endpoint does not answer as expected.
    """
    try:
        import openai
    except ImportError as error:
        raise UserError('--chat.url needs the openai package: pip install "hero-plugin[chat]"') from error
    url = config.url.rstrip("/").removesuffix("/chat/completions")
    # The client insists on a key; endpoints that need none ignore it.
    key = os.environ.get(config.key_variable) or "none"
    client = openai.OpenAI(base_url=url, api_key=key, timeout=config.timeout, max_retries=_RETRIES)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        try:
            # The raw body: not every compatible endpoint names its content type.
            return json.loads(client.chat.completions.with_raw_response.create(**request).text)
        except ValueError as error:
            raise UserError(f"{url} does not answer with JSON ({error}); is it a chat endpoint?") from error
        except openai.OpenAIError as error:
            code = getattr(error, "status_code", 500)
            if code != 429 and code < 500:
                raise UserError(f"{url} answers {error}; check --chat.url, --chat.model and the key") from error
            saved = "finished queries are saved, --resume goes on"
            raise UserError(f"{url} cannot be reached ({error}); {saved}") from error

    return ask


def command_transport(config: ChatConfig) -> Transport:
    """Return a transport that runs the command once per request."""
    words = shlex.split(config.command)

    def ask(request: dict[str, Any]) -> dict[str, Any]:
        try:
            done = subprocess.run(
                words, input=json.dumps(request), capture_output=True, text=True, timeout=config.timeout, check=True
            )
            return json.loads(done.stdout)
        except subprocess.CalledProcessError as error:
            message = f"ended with {error.returncode}: {error.stderr[-300:]}"
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            message = str(error)
        raise UserError(f"--chat.command {config.command!r}: {message}; it must write a chat response as JSON")

    return ask


def _sentences(text: str) -> list[str]:
    """Return the sentences of an answer: a JSON list, also inside a code fence, or one per line."""
    if match := re.search(r"\[.*\]", text, flags=re.DOTALL):
        try:
            found = json.loads(match.group())
            return [item for item in found if isinstance(item, str)]
        except ValueError:
            pass
    lines = (re.sub(r"^\s*(?:\d+[.)]|[-*•])\s*", "", line).strip().strip('"') for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("```")]
