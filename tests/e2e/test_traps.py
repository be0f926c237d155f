"""What real files hold and no example shows, through every algorithm that learns from files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from alignzoo.batch import collate
from alignzoo.cli import status
from alignzoo.training.loop import train

PAIRS = ["dpo", "orpo", "simpo", "cpo", "slic", "tpo", "reward"]
LABELS = ["kto", "bco", "npo"]
ALL = [*PAIRS, *LABELS, "sft", "pretrain"]
VIEWS = ["dpo", "kto", "sft", "pretrain"]  # one that reads each

ODD = [
    "e\u0301\u0323 combined",
    "\u202eright to left\u202c \u0634\u0643\u0631\u0627",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e6\U0001f1fa family",
    "nul \x00, escape \x1b[31m, bell \x07",
    "line \u2028 paragraph \u2029 next \x85 feed \x0c",
    "\ufeffbyte-order mark within",
    "no character \ufffe\uffff \U0010ffff",
    "zero\u200bwidth \u00ad soft \u3000 wide",
    "\r\nwindows\r\nold mac\r",
]


def rows_for(algorithm: str, triples: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Prompt, good and bad completion as the rows that the algorithm reads."""
    if algorithm in PAIRS:
        return [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in triples]
    if algorithm in LABELS:
        return [
            {"prompt": p, "completion": text, "label": label}
            for p, good, bad in triples
            for text, label in ((good, True), (bad, False))
        ]
    if algorithm == "sft":
        return [{"prompt": p, "completion": good} for p, good, _ in triples]
    return [{"text": p + good} for p, good, _ in triples]


def write(path: Path, algorithm: str, triples: list[tuple[str, str, str]]) -> str:
    rows = rows_for(algorithm, triples)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def settings_for(algorithm: str) -> dict[str, Any]:
    return {"adapter": "none"} if algorithm == "pretrain" else {}


def logged(run: Any) -> list[dict[str, float]]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("algorithm", ALL)
def test_a_long_row_beside_short_ones(make_run, tmp_path, algorithm):
    """It is not what the others are padded to, and the loss of each is what it is alone."""
    triples = [(f"Say {i}.", f"{i}!", "no") for i in range(6)]
    triples.append(("word " * 1000, "long", "not so"))
    data = write(tmp_path / "d.jsonl", algorithm, triples)
    settings = {**settings_for(algorithm), "batch_size": 20, "steps": 1, "max_length": 4096}
    run = make_run(algorithm, data=data, **settings)
    examples = run.data.train
    sizes = sorted(example.size for example in examples)
    assert sizes[-1] > 1900 and sizes[0] < 40 and run.data.report.truncated == {}

    def loss(rows):
        return run.hook.alignzoo_loss(run=run, batch=collate(rows))

    with torch.no_grad(), run.free_of_charge():
        together, alone = loss(examples), [loss([example]) for example in examples]
    assert float(together.sum) == pytest.approx(sum(float(one.sum) for one in alone), rel=1e-4)
    assert float(together.count) == sum(float(one.count) for one in alone)

    train(run)
    drawn = [examples[i] for i in run.order.batch(0)]
    # The last token of a completion is predicted, and read only where a score stands on it.
    last = sum(len(example.completions) for example in drawn)
    most = sum(example.size for example in drawn)
    assert most - last <= run.ledger.tokens["update"] <= most
    assert math.isfinite(logged(run)[0]["loss"])


@pytest.mark.parametrize("algorithm", VIEWS)
def test_a_row_too_long_is_cut_and_that_is_said(make_run, tmp_path, algorithm):
    triples = [("word " * 200, "good " * 100, "bad " * 100), ("Say 1.", "1!", "no")]
    data = write(tmp_path / "d.jsonl", algorithm, triples)
    run = make_run(algorithm, data=data, max_length=64, **settings_for(algorithm))
    cut = dict(run.data.report.truncated)
    if algorithm in PAIRS:
        assert cut == {"prompt": 1, "chosen": 1, "rejected": 1}
    elif algorithm in LABELS:
        assert cut == {"prompt": 2, "completion": 2}
    else:
        assert cut == {"prompt": 1, "completion": 1} if algorithm == "sft" else {"text": 1}
    for example in run.data.train:
        assert len(example.prompt) + max(map(len, example.completions)) <= 64
    assert any("truncated to 64 tokens: " in line for line in run.data.report.lines())


@pytest.mark.parametrize("algorithm", ALL)
def test_one_row_many_times_and_its_reverse(make_run, tmp_path, algorithm):
    """One prompt only, so that none can be held out; pairs that contradict each other."""
    triples = [("Say yes.", "yes", "no")] * 8 + [("Say yes.", "no", "yes")] * 4
    data = write(tmp_path / "d.jsonl", algorithm, triples)
    settings = {**settings_for(algorithm), "batch_size": 4, "epochs": 2, "eval_size": 8}
    run = make_run(algorithm, data=data, **settings)
    if algorithm == "pretrain":
        # Of two texts the rarer one is held out, whole: it is not learnt as well.
        assert (len(run.data.train), len(run.data.test)) == (8, 4)
    else:
        assert run.data.test == [] and len(run.data.train) == len(rows_for(algorithm, triples))
    train(run)
    assert all(math.isfinite(value) for row in logged(run) for value in row.values())


@pytest.mark.parametrize("algorithm", VIEWS)
def test_unicode_as_odd_as_it_comes(make_run, tmp_path, algorithm):
    triples = [(f"{text}?", f"{text}!", f"not {text}") for text in ODD]
    data = write(tmp_path / "d.jsonl", algorithm, triples)
    run = make_run(algorithm, data=data, batch_size=4, steps=2, **settings_for(algorithm))
    assert run.data.report.left_out == {} and run.data.report.truncated == {}
    said = [run.codec.decode(completion) for e in run.data.train for completion in e.completions]
    for text in ODD:
        assert any(one.endswith(f"{text}!") for one in said)
    train(run)
    assert all(math.isfinite(row["loss"]) for row in logged(run))


def test_odd_prompts_are_evaluated_recorded_and_shown(tmp_path, capfd):
    triples = [(f"{text}? {i}", f"{text}!", "no") for i in range(3) for text in ODD]
    data = write(tmp_path / "d.jsonl", "sft", triples)
    words = [
        "run",
        "sft",
        "--data",
        data,
        "--output-dir",
        str(tmp_path),
        "--name",
        "one",
        "--steps",
        "1",
    ]
    assert status([*words, "--max-new-tokens", "4", "--eval-size", "4"]) == 0
    lines = (tmp_path / "one" / "evals.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    prompts = {prompt for prompt, _, _ in triples}
    assert {json.loads(line)["prompt"] for line in lines} <= prompts and len(lines) == 4
    assert "\x1b[31m" not in capfd.readouterr().out


@pytest.mark.parametrize("algorithm", ["reward", "dpo"])
def test_a_margin_of_zero_is_none(make_run, tmp_path, algorithm):
    rows = [{"prompt": f"{i}?", "chosen": "a", "rejected": "b", "margin": 0} for i in range(4)]
    losses = []
    for name, strip in (("with", False), ("without", True)):
        path = tmp_path / f"{name}.jsonl"
        kept = [{k: v for k, v in row.items() if k != "margin" or not strip} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        run = make_run(algorithm, data=str(path))
        with torch.no_grad():
            losses.append(run.hook.alignzoo_loss(run=run, batch=collate(run.data.train)).sum)
    assert float(losses[0]) == float(losses[1]) > 0


@pytest.mark.parametrize("algorithm", ["dpo", "reward"])
def test_pairs_that_are_all_ties_are_refused(tmp_path, capfd, algorithm):
    data = write(tmp_path / "d.jsonl", algorithm, [(f"{i}?", "same", "same") for i in range(12)])
    out = tmp_path / "runs"
    assert status(["run", algorithm, "--data", data, "--output-dir", str(out)]) == 2
    message = capfd.readouterr().err
    assert "no usable rows (12 rows read)" in message
    assert "12 rows left out: chosen equals rejected (rows 1, 2, 3, 4, 5, ...)" in message
    assert not out.exists()
