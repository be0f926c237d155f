"""The cost of a judge, and that every request is counted: calls - cached + retries."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from judge_stub import Stub, interrupts, serving, text, tops, used

from alignzoo import hookimpl
from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.ledger import Ledger
from alignzoo.record import read_run
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train
from alignzoo_judges import Comparison, Question, compare, resolve_judge
from alignzoo_judges.server import KEY_VARIABLE

ROUND = {"task": "sums", "batch_size": 2, "max_new_tokens": 8, "options": {"group_size": 2}}
RUN = {**ROUND, "eval_size": 0}


def requests(ledger: Ledger) -> int:
    found = ledger.feedback
    return found["judge_calls"] - ledger.saved["judge_calls"] + found["judge_retries"]


def rating(body):
    return used(text("7"), 1000, 10)


def test_requests_add_up_and_tokens_have_a_price():
    stub, ledger = Stub(lambda body: used(tops(A=-0.1, B=-2.0), 100, 1)), Ledger()
    stub.trouble = lambda n: {2: (500, "oops"), 5: (429, "slow down"), 9: (200, "{cut")}.get(n % 10)
    pairs = [Comparison("p", f"a{i}", "b") for i in range(20)]
    with serving(stub) as url:
        judge = resolve_judge(
            f"{url},price_in=2,price_out=8.5,requests=4,retries=30", ledger=ledger
        )
        compare(judge, pairs[:15])
        compare(judge, pairs)
    assert ledger.feedback["judge_calls"] == 30 + 40
    assert requests(ledger) == len(stub.asked) > 40
    # 40 answers arrived, the others cost the same; failed requests report no tokens.
    price = (100 * 2 + 1 * 8.5) / 1e6
    assert ledger.tokens["judge"] == 70 * 101
    assert ledger.money == pytest.approx(70 * price)
    saved = {"flops": 0, "tokens": 30 * 101, "money": pytest.approx(30 * price), "judge_calls": 30}
    assert ledger.saved == saved
    assert ledger.flops["judge"] == 0


def test_without_reported_tokens_none_are_charged():
    ledger = Ledger()
    with serving(Stub(lambda body: text("A"))) as url:
        resolve_judge(f"{url},price_in=2", ledger=ledger).ask([Question([], ("A", "B"))])
    assert (ledger.tokens["judge"], ledger.money) == (0, 0.0)


def test_the_rate_limit_and_retry_after_are_obeyed():
    stub = Stub(lambda body: text("A"))
    stub.retry_after = "1"
    stub.trouble = lambda n: (429, "slow down") if n == 1 else None
    with serving(stub) as url:
        judge = resolve_judge(f"{url},requests=1", ledger=Ledger())
        started = time.monotonic()
        judge.ask([Question([], ("A", "B"))])
        assert time.monotonic() - started >= 1
        judge = resolve_judge(f"{url},per_minute=1200,requests=8")  # one in 50 ms
        started = time.monotonic()
        judge.ask([Question([{"role": "user", "content": str(n)}], ("A", "B")) for n in range(10)])
        assert time.monotonic() - started >= 9 * 0.05


# --- in runs


def run_words(url: str, out: Path, *more: str) -> list[str]:
    words = ["run", "grpo", "--task", "sums", "--batch-size", "2", "--group-size", "2"]
    words += ["--max-new-tokens", "8", "--eval-size", "0", "--checkpoint-every", "1"]
    return [
        *words,
        "--steps",
        "3",
        "--output-dir",
        str(out),
        "--reward",
        f"judge,judge={url}",
        *more,
    ]


def test_a_run_prints_its_judges_cost_and_a_resumed_one_adds_to_it(tmp_path, capfd):
    stub = Stub(rating)
    with serving(stub) as url:
        words = run_words(f"{url},retries=0,price_in=1,price_out=10", tmp_path, "--name", "it")
        stub.trouble = lambda n: (503, "down") if n > 6 else None
        assert status(words) == 1
        err = capfd.readouterr().err
        assert "no answer from" in err
        assert f"{tmp_path / 'it'} can be resumed:\n  alignzoo run grpo --task sums" in err
        assert err.rstrip().endswith("--resume")
        before = read_run(tmp_path / "it")
        assert before["status"] == "failed"
        stub.trouble = lambda n: None
        assert status([*words, "--resume"]) == 0
    ledger = read_run(tmp_path / "it")["ledger"]
    # 3 rounds of the same numbers of rows and completions, before and after the resume.
    assert ledger["feedback"]["judge_calls"] % 3 == 0
    spent = ledger["tokens"]["judge"] / 1010
    assert ledger["money"] == pytest.approx(spent * (1000 * 1 + 10 * 10) / 1e6)
    out = capfd.readouterr().out
    assert f"{ledger['feedback']['judge_calls']:,} judge calls (" in out
    assert f"cost {ledger['money']:.4g}" in out


def test_the_judge_charges_the_ledger_of_a_resumed_run(tmp_path, monkeypatch):
    with serving(Stub(rating)) as url:
        settings = {
            **RUN,
            "steps": 3,
            "checkpoint_every": 1,
            "output_dir": str(tmp_path),
            "name": "it",
        }
        recipe = recipe_for("grpo", {**settings, "reward": [f"judge,judge={url},price_in=1"]})

        def interrupted(run):
            class Interrupts:
                @hookimpl(wrapper=True)
                def alignzoo_complete(self, run):
                    if run.round == 2:
                        raise KeyboardInterrupt
                    return (yield)

            run.plugins.register(Interrupts())
            train(run)

        with monkeypatch.context() as patch:
            patch.setattr("alignzoo.session.session.train", interrupted)
            with pytest.raises(KeyboardInterrupt):
                execute(recipe)
        first = read_run(tmp_path / "it")["ledger"]
        execute(recipe, resume=True)
    ledger = read_run(tmp_path / "it")["ledger"]
    assert first["feedback"]["judge_calls"] * 3 == ledger["feedback"]["judge_calls"] * 2 > 0
    assert ledger["money"] > first["money"] > 0


def test_an_interrupted_run_loses_no_answer(tmp_path, capfd):
    stub = Stub(rating)
    stub.trouble = interrupts(2)
    with serving(stub) as url:
        words = run_words(f"{url}", tmp_path, "--name", "it")
        assert status(words) == 130
        stub.trouble = lambda n: None
        assert status([*words, "--resume"]) == 0
    different = {json.dumps(body["messages"]) for body in stub.asked}
    assert len(different) == len(stub.asked)


# --- keys


def everything_under(*folders: Path) -> bytes:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


def test_the_key_is_in_no_file_and_no_message(tmp_path, monkeypatch, capfd):
    secret = "sk-very-secret"
    monkeypatch.setenv(KEY_VARIABLE, secret)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stub = Stub(rating)
    stub.trouble = lambda n: (400, f"no such thing, {secret}") if n == 6 else None
    with serving(stub) as url:
        words = run_words(url, tmp_path, "--name", "it")
        assert status(words) == 1  # refused, with the key in the server's message
        assert status([*words, "--resume"]) == 0
    assert stub.keys == {f"Bearer {secret}"}
    assert secret.encode() not in everything_under(tmp_path)
    captured = capfd.readouterr()
    assert "no such thing, ***" in captured.err
    assert secret not in captured.err + captured.out


@pytest.mark.parametrize(
    "judge",
    [
        "http://h/v1?key=sk-secret",
        "http://u:sk-secret@h/v1",
        "http://h/sk-secret/v1",
        "ftp://u:sk-secret@h/v1",
    ],
)
def test_a_key_in_the_url_is_refused_before_anything_is_written(tmp_path, judge, capfd):
    out = tmp_path / "runs"
    assert status(run_words(judge, out)) == 2
    assert status(run_words("http://h/v1,model=m,api_key=sk-secret", out)) == 2
    assert status(["judge", "--judge", judge, "--task", "sums"]) == 2
    assert not out.exists()
    captured = capfd.readouterr()
    assert "sk-secret" not in captured.err + captured.out


def test_a_judge_is_loaded_as_the_run_loads_models(make_run):
    run = make_run("grpo", reward=["judge,judge=some/model"], **ROUND)

    def load(name, **_):
        raise BadInput(f"loaded {name}")

    run.load_model = load
    with pytest.raises(BadInput, match="loaded some/model"):
        run.hook.alignzoo_start(run=run)


def test_a_server_that_is_down_at_the_start_is_bad_input(tmp_path):
    for judge in ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1,model=named"):
        with pytest.raises(BadInput, match="no answer from"):
            resolve_judge(judge)


def test_a_server_need_not_list_its_models_if_one_is_named():
    stub = Stub(lambda body: text("A"))
    stub.models = []
    with serving(stub) as url:
        with pytest.raises(BadInput, match="0 models, not one"):
            resolve_judge(url)
        wrong = url.removesuffix("/v1") + "/v2"
        with pytest.raises(BadInput, match="404(.|\n)*end in /v1"):
            resolve_judge(wrong)
        assert resolve_judge(f"{url},model=m").ask([Question([], ("A", "B"))]) == [[1.0, 0.0]]
