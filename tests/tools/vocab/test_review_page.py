"""The review page: self-contained, and working in a real browser from the keyboard."""

from __future__ import annotations

import json
import re

import pytest

from hero_plugin.integrations.data.annotations import write_annotations
from hero_plugin.integrations.data.records import REWORDED, Change, Record, Rewording, reworded_record
from hero_plugin.integrations.support.files import checksum
from hero_plugin.integrations.tools.vocab.review import load_decisions, review_page
from tests.tools.conftest import wait_for

SENTENCES = (
    ("person takes a phone", "person takes a telephone", "synonym", "thing"),
    ("person opens a box</script><b>", "person opens a crate</script><b>", "synonym", "thing"),
    ("a man drives a car", "a man drives a vehicle", "hypernym", "thing"),
    ("she eats", "she dines", "synonym", "action"),
)


def records():
    return [
        reworded_record(
            Record(f"V_{place}", "V", old, ((1.0, 2.5),), 9.0),
            Rewording(new, (Change(old, new, kind, part=part),), (new.split()[-1],)),
            1,
            "test",
        )
        for place, (old, new, kind, part) in enumerate(SENTENCES)
    ]


def test_the_page_needs_nothing_else():
    page = review_page([*records(), Record("W", "W", "untouched", ((0, 1),), 2)], "ov.json", "abc")
    assert not re.search(r"""(?:src|href)\s*=\s*["']|@import|url\(|https?://|fetch\(|XMLHttpRequest""", page)
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    items = json.loads(data)["items"]
    assert [item["reworded"] for item in items] == [new for _, new, *_ in SENTENCES]
    assert items[0]["moment"] == [[1.0, 2.5]] and items[2]["kind"] == "hypernym"


def test_the_command(world, vocab, capsys):
    assert world.build() == 0
    assert vocab("review", "--input", world / "ov.json", "--output", world / "r.html") == 0
    assert checksum(world / "ov.json") in (world / "r.html").read_text()
    assert vocab("review", "--input", world / "test.json", "--output", world / "r.html", "--overwrite") == 2
    assert "no links" in capsys.readouterr().err


def test_the_page_takes_no_file_s_place(tmp_path, vocab, capsys):
    write_annotations(records(), tmp_path / "ov.json", format="captions")
    before = (tmp_path / "ov.json").read_bytes()
    (tmp_path / "r.html").write_text("mine")
    for output, flags in (("ov.json", ["--overwrite"]), ("r.html", [])):
        assert vocab("review", "--input", tmp_path / "ov.json", "--output", tmp_path / output, *flags) == 2
        assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "ov.json").read_bytes() == before and (tmp_path / "r.html").read_text() == "mine"
    assert vocab("review", "--input", tmp_path / "ov.json", "--output", tmp_path / "r.html", "--overwrite") == 0
    assert "<html" in (tmp_path / "r.html").read_text()


def press(browser, keys):
    for key in keys:
        browser.find_element("tag name", "body").send_keys(key)


def decisions(browser):
    return browser.execute_script("return exported().decisions")


def chips(browser):
    return {
        c.get_attribute("data-show"): int(c.find_element("tag name", "b").text)
        for c in browser.find_elements("css selector", ".chip")
    }


@pytest.mark.slow
def test_in_a_browser(browser, tmp_path):
    page = tmp_path / "r.html"
    page.write_text(review_page(records(), "ov.json", "abc"), encoding="utf-8")
    browser.get(page.as_uri())
    marks = [(m.get_attribute("class"), m.text) for m in browser.find_elements("css selector", ".pair mark")]
    assert marks == [("old", "phone"), ("new", "telephone")]
    press(browser, "ar")  # each decision goes to the next one
    assert decisions(browser) == {
        "V_0~1": {"verdict": "accept", "of": SENTENCES[0][1]},
        "V_1~1": {"verdict": "reject", "of": SENTENCES[1][1]},
    }
    press(browser, "e")
    editor = wait_for(lambda: browser.find_elements("id", "editor"))[0]
    wait_for(lambda: browser.switch_to.active_element == editor)
    editor.clear()
    editor.send_keys("a man drives an  automobile\n")
    edited = {"verdict": "edit", "sentence": "a man drives an automobile", "of": SENTENCES[2][1]}
    assert decisions(browser)["V_2~1"] == edited
    assert chips(browser) == {"all": 4, "": 1, "accept": 1, "edit": 1, "reject": 1}

    def kept():  # a busy browser takes a moment to have written
        browser.refresh()
        return len(decisions(browser)) == 3

    assert wait_for(kept)
    assert "3 of 4 decided" in browser.page_source
    press(browser, "kx")  # back to the edited one, and take that back
    assert "V_2~1" not in decisions(browser)
    press(browser, "z")
    assert decisions(browser)["V_2~1"]["sentence"] == "a man drives an automobile"
    press(browser, "u")
    assert "she eats" in browser.find_element("id", "card").text
    browser.find_element("css selector", '.chip[data-show="reject"]').click()
    assert [row.text.split("\n")[-1] for row in browser.find_elements("css selector", ".row")] == [SENTENCES[1][1]]
    browser.find_element("css selector", '.chip[data-show="all"]').click()
    menu = browser.find_element("id", "kind")
    groups = {group.get_attribute("label"): group.text.split() for group in menu.find_elements("tag name", "optgroup")}
    assert groups == {"kind": ["hypernym", "synonym"], "part": ["action", "thing"]}
    menu.find_element("css selector", 'option[value="part:action"]').click()
    assert [row.text.split("\n")[-1] for row in browser.find_elements("css selector", ".row")] == [SENTENCES[3][1]]
    press(browser, "s")
    file = tmp_path / "ov.decisions.json"
    assert wait_for(file.exists)
    found = load_decisions(file)
    assert {key: value.verdict for key, value in found.items()} == {
        "V_0~1": "accept",
        "V_1~1": "reject",
        "V_2~1": "edit",
    }
    assert set(found) <= {record.extra[REWORDED]["id"] for record in records()}
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
