"""The page of moments: what it holds, and how it works in a browser at two widths."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.video.page import ShowConfig, page
from hero_plugin.integrations.tools.video.page import main as show
from tests.screen import QUIET
from tests.tools.conftest import wait_for
from tests.tools.video.movies import records_of


def data_of(path):
    text = path.read_text()
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


@pytest.fixture(scope="session")
def shown(asked, tmp_path_factory):
    """A page of two models, with videos."""
    pytest.importorskip("av")
    output = tmp_path_factory.mktemp("page") / "moments.html"
    base = asked.root / "moment_detr"
    config = ShowConfig(
        run=asked.runs["emb"],
        base=base,
        annotations=(f"test={asked.files['test']}",),
        videos=asked.root / "videos",
        output=output,
        device="cpu",
    )
    return show(config, QUIET)


def test_the_page_holds_what_was_annotated_and_answered(shown, asked):
    data = data_of(shown)
    records = records_of(asked.files["test"])
    assert data["models"] == ["HERO-Moment-DETR", "HERO-EMB"] and data["sets"] == ["test"]
    for item, record in zip(data["items"], records, strict=True):
        assert item["query"] == record.sentence and item["truth"] == [list(each) for each in record.moments]
        for answer in item["answers"]:
            (start, end), (left, right) = answer["moment"], record.moments[0]
            both = max(0.0, min(end, right) - max(start, left))
            assert answer["iou"] == pytest.approx(both / (end - start + right - left - both), abs=0.01)
        assert 0 < len(item["relevance"]) <= 200
    for name, video in data["videos"].items():
        assert (shown.parent / video["src"]).resolve() == (asked.root / "videos" / f"{name}.mp4").resolve()


def test_own_queries_about_a_file(asked, tmp_path):
    output = tmp_path / "own.html"
    words = ["show", "a red square", "the crimson </script> disc", "--video", str(asked.video), "--output", str(output)]
    assert command([*words, "--run", str(asked.runs["emb"])]) == 0
    data = data_of(output)
    assert [each["unseen"] for each in data["items"]] == [[], ["crimson", "script"]]
    assert data["items"][0]["truth"] == [] and data["items"][0]["answers"][0]["iou"] is None
    assert command([*words, "--run", str(asked.runs["emb"])]) == 2  # it is there already


def test_levels_are_asked_of_hero_alone(asked, tmp_path):
    config = ShowConfig(
        run=asked.runs["emb"], base=asked.plain, video=asked.video, query=("a disc",), levels=(1,), device="cpu"
    )
    assert data_of(show(replace(config, output=tmp_path / "x.html"), QUIET))["models"] == ["EMB", "HERO-EMB"]
    with pytest.raises(UserError, match="--levels is for HERO's levels"):
        show(replace(config, run=asked.plain, base=None, output=tmp_path / "y.html"), QUIET)


def test_threads_are_those_asked_for(asked, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    config = ShowConfig(run=asked.runs["emb"], video=asked.video, query=("a disc",), threads=3, device="cpu")
    show(replace(config, output=tmp_path / "x.html"), QUIET)
    assert counts == [3]


def test_a_file_beside_a_video_does_not_take_its_place(asked, tmp_path):
    videos, output = shutil.copytree(asked.root / "videos", tmp_path / "videos"), tmp_path / "x.html"
    (videos / "test000.txt").write_text("subtitles")
    test = (f"test={asked.files['test']}",)
    show(ShowConfig(run=asked.runs["emb"], annotations=test, videos=videos, output=output, device="cpu"), QUIET)
    assert data_of(output)["videos"]["test000"]["src"] == "videos/test000.mp4"


def test_what_cannot_be_shown_is_refused(asked, tmp_path):
    output, run = tmp_path / "x.html", asked.runs["emb"]
    (tmp_path / "empty").mkdir()
    test = (f"test={asked.files['test']}",)
    for flags, what in (
        ({"video": asked.video}, "go together"),
        ({"query": ("a disc",)}, "go together"),
        ({"annotations": (), "videos": None}, "no test sets"),
        ({"annotations": test, "videos": tmp_path / "none"}, "no such folder"),
        ({"annotations": test, "videos": asked.runs["emb"]}, "no file is called like"),
        ({"video": asked.video, "query": ("a disc",), "videos": tmp_path}, "annotated sets: --videos"),
        ({"video": asked.video, "query": ("a disc",), "features": test, "limit": 1}, "sets: --features, --limit"),
        ({"video": asked.video, "query": ("a disc",), "on_broken": "drop"}, "sets: --on-broken"),
    ):
        with pytest.raises(UserError, match=what):
            show(ShowConfig(run=run, output=output, device="cpu", **flags), QUIET)
    assert not output.exists()


def made_page(folder, movie):
    """A page of made answers, so that figures are known."""
    shutil.copy(movie, folder / "plain.mp4")
    items = []
    for number, (ious, unseen) in enumerate([((0.2, 0.9), []), ((0.8, 0.3), ["crimson"]), ((0.6, 0.65), [])]):
        said = [{"moment": [1 + place, 6 + place], "score": 0.5, "iou": iou} for place, iou in enumerate(ious)]
        query = f"a {'crimson' if unseen else 'red'} square number {number}"
        about = {"id": str(number), "set": "test", "video": "plain", "query": query, "truth": [[1.0, 6.0]]}
        items.append({**about, "answers": said, "relevance": [0.1, 0.9, 0.4], "unseen": unseen})
    items += [{**items[0], "id": str(each), "query": f"filler {each}"} for each in range(3, 60)]
    videos = {"plain": {"duration": 15.5, "src": "plain.mp4"}}
    path = folder / "page.html"
    models = {"models": ["EMB", "HERO-EMB"], "sets": ["test"], "videos": videos, "items": items}
    path.write_text(page("Moments <of> a test", models), encoding="utf-8")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 420])
def test_in_a_browser(browser, movie, tmp_path, width):
    browser.set_window_size(width, 800)
    browser.get(made_page(tmp_path, movie).as_uri())

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def titles():
        return [each.get_attribute("textContent") for each in all_of("article h2")]

    def choose(name, value):
        browser.find_element("css selector", f"#{name} option[value={value}]").click()

    assert browser.find_element("id", "count").text == "60 queries, R1@0.5 98.3"
    assert len(titles()) == 40
    assert [each.get_attribute("textContent") for each in all_of("article mark")] == ["crimson (unseen)"]
    choose("filter", "lost")
    assert titles() == ["a crimson (unseen) square number 1"]
    choose("filter", "all")
    choose("sort", "worst")
    assert titles()[:2] == ["a crimson (unseen) square number 1", "a red square number 2"]
    choose("sort", "gain")
    assert titles()[0] == "a red square number 0"
    choose("sort", "file")
    body = browser.find_element("tag name", "body")
    body.send_keys("/")
    assert browser.switch_to.active_element.get_attribute("id") == "find"
    browser.switch_to.active_element.send_keys("number 2")
    assert titles() == ["a red square number 2"]
    # By keyboard alone, from the search box to a moment: it plays from there.
    for _ in range(20):
        browser.switch_to.active_element.send_keys("\ue004")
        if "play HERO-EMB" in (browser.switch_to.active_element.get_attribute("aria-label") or ""):
            break
    assert browser.switch_to.active_element.get_attribute("aria-label") == "play HERO-EMB, 0:02.0 to 0:07.0"
    browser.switch_to.active_element.send_keys("\ue007")
    assert wait_for(lambda: browser.execute_script("return document.getElementById('video').currentTime") >= 2)
    assert browser.find_element("id", "now").text == "plain, 0:02.0 to 0:07.0"
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.find_element("id", "find").clear()
    browser.find_element("id", "find").send_keys("nothing like it")
    assert all_of("article") == [] and "No query is like that." in browser.page_source
    # What has a part to play has a name for who does not see it.
    nameless = """return [...document.querySelectorAll("input, select, button")].filter(each =>
        !(each.labels && each.labels.length) && !each.getAttribute("aria-label") && !each.textContent.trim()).length"""
    assert browser.execute_script(nameless) == 0
    assert [each for each in browser.get_log("browser") if each["level"] == "SEVERE"] == []
