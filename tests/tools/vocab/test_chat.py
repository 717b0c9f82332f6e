"""A language model as a source: a stub server on this machine, and a command."""

from __future__ import annotations

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hero_plugin.integrations.data.annotations import read_annotations
from hero_plugin.integrations.data.records import Record
from hero_plugin.integrations.support.errors import UserError
from hero_plugin.integrations.tools.vocab.english import TaggedQuery
from hero_plugin.integrations.tools.vocab.sources import Chat, ChatConfig

ANSWER = 'Here they are:\n```json\n["a person takes a telephone", "a banana flies", "a person takes a phone"]\n```'
QUERY = TaggedQuery(Record("q", "v", "a person takes a phone", ((0.0, 1.0),), 2.0), (), (), ())


def response(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server():
    """An endpoint that is busy at the first question, and remembers what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.asked.append((self.path, self.headers.get("Authorization"), body))
            code = stub.codes.pop(0) if stub.codes else 200
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(response(stub.answer)).encode() if code == 200 else b"no")

        def log_message(self, *arguments):
            pass

    stub = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.asked, stub.codes, stub.answer = [], [], ANSWER
    stub.url = f"http://127.0.0.1:{stub.server_address[1]}/v1"
    thread = threading.Thread(target=stub.serve_forever, daemon=True)
    thread.start()
    yield stub
    stub.shutdown()
    stub.server_close()


@pytest.mark.slow
def test_an_endpoint(server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    monkeypatch.setenv("SOME_KEY", "secret")
    server.codes = [503, 429]
    source = Chat(ChatConfig(url=server.url, model="m", key_variable="SOME_KEY"), seed=5)
    found = [rewording.sentence for rewording in source.propose(QUERY)]
    assert found == ["a person takes a telephone", "a banana flies"]  # the original is no rewording
    assert len(server.asked) == 3
    path, key, body = server.asked[-1]
    assert path == "/v1/chat/completions" and key == "Bearer secret"
    assert body["seed"] == 5 and body["model"] == "m" and "a person takes a phone" in body["messages"][0]["content"]
    assert "secret" not in json.dumps(source.facts)


def test_an_endpoint_that_says_no(server, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    source = Chat(ChatConfig(url=server.url), seed=0)
    server.codes = [401]
    with pytest.raises(UserError, match="401"):
        list(source.propose(QUERY))
    server.codes = [500] * 4
    with pytest.raises(UserError, match="--resume goes on"):
        list(source.propose(QUERY))
    with pytest.raises(UserError, match="cannot be reached"):
        list(Chat(ChatConfig(url="http://127.0.0.1:1/v1"), seed=0).propose(QUERY))


@pytest.mark.parametrize(
    "text",
    [
        '["He sits.", "She stands."]',
        "1. He sits.\n2. She stands.\n",
        "- He sits.\n- She stands.",
        '"He sits."\n"She stands."',
    ],
)
def test_answers_in_several_shapes(text):
    source = Chat(ChatConfig(), seed=0, transport=lambda request: response(text))
    assert [rewording.sentence for rewording in source.propose(QUERY)] == ["He sits.", "She stands."]


def test_what_is_no_answer():
    with pytest.raises(UserError, match="not a chat response"):
        list(Chat(ChatConfig(), seed=0, transport=lambda request: {"error": "x"}).propose(QUERY))
    with pytest.raises(UserError, match="one of the two"):
        Chat(ChatConfig(), seed=0)
    with pytest.raises(UserError, match=r"\{sentence\}"):
        Chat(ChatConfig(url="http://x", prompt="say something"), seed=0)


def test_a_command(tmp_path):
    script = tmp_path / "model.py"
    script.write_text(
        "import json, sys\n"
        "request = json.load(sys.stdin)\n"
        "assert request['messages'][0]['role'] == 'user'\n"
        f"print(json.dumps({response(ANSWER)!r}))\n"
    )
    source = Chat(ChatConfig(command=f"{sys.executable} {script}"), seed=0)
    assert next(iter(source.propose(QUERY))).sentence == "a person takes a telephone"
    with pytest.raises(UserError, match="ended with 3"):
        list(Chat(ChatConfig(command=f"{sys.executable} -c 'import sys; sys.exit(3)'"), seed=0).propose(QUERY))
    with pytest.raises(UserError, match="no_such_program"):
        list(Chat(ChatConfig(command="no_such_program"), seed=0).propose(QUERY))


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_build_through_an_endpoint(server, world, jobs):
    more = ("--source", "chat", "--chat.url", server.url, "--chat.jobs", jobs)
    assert world.build(*more) == 0
    records = read_annotations(world / "ov.json", on_outside="keep")
    assert [record.sentence for record in records if record.video_id == "V2"] == ["a person takes a telephone"]
    manifest = json.loads((world / "ov.json.manifest.json").read_text())
    assert manifest["source"]["kind"] == "chat" and server.url not in json.dumps(manifest)
    assert len(server.asked) == 4
