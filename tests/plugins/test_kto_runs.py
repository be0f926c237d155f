"""KTO and BCO on real rows: labels that they refuse, and awkward batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from alignzoo.cli import status
from alignzoo.training.loop import train


def feedback(path: Path, rows: list[tuple[str, str, bool]]) -> str:
    names = ("prompt", "completion", "label")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.mark.parametrize("algorithm", ["kto", "bco"])
@pytest.mark.parametrize(
    ("label", "advice"), [(True, "alignzoo run sft"), (False, "labelled true")]
)
def test_labels_of_one_class_are_refused(tmp_path, capfd, algorithm, label, advice):
    data = feedback(tmp_path / "d.jsonl", [(f"Say {i}.", f"{i}!", label) for i in range(20)])
    out = tmp_path / "runs"
    assert status(["run", algorithm, "--data", data, "--output-dir", str(out)]) == 2
    message = capfd.readouterr().err
    assert f"column 'label' is {str(label).lower()} in all" in message
    assert "d.jsonl" in message and advice in message
    assert not out.exists()


def test_a_batch_of_one_row_is_refused(tmp_path, capfd):
    words = ["run", "kto", "--batch-size", "1", "--output-dir", str(tmp_path / "runs")]
    assert status(words) == 2
    assert "--batch-size" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("algorithm", ["kto", "bco"])
def test_duplicates_ties_and_batches_of_one_class(make_run, tmp_path, algorithm):
    """One prompt with one completion, labelled both ways four times: no KL, and no failure."""
    rows = [("Say yes.", "yes", True), ("Say yes.", "yes", False)] * 4
    run = make_run(algorithm, data=feedback(tmp_path / "d.jsonl", rows), batch_size=2, epochs=2)
    train(run)
    logged = [json.loads(x) for x in (run.record.folder / "metrics.jsonl").read_text().splitlines()]
    assert len(logged) == run.step > 3
    assert all(row.get("kl", 0.0) == 0.0 for row in logged)
    sides = [{"rewards/chosen", "rewards/rejected"} & row.keys() for row in logged]
    # A batch without good completions has no mean of theirs to log, rather than a 0.
    assert min(map(len, sides)) == 1 and max(map(len, sides)) == 2
    assert all(
        ("rewards/margins" in row) == (len(s) == 2) for row, s in zip(logged, sides, strict=True)
    )


@pytest.mark.parametrize("algorithm", ["kto", "bco", "orpo"])
def test_a_long_prompt_beside_a_short_one_costs_no_padding(make_run, tmp_path, algorithm):
    rows = [(f"Say {i}.", f"{i}!", i % 2 == 0) for i in range(9)]
    rows.append(("word " * 1000, "long", True))
    path = feedback(tmp_path / "d.jsonl", rows)
    if algorithm == "orpo":
        pairs = [{"prompt": p, "chosen": c, "rejected": "no"} for p, c, _ in rows]
        Path(path).write_text("\n".join(map(json.dumps, pairs)) + "\n")
    run = make_run(algorithm, data=path, batch_size=10, steps=1, max_length=4096)
    # The last token of a completion is predicted and never read.
    tokens = sum(e.size - len(e.completions) for e in run.data.train)
    assert max(len(example.prompt) for example in run.data.train) > 1900
    train(run)
    assert run.step == 1
    # Each token was computed once, and none of it was padding.
    assert run.ledger.tokens["update"] == tokens


def test_mismatched_completions_keep_to_the_maximum_length(make_run, tmp_path, monkeypatch):
    rows = [("word " * 90, "a", True), ("b", "word " * 90, False)] * 4
    rows = [(f"{i} {p}", c, label) for i, (p, c, label) in enumerate(rows)]
    run = make_run("kto", data=feedback(tmp_path / "d.jsonl", rows), batch_size=8, max_length=128)
    seen = []
    policy = run.model.__class__.__call__
    monkeypatch.setattr(
        run.model.__class__,
        "__call__",
        lambda self, batch, **k: seen.extend(batch.sizes()) or policy(self, batch, **k),
    )
    run.hook.alignzoo_sample(run=run, rows=run.data.train[:8])
    assert 100 < max(seen) <= 128


def test_the_kl_is_that_of_the_whole_batch(make_run):
    """It is estimated once for all rows, whatever the micro-batches."""
    found = []
    for micro_tokens in (64, 8192):
        run = make_run("kto", micro_tokens=micro_tokens)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:16])
        assert batch["kl"].unique().numel() == 1
        found.append(batch["kl"][0].item())
    assert found[0] > 0.01
    assert found[0] == pytest.approx(found[1], rel=1e-4)
