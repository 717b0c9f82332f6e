"""The page to ask a run in a browser: asked, dropped on, played, at two widths; stopped; and what is refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hero_plugin.integrations.cli import main as command
from hero_plugin.integrations.support import UserError
from hero_plugin.integrations.tools.video.page import AppConfig
from hero_plugin.integrations.tools.video.page import serve as app
from tests.screen import QUIET
from tests.tools.conftest import wait_for


@pytest.fixture
def served(asked, tmp_path):
    """The command at work, and the address that it says."""
    pytest.importorskip("gradio", reason='Gradio is not installed: pip install "hero-plugin[app]"')
    words = [
        "app",
        asked.video,
        "--run",
        asked.runs["moment_detr"],
        "--port",
        "0",
        "--cache",
        tmp_path,
        "--device",
        "cpu",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "hero_plugin.integrations.cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        line = next((line for line in process.stdout if line.startswith("http://")), None)
        if line is None:
            pytest.fail(process.stderr.read())
        yield process, line.split()[0]
        process.kill()


def shot(browser, name):
    """Keep a picture of the page where HERO_SCREENSHOTS names a folder."""
    if folder := os.environ.get("HERO_SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 400])
def test_in_a_browser(asked, served, browser, movie, tmp_path, width):
    process, address = served
    # Headless Chromium's window has at least 500 pixels; the page itself may be narrower.
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address)

    def all_of(selector):
        return browser.find_elements("css selector", selector)

    def labelled(text):
        return wait_for(lambda: browser.execute_script(
            """return [...document.querySelectorAll("textarea, input")].find(each =>
               [...each.labels].some(label => label.textContent.includes(arguments[0]))
               || (each.getAttribute("aria-label") || "").includes(arguments[0]))""", text
        ))  # fmt: skip

    def said():
        return browser.execute_script("return document.getElementById('said').textContent.trim()")

    box = labelled("What to look for")
    assert labelled("Video").get_attribute("value") == "test000"
    assert wait_for(lambda: browser.switch_to.active_element == box)
    shot(browser, f"empty-{width}")
    box.send_keys("\ue007")
    assert wait_for(lambda: "no query yet: type" in said())
    shot(browser, f"refused-{width}")
    box.send_keys("the crimson square\ue007")
    assert wait_for(lambda: "Training never had: crimson." in said(), 120)  # models are loaded
    assert said().startswith("Best: 0:") and ", score " in said()
    box.clear()
    box.send_keys("?!\ue007")
    assert wait_for(lambda: said() == "no word in the query '?!': say what to look for")
    box.clear()
    box.send_keys("a <b>red</b> disc\ue007")
    assert wait_for(lambda: "Training never had: b." in said())
    nameless = """return [...document.querySelectorAll("input, textarea, button, iframe")].filter(each =>
        each.offsetParent && !(each.labels && each.labels.length) && !each.getAttribute("aria-label") && !each.title
        && !each.textContent.trim()).map(each => each.outerHTML)"""
    assert browser.execute_script(nameless) == []
    shot(browser, f"answered-{width}")

    # The newest answer is above, and its moments are played by keyboard.
    [frame] = all_of("iframe")
    assert wait_for(lambda: frame.size["height"] > 300)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.switch_to.frame(frame)
    titles = [each.get_attribute("textContent") for each in all_of("article h2")]
    assert titles == ["a <b (unseen)>red</b (unseen)> disc", "the crimson (unseen) square"]
    moments = all_of("article:first-of-type .times button")
    assert moments and all(", score 0." in each.text for each in moments)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    last = moments[-1].get_attribute("aria-label")
    moments[-1].send_keys("\ue007")
    assert wait_for(lambda: browser.execute_script("return document.getElementById('video').readyState") >= 2)
    now = browser.find_element("id", "now").text
    assert now.startswith("test000.mp4, 0:") and now.partition(", ")[2] in last
    browser.switch_to.default_content()
    shot(browser, f"played-{width}")

    # A file that is dropped is asked instead; what is no video is refused, and the answers stay.
    def drop(file):
        wait_for(lambda: all_of("input[type=file]"))[0].send_keys(str(file))
        assert wait_for(lambda: file.stem in browser.find_element("tag name", "body").text)
        box.send_keys("\ue007")

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    drop(tmp_path / "broken.mp4")
    assert wait_for(lambda: said().startswith("broken.mp4: cannot be read as a video"))
    shot(browser, f"broken-{width}")
    browser.find_element("css selector", "button[aria-label=Clear]").send_keys("\ue007")
    drop(movie)
    assert wait_for(lambda: said().startswith("Best: "), 60)
    browser.switch_to.frame(all_of("iframe")[0])
    [moment] = all_of("article")
    moment.find_element("css selector", ".times button").click()
    assert wait_for(lambda: browser.execute_script("return document.getElementById('video').readyState") >= 2)
    assert browser.find_element("id", "now").text.startswith("plain.mp4, ")
    browser.switch_to.default_content()

    # Nothing was asked of anyone else: what an older Gradio's page asks for is refused by the browser.
    logged = [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    refused = [each for each in logged if "violates the following Content Security Policy" in each]
    assert logged == refused
    names = browser.execute_script("return performance.getEntriesByType('resource').map(each => each.name)")
    others = [name for name in names if not name.startswith((address, "data:", "blob:"))]
    assert all(name in "".join(refused) for name in others)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read().strip() == "stopped"
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]  # what was dropped is gone


def test_what_cannot_be_served_is_refused(asked, tmp_path, monkeypatch, capsys):
    run = asked.runs["emb"]
    with pytest.raises(FileNotFoundError, match="no video at"):
        app(AppConfig(run=run, videos=(tmp_path / "none.mp4",)), QUIET)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="name another --port"):
        app(AppConfig(run=run, port=taken.getsockname()[1]), QUIET)
    assert command(["app", "--run", str(tmp_path), "--port", "0"]) == 2
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert command(["app", "--run", str(run), "--port", "0"]) == 2
    assert 'pip install "hero-plugin[app]"' in capsys.readouterr().err
