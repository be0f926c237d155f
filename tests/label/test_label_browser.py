"""The page in a real browser: by keyboard, in two tabs, after a kill, on every screen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from label_fakes import Client, make_candidates, make_session, rows_of, serving
from test_label_page import HOSTILE

pytestmark = pytest.mark.slow
WAIT = 60  # seconds, on a machine that may be busy
LOADED = "document.readyState === 'complete' && document.querySelector('main') !== null"
COMMAND = (
    "import sys; from alignzoo.cli.options import run_class;"
    "from alignzoo_label.command import LabelCommand;"
    "run_class(LabelCommand, sys.argv[1:], 'alignzoo label', LabelCommand.positional)"
)


def wait_for(browser, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT).until(lambda driver: driver.execute_script(condition))


def press(browser, key: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(key).perform()


def shown_id(browser) -> str | None:
    return browser.execute_script("return document.querySelector('[name=id]')?.value")


def open_page(browser, url: str) -> None:
    """Open the address with the token, which leads to the page."""
    browser.get(url)
    wait_for(browser, f"return {LOADED}")


def answer_by(browser, key: str) -> None:
    """Press a key, and wait for the page that follows."""
    before = shown_id(browser)
    press(browser, key)
    other = f"document.querySelector('[name=id]')?.value !== '{before}'"
    wait_for(browser, f"return {LOADED} && {other}")


def better_key(browser) -> str:
    """The key for the good completion."""
    from selenium.webdriver.common.keys import Keys

    left = browser.execute_script("return document.querySelector('.answer .text').textContent")
    return Keys.ARROW_LEFT if left.startswith("good") else Keys.ARROW_RIGHT


def test_thirty_pairs_by_keyboard_with_undo_a_note_and_a_reload(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    path = tmp_path / "a.jsonl"
    session = make_session(path, make_candidates(30), repeat=0.1)
    with serving(session) as client:
        open_page(browser, client.url)
        assert client.token not in browser.current_url
        for number in range(33):
            if number == 5:
                press(browser, "n")
                press(browser, "left bt")  # no key of these answers while one writes
                press(browser, Keys.ESCAPE)
            if number == 9:
                answer_by(browser, "u")
                assert "taken back" in browser.page_source
                answer_by(browser, better_key(browser))
            if number == 12:
                before = shown_id(browser)
                browser.refresh()
                assert shown_id(browser) == before
            answer_by(browser, better_key(browser))
        assert "Everything is answered." in browser.page_source
        assert "3 of 3" in browser.find_element("id", "consistency").text
        assert browser.get_log("browser") == []
    rows = rows_of(path)
    assert len({row["item"] for row in rows}) == len(rows) == 30
    assert all(row["chosen"][0]["content"].startswith("good") for row in rows)
    assert [row["note"] for row in rows if "note" in row] == ["left bt"]
    assert len(rows_of(tmp_path / "a.rest.jsonl")) == 3


def test_two_tabs_on_one_pair_give_one_answer(browser, tmp_path):
    path = tmp_path / "a.jsonl"
    with serving(make_session(path, make_candidates(3))) as client:
        open_page(browser, client.url)
        first = browser.current_window_handle
        browser.switch_to.new_window("tab")
        open_page(browser, client.home)
        before = shown_id(browser)
        answer_by(browser, "t")
        second = browser.current_window_handle
        browser.switch_to.window(first)
        assert shown_id(browser) == before
        answer_by(browser, "b")
        assert "in another tab" in browser.find_element("id", "notice").text
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)
    assert [row["verdict"] for row in rows_of(tmp_path / "a.rest.jsonl")] == ["tie"]
    assert not path.exists()


def start(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the command in a process of its own; return it with the address of its page."""
    words = "--completions c.jsonl --out a.jsonl --who ann --repeat 0".split()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("http"):
            return process, line.strip()
    raise AssertionError("no address")


def test_a_kill_after_an_answer_loses_nothing_and_repeats_nothing(browser, tmp_path):
    rows = [{"prompt": f"q {i}", "completions": [f"good {i}", f"poor {i}"]} for i in range(4)]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    process, url = start(tmp_path)
    open_page(browser, url)
    answer_by(browser, better_key(browser))
    port, token = re.fullmatch(r"http://127.0.0.1:(\d+)/\?token=(\S+)", url).groups()
    # This answer is sent, and the page that follows it is never asked for.
    Client(int(port), token, f"alignzoo-label-{port}").answer("tie")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process, url = start(tmp_path)
    open_page(browser, url)
    for _ in range(2):
        answer_by(browser, better_key(browser))
    assert "Everything is answered." in browser.page_source
    browser.find_element("css selector", "form[action='/finish'] button").click()
    out = process.stdout.read()
    assert process.wait(WAIT) == 0
    assert "alignzoo run dpo --data a.jsonl" in out
    assert "answers: 4 (" in out
    found = [*rows_of(tmp_path / "a.jsonl"), *rows_of(tmp_path / "a.rest.jsonl")]
    assert sorted(row["prompt"] for row in found) == [f"q {i}" for i in range(4)]


def test_hostile_texts_are_text_and_the_script_knows_no_stranger(browser, tmp_path):
    session = make_session(tmp_path / "a.jsonl", make_candidates(1, (HOSTILE, "b" * 2**20)))
    with serving(session) as client:
        browser.get_log("performance")
        open_page(browser, client.url)
        assert browser.execute_script("return window.canary") is None
        text = browser.execute_script("return document.body.textContent")
        assert "<script>canary=1</script>" in text and "{{ 7*7 }}" in text
        assert r"\u202eabc" in text and "\u202e" not in text
        assert browser.execute_script("return document.images.length") == 0
        # Even a script that got into the page would not run, and reach nobody.
        browser.execute_script(
            "const s = document.createElement('script'); s.textContent = 'window.canary = 1';"
            "document.body.append(s)"
        )
        assert browser.execute_script("return window.canary") is None
        messages = [
            json.loads(entry["message"])["message"] for entry in browser.get_log("performance")
        ]
        asked = {
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        }
        assert {url for url in asked if not url.startswith("data:")} == {
            client.url,
            *(f"{client.home}/{name}" for name in ("", "page.css", "page.js")),
        }


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_fits_a_screen_and_its_colours(browser, tmp_path, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    session = make_session(tmp_path / "a.jsonl", make_candidates(2, ("a" * 500, "b c " * 100)))
    with serving(session) as client:
        open_page(browser, client.url)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        tops = browser.execute_script(
            "return [...document.querySelectorAll('.answer')]"
            ".map(answer => answer.getBoundingClientRect().top)"
        )
        assert (tops[0] == tops[1]) == (width > 700)
        colours = browser.execute_script(
            "const style = getComputedStyle(document.body);"
            "return [style.backgroundColor, style.color]"
        )
        page, text = (sum(map(int, c.split("(")[1].rstrip(")").split(",")[:3])) for c in colours)
        assert (page < text) == (scheme == "dark")


def test_a_screen_reader_has_names_and_roles_for_all(browser, tmp_path):
    with serving(make_session(tmp_path / "a.jsonl", make_candidates(2))) as client:
        open_page(browser, client.url)
        tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        named = {
            (node["role"]["value"], node["name"]["value"])
            for node in tree
            if not node["ignored"] and node.get("name", {}).get("value")
        }
        for role, name in [
            ("region", "Prompt"),
            ("region", "Left answer"),
            ("region", "Right answer"),
            ("group", "Your answer"),
            ("button", "Left is better ←"),
            ("button", "Undo U"),
            ("textbox", "Note N"),
            ("progressbar", "0 of 2"),
        ]:
            assert (role, name) in named
        assert any(role == "heading" for role, _ in named)
