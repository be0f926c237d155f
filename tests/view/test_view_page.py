"""The page of `alignzoo view` in a real browser: it fits, runs nothing and loads nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from view_fakes import answer, drawn, make_folder

from alignzoo_view.command import ViewCommand

pytestmark = pytest.mark.slow
ELSEWHERE = "http://elsewhere.invalid"
HOSTILE = (
    f"\"'><img src={ELSEWHERE}/i onerror=canary=1></p></style><script>canary=1</script>"
    f"<svg onload=canary=1><link rel=stylesheet href={ELSEWHERE}/c><iframe src={ELSEWHERE}>"
    f"</iframe><style>@import '{ELSEWHERE}/s'</style>{{{{ 7*7 }}}} {{% raw %}}\u202e\x1b[2J"
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    credit = [[HOSTILE, 1.0], ["half", -0.5], ["other", None]]
    rollouts = [
        drawn(1, 0.0, completion=HOSTILE, prompt=HOSTILE, rewards={HOSTILE: 0.0}),
        drawn(11, 1.0, completion="x" * 3000),
        drawn(11, 0.5, credit=credit),
    ]
    evals = [answer(phase, 0, 0.5, completion=HOSTILE) for phase in ("before", "after")]
    ViewCommand(
        str(make_folder(tmp_path / HOSTILE[:2], rollouts, evals)), html=str(tmp_path / "page.html")
    ).main()
    return tmp_path / "page.html"


def open_page(browser, page: Path) -> None:
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(page.as_uri())
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")


def requests_of(browser) -> set[str]:
    """The addresses that the page has asked for since it was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


def test_the_rig_notices_scripts_and_requests(browser, tmp_path):
    (tmp_path / "bad.html").write_text(f"<p>{HOSTILE}")
    open_page(browser, tmp_path / "bad.html")
    assert browser.execute_script("return window.canary") == 1
    assert any(url.startswith(ELSEWHERE) for url in requests_of(browser))


def test_no_text_of_a_run_is_run_or_loaded(browser, page):
    open_page(browser, page)
    assert browser.execute_script("return window.canary") is None
    assert requests_of(browser) == {page.as_uri()}
    assert browser.get_log("browser") == []
    strangers = "script, img, svg, iframe, link, [onerror], [onload]"
    count = f"return document.querySelectorAll({strangers!r}).length"
    assert browser.execute_script(count) == 0
    text = browser.execute_script("return document.body.textContent")
    assert "<script>canary=1</script>" in text and "{{ 7*7 }}" in text and r"\x1b[2J" in text
    assert not {"\x1b", "\u202e"} & set(text)


def test_credit_is_a_color_for_each_token(browser, page):
    open_page(browser, page)
    found = browser.execute_script(
        "return [...document.querySelectorAll('.text span')].map(span => [span.className, "
        "span.title, getComputedStyle(span).backgroundColor])"
    )
    assert [(kind, title) for kind, title, _ in found] == [
        ("up", "+1"), ("down", "-0.5"), ("others", "not written by the model"),
    ]  # fmt: skip
    assert [color for _, _, color in found] == [
        "rgba(46, 160, 67, 0.45)", "rgba(218, 54, 51, 0.224)", "rgba(0, 0, 0, 0)",
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_the_page_fits_a_screen_and_its_colors(browser, page, width, scheme):
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    open_page(browser, page)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    style = "const style = getComputedStyle(document.body);"
    colors = browser.execute_script(f"{style} return [style.backgroundColor, style.color]")
    background, text = (sum(map(int, c.split("(")[1].rstrip(")").split(",")[:3])) for c in colors)
    assert (background < text) == (scheme == "dark")
