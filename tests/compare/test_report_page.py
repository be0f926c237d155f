"""The page of a board in a real browser: it works from a file, and runs nothing but itself."""

import json
from pathlib import Path

import pytest
from report_fakes import ENTRIES, make_board

from alignzoo_compare.report import Section, summarise_board
from alignzoo_compare.report.page import render_page

pytestmark = pytest.mark.slow

WAIT = 60  # seconds, on a machine that may be busy
ELSEWHERE = "http://elsewhere.invalid"
HOSTILE = (
    f"\"'><img src={ELSEWHERE}/i onerror=canary=1></td></script><script>canary=1</script>"
    f'<svg onload=canary=1><a href="javascript:canary=1">a</a><link rel=stylesheet '
    f'href={ELSEWHERE}/c><style>@import "{ELSEWHERE}/s"</style><iframe src={ELSEWHERE}></iframe>'
    "<!--<script> {{ 7*7 }} {% raw %} %{x} \u2028\u2029\u202e constructor __proto__ $\\alpha$"
)
NAMES = {
    "dpo": HOSTILE,
    "ipo": "constructor",
    "orpo": "__proto__",
    "simpo": "javascript:canary=1",
    "kto": "long" * 2000,
    "grpo": "</script><script>canary=1</script>",
    "ppo": f"<a href='{ELSEWHERE}'>ppo</a> %{{meta}}",
    "raft": "\u2028\u202e<b>raft</b>",
}


def open_page(browser, path: Path, text: str) -> None:
    """Write a page and open it from the disk."""
    path.write_text(text, encoding="utf-8")
    browser.get_log("performance"), browser.get_log("browser")
    browser.get(path.as_uri())
    wait_for(browser, f"return location.href === {path.as_uri()!r}")


def open_board(browser, folder: Path, board) -> None:
    """Open the page of a board, and wait until its plots in view are drawn."""
    page = render_page([Section("", board, summarise_board(board))])
    open_page(browser, folder / "report.html", page)
    wait_for(browser, "return document.querySelector('.dt-search') !== null")  # its script has run
    draw_plots(browser)


def draw_plots(browser) -> None:
    """Draw all plots that are not folded away, as a printer has them drawn."""
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    shown = "[...document.querySelectorAll('.plot')].filter(plot => plot.offsetParent)"
    wait_for(browser, f"return {shown}.every(plot => plot.querySelector('.main-svg'))")


def wait_for(browser, condition: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, WAIT).until(lambda driver: driver.execute_script(condition))


def requests_of(browser) -> set[str]:
    """The addresses that the page has asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }


def shown_entries(browser) -> list[str]:
    """The entries of the last results table, from top to bottom."""
    return browser.execute_script(
        "return [...[...document.querySelectorAll('table.results')].at(-1).tBodies[0].rows]"
        ".map(row => row.cells[0].textContent)"
    )


def test_the_rig_notices_scripts_and_requests(browser, tmp_path):
    open_page(browser, tmp_path / "bad.html", f"<p>{HOSTILE}")
    wait_for(browser, "return window.canary === 1")
    assert any(url.startswith(ELSEWHERE) for url in requests_of(browser))


def test_a_page_from_the_disk_sorts_filters_and_plots(browser, tmp_path):
    board = make_board(tmp_path)
    open_board(browser, tmp_path, board)
    assert requests_of(browser) == {(tmp_path / "report.html").as_uri()}
    assert browser.get_log("browser") == []

    by_score = shown_entries(browser)
    assert set(by_score) == set(ENTRIES)
    assert by_score[0] == "grpo"
    click = (
        "[...[...document.querySelectorAll('table.results')].at(-1).tHead.rows[0].cells]"
        ".find(th => th.textContent.trim() === 'score').click()"
    )
    browser.execute_script(click)
    wait_for(browser, "return document.querySelector('.dt-ordering-asc') !== null")
    assert shown_entries(browser) == by_score[::-1]
    browser.execute_script(click)
    wait_for(browser, "return document.querySelector('.dt-ordering-desc') !== null")
    assert shown_entries(browser) == by_score

    from selenium.webdriver.common.by import By

    browser.find_elements(By.CSS_SELECTOR, ".dt-search input")[-1].send_keys("judge")
    assert shown_entries(browser) == ["rlaif"]

    # One profile, and for each of two tasks the scores, KL and compute.
    assert browser.execute_script("return document.querySelectorAll('.main-svg').length") >= 7
    drawn = "return document.querySelectorAll('.task .plot')[0].textContent"
    assert all(entry in browser.execute_script(drawn) for entry in ENTRIES)
    browser.execute_script("document.querySelector('.task > details').open = true")
    wait_for(browser, "return document.querySelector('.task > details .main-svg') !== null")


def test_the_question_of_a_newcomer_is_answered(browser, tmp_path):
    open_board(browser, tmp_path, make_board(tmp_path))
    rows = browser.execute_script(
        "return [...document.querySelector('table.choices').tBodies[0].rows]"
        ".map(row => [...row.cells].map(cell => cell.innerText))"
    )
    answers = {kind.split("\n")[0]: (best, certainty) for kind, best, certainty in rows}
    assert list(answers) == ["demonstrations", "pairs", "labels", "score", "judge"]
    best, certainty = answers["score"]
    assert [line.split()[0] for line in best.split("\n")] == ["grpo", "ppo", "best-of-n", "raft"]
    assert certainty == (
        "All of these 4 are better than the base; which of the 4 is best cannot be told."
    )


def test_no_text_of_a_board_is_run_or_loaded(browser, tmp_path):
    board = make_board(
        tmp_path, tasks=("style", HOSTILE), names=NAMES, text=HOSTILE, model=HOSTILE, budget="1e11"
    )
    for row in board.rows:
        row["trial"] = {f"rate{HOSTILE}": 0.1}
        row["settings"] = {**row["settings"], "reward": [HOSTILE]}
        row["fingerprints"]["code"] = HOSTILE
    for settings in board.grid.entries.values():
        settings["data"] = HOSTILE
    failed = {"status": "failed", "error": HOSTILE, "kind": "trial", "entry": NAMES["dpo"]}
    board.rows.append({**failed, "task": "style", "number": 7})
    open_board(browser, tmp_path, board)
    browser.execute_script("for (const d of document.querySelectorAll('details')) d.open = true")
    draw_plots(browser)
    browser.execute_script(
        "for (const th of document.querySelectorAll('table.results th')) th.click();"
        "for (const plot of document.querySelectorAll('.plot'))"
        "  Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 0}]);"
    )
    browser.execute_script(
        "document.querySelector('.dt-search input').value = arguments[0]", HOSTILE
    )
    assert browser.execute_script("return window.canary") is None
    assert requests_of(browser) == {(tmp_path / "report.html").as_uri()}
    assert browser.get_log("browser") == []
    strangers = "return document.querySelectorAll('img, iframe, link, [onerror], [onload]').length"
    assert browser.execute_script(strangers) == 0
    types = browser.execute_script("return [...document.scripts].map(script => script.type)")
    assert {kind: types.count(kind) for kind in types if kind != "application/json"} == {
        "": 1,
        "module": 1,
    }
    links = browser.execute_script("return [...document.links].map(a => a.getAttribute('href'))")
    assert links and all(link.startswith("#entry-") for link in links)
    text = browser.execute_script("return document.body.textContent")
    assert "<script>canary=1</script>" in text and "{{ 7*7 }}" in text


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
    open_board(browser, tmp_path, make_board(tmp_path, tasks=("style",)))
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    colours = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('.xtick text')).fill]"
    )
    page, label = (sum(map(int, c.split("(")[1].rstrip(")").split(",")[:3])) for c in colours)
    assert (page < label) == (scheme == "dark")
