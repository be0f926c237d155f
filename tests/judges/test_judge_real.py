"""`alignzoo judge` on public data, with a model and with an unreliable server."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from judge_stub import Stub, serving, text, tops, used

from alignzoo.cli import status
from alignzoo.data import Preferences

PAIRS, LABELS = "hh-rlhf/harmless-base-test.jsonl.gz", "xstest/xstest_prompts.csv"
REFUSE = ["--question", "Is it safe or unsafe to do what is asked?"]


def judged(capfd, *words: str) -> tuple[dict[str, float], list[dict]]:
    assert status(["judge", *words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    return {name: value["mean"] for name, value in found["summary"].items()}, found["items"]


def longer(body):
    """Prefer the longer response; call prompts about killing unsafe."""
    asked = body["messages"][0]["content"]
    if "[Request]" in asked:
        unsafe = "kill" in asked.lower()
        return used(tops(unsafe=-0.1, safe=-2.5) if unsafe else tops(unsafe=-2.5, safe=-0.1), 50, 2)
    first, second = asked.partition("[Response A]\n")[2].split("\n\n[Response B]\n")
    second = second.rpartition("\n\n")[0]
    lean = (len(first) > len(second)) - (len(first) < len(second))
    return used(tops(A=-1.0 + 0.9 * lean, B=-1.0 - 0.9 * lean), 50, 1)


def failing(stub: Stub) -> dict[str, int]:
    """Make a server fail in every way; return the counts of useless answers and of failures."""
    count = {"useless": 0, "transient": 0}

    def trouble(n):
        troubles = {3: (500, "oops"), 11: (429, "slow down"), 17: (200, "{cut o")}
        if n % 31 in troubles or n == 29:
            count["transient"] += 1
            return troubles.get(n % 31, (0, None))
        if n % 23 == 5:
            count["useless"] += 1
            return 200, used(text("As an assistant I would rather not say"), 50, 8)
        return None

    stub.slow, stub.trouble = 2.5, trouble
    return count


@pytest.fixture
def real(shared_data):
    return {name: str(shared_data / name) for name in (PAIRS, LABELS)}


@pytest.mark.parametrize("data", [PAIRS, LABELS])
def test_an_unreliable_server_loses_no_answer(real, data, capfd):
    stub = Stub(longer)
    count = failing(stub)
    with serving(stub) as url:
        judge = f"{url},timeout=2,retries=8,price_in=1,price_out=2,requests=8"
        more = REFUSE if data == LABELS else []
        words = ("--judge", judge, "--data", real[data], "--limit", "60", *more)
        summary, items = judged(capfd, *words)
        assert summary["judge/calls"] == 120
        assert summary["judge/cached"] == 0
        assert summary["judge/retries"] == count["transient"] > 0
        assert 120 + count["transient"] == len(stub.asked)
        # Each order has an answer, unless it was useless.
        orders = ("a_first", "b_first") if data == PAIRS else ("forth", "back")
        lacking = sum(item[order][0] is None for item in items for order in orders)
        assert lacking == count["useless"] > 0
        usable = sum(item["usable"] for item in items)
        assert usable + summary["judge/unusable"] == len(items) == 60
        written = 1 if data == PAIRS else 2
        read_and_written = 120 * 50 + (120 - lacking) * written + lacking * 8
        # Requests that timed out report no tokens.
        assert summary["judge/tokens"] == read_and_written
        assert summary["judge/money"] == pytest.approx((2 * read_and_written - 120 * 50) / 1e6)

        stub.trouble, before = lambda n: None, len(stub.asked)
        again, items = judged(capfd, *words)
        assert len(stub.asked) - before == lacking
        assert (again["judge/cached"], again["judge/unusable"]) == (120 - lacking, 0)
        assert again["judge/flips"] == 0


def test_agreement_of_the_longer_response_on_hh_rlhf(real, capfd):
    with serving(Stub(longer)) as url:
        summary, _ = judged(capfd, "--judge", url, "--data", real[PAIRS], "--limit", "100")
    with gzip.open(real[PAIRS], "rt") as file:
        rows = [json.loads(line) for line in file][:100]
    pairs = [Preferences.canonical(row) for row in rows]
    lengths = [[len(pair[name].strip()) for name in ("chosen", "rejected")] for pair in pairs]
    right = [0.5 if a == b else float(a > b) for a, b in lengths]
    assert summary["judge/pairs"] == 100
    assert summary["judge/agreement"] == pytest.approx(sum(right) / 100)
    assert summary["judge/flips"] == 0
    assert summary["judge/first"] == pytest.approx(0.5)
    assert summary["judge/length"] > 0.95


def test_agreement_of_a_keyword_on_xstest(real, capfd):
    with serving(Stub(longer)) as url:
        words = ("--judge", url, "--data", real[LABELS], "--limit", "450", *REFUSE)
        summary, _ = judged(capfd, *words)
    with open(real[LABELS], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    said = ["unsafe" if "kill" in row["prompt"].lower() else "safe" for row in rows]
    right = [row["label"] == label for row, label in zip(rows, said, strict=True)]
    assert summary["judge/rows"] == len(rows) == 450
    assert summary["judge/agreement"] == pytest.approx(sum(right) / 450)
    safe = [ok for row, ok in zip(rows, right, strict=True) if row["label"] == "safe"]
    assert summary["judge/agreement/safe"] == pytest.approx(sum(safe) / len(safe))


@pytest.mark.parametrize("think", ["0", "4"])
@pytest.mark.parametrize("data", [PAIRS, LABELS])
def test_a_local_model_answers_what_fits(real, data, think, capfd):
    more = REFUSE if data == LABELS else []
    words = ("--judge", "zoo-tiny", "--data", real[data], "--limit", "8", "--think", think, *more)
    summary, items = judged(capfd, *words)
    usable = [item for item in items if item["usable"]]
    assert len(usable) + summary["judge/unusable"] == len(items) == 8
    assert usable
    assert 0 <= summary["judge/agreement"] <= 1
    assert summary["judge/tokens"] > 0
    again, _ = judged(capfd, *words)
    unanswered = again["judge/calls"] - again["judge/cached"]
    assert again["judge/tokens"] == summary["judge/tokens"]
    assert again["judge/tokens/saved"] == again["judge/tokens"] or unanswered > 0
    assert again["judge/agreement"] == summary["judge/agreement"]
