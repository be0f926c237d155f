"""Run folders and checkpoints: whose they are, and that they are whole or absent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from alignzoo import record
from alignzoo.errors import BadInput
from alignzoo.files import whole_folder, write_json
from alignzoo.recipe import update_stored
from alignzoo.training import checkpoint
from alignzoo.training.optimizer import flatten_optimizer, restore_optimizer

FACTS = {
    "recipe": {"algorithm": "dpo", "seed": 0},
    "fingerprints": {"data": "x"},
    "results": {},
}


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a b", "-x", "a\n", "x" * 101])
def test_a_name_that_leaves_the_folder_is_refused(name):
    with pytest.raises(BadInput, match="--name"):
        record.resolve_run_folder("runs", name)


def test_free_names_count_up_and_the_newest_is_found(tmp_path: Path):
    out = str(tmp_path)
    assert record.find_free_name(out, "dpo-org/model x") == "dpo-org-model-x"
    (tmp_path / "dpo").mkdir()
    assert record.find_newest_name(out, "dpo") == "dpo"
    assert record.find_free_name(out, "dpo") == "dpo-2"
    (tmp_path / "dpo-2").mkdir()
    (tmp_path / "dpo-3").mkdir()
    assert record.find_newest_name(out, "dpo") == "dpo-3"
    with pytest.raises(BadInput, match="no run"):
        record.find_newest_name(out, "sft-zoo")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    record.create_record(tmp_path / "one", dict(FACTS))
    with pytest.raises(BadInput, match="already holds a run"):
        record.create_record(tmp_path / "one", dict(FACTS))
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="other files"):
        record.create_record(tmp_path / "two", dict(FACTS))


def test_only_the_same_unfinished_run_is_resumed(tmp_path: Path):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    run.set_status("interrupted")
    run.close()
    record.reopen_record(tmp_path / "one", dict(FACTS)).close()
    with pytest.raises(BadInput, match="seed was 0 and is 1 now"):
        record.reopen_record(tmp_path / "one", {**FACTS, "recipe": {"algorithm": "dpo", "seed": 1}})
    with pytest.raises(BadInput, match="data was 'x' and is 'y' now"):
        record.reopen_record(tmp_path / "one", {**FACTS, "fingerprints": {"data": "y"}})
    run.set_status("finished")
    with pytest.raises(BadInput, match="finished"):
        record.reopen_record(tmp_path / "one", dict(FACTS))


def test_a_resumed_run_forgets_the_error_of_the_first_time(tmp_path: Path):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    run.set_status("failed", error="OSError: no space")
    run.close()
    record.reopen_record(tmp_path / "one", dict(FACTS)).close()
    assert "error" not in record.read_run(tmp_path / "one")


def test_a_run_is_open_in_one_program(tmp_path: Path):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    with pytest.raises(BadInput, match="another program is working on this run"):
        record.reopen_record(tmp_path / "one", dict(FACTS))
    run.close()
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]
    with pytest.raises(BadInput, match="seed was 0"):
        record.reopen_record(tmp_path / "one", {**FACTS, "recipe": {"algorithm": "dpo", "seed": 1}})
    record.reopen_record(tmp_path / "one", dict(FACTS)).close()


def test_a_crash_before_the_first_write_leaves_a_folder_that_can_be_begun(tmp_path: Path):
    (tmp_path / "one").mkdir()
    for name in (".lock", ".run.json.tmp"):
        (tmp_path / "one" / name).write_text("{")
    with pytest.raises(BadInput, match="has no run.json"):
        record.reopen_record(tmp_path / "one", dict(FACTS))
    record.create_record(tmp_path / "one", dict(FACTS)).close()
    assert record.read_run(tmp_path / "one")["status"] == "running"


def test_a_run_recorded_under_former_option_names_is_resumed(tmp_path: Path):
    now = {"algorithm": "dpo", "output_dir": "runs", "stop_text": ["a"], "options": {}}
    then = {"algorithm": "dpo", "out": "elsewhere", "stop": ["a"], "options": {}}
    begun = record.create_record(tmp_path / "one", {**FACTS, "recipe": then})
    begun.set_status("interrupted")
    begun.close()
    facts = {**FACTS, "recipe": now}
    options = {"resume": True, "is_writer": True}
    found = record.open_record(tmp_path / "one", facts, update_stored, **options)
    assert found.facts["recipe"] == {**now, "output_dir": "elsewhere"}
    found.close()
    facts["recipe"]["stop_text"] = []
    with pytest.raises(BadInput, match=r"stop_text was \['a'\] and is \[\] now"):
        record.open_record(tmp_path / "one", facts, update_stored, **options)


def test_rewinding_drops_later_rows_and_a_torn_line(tmp_path: Path):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    for step in (1, 2, 3):
        run.metrics({"step": step, "text": "line\u2028separator"})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    run.rewind(2)
    rows = (run.folder / "metrics.jsonl").read_text().split("\n")
    assert [json.loads(row)["step"] for row in rows[:-1]] == [1, 2]
    assert rows[-1] == ""


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"recipe": []}, "recipe"),
        ({"recipe": {"algorithm": 5}}, "recipe/algorithm"),
        ({"fingerprints": {"model": []}}, "fingerprints/model"),
        ({"results": {"before": {"loss": 0.5}}}, "results/before/loss"),
        ({"environment": {"packages": "torch"}}, "environment/packages"),
        ({"ledger": {"flops": 5}}, "ledger/flops"),
        ({"status": None}, "status"),
        ({"changes": float("nan")}, ""),
    ],
)
def test_a_record_of_wrong_types_is_refused(tmp_path: Path, change, where):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    run.close()
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BadInput, match="cannot be read as the record of a run") as error:
        record.read_run(run.folder)
    assert where in error.value.message


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "evals.jsonl", "log.txt"])
def test_a_pipe_or_a_dead_link_in_place_of_a_file_blocks_nothing(tmp_path: Path, name):
    begun = record.create_record(tmp_path / "one", dict(FACTS))
    begun.close()
    path = begun.folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(BadInput, match="not a regular file"):
        record.reopen_record(begun.folder, dict(FACTS))
    if name != "run.json":
        path.unlink()
        path.symlink_to("nowhere")
        with pytest.raises(BadInput, match="not a regular file"):
            record.reopen_record(begun.folder, dict(FACTS))


@pytest.mark.parametrize(
    "row", ["5", '"text"', "{}", '{"step": "x"}', '{"step": 2, "x": -Infinity}']
)
def test_a_damaged_row_ends_a_log(tmp_path: Path, row):
    run = record.create_record(tmp_path / "one", dict(FACTS))
    run.metrics({"step": 1})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write(f'{row}\n{{"step": 2}}\n')
    assert run.read_metrics(before=9) == [{"step": 1}]
    run.rewind(1)
    assert (run.folder / "metrics.jsonl").read_text() == '{"step": 1}\n'
    run.close()


def test_a_folder_is_whole_or_absent(tmp_path: Path):
    target = tmp_path / "out"

    def write_half() -> None:
        with whole_folder(target) as beside:
            (beside / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with whole_folder(target) as beside:
            (beside / "file").write_text(text)
    assert (target / "file").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_json_is_replaced_not_overwritten(tmp_path: Path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_checkpoint_restores_the_optimizer_bit_for_bit(tmp_path: Path):
    def one_step(layer: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    x = torch.randn(5, 3)
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    one_step(layer, optimizer, x)
    names = {p: n for n, p in layer.named_parameters()}
    checkpoint.write_checkpoint(
        tmp_path,
        1,
        layer.state_dict(),
        flatten_optimizer(optimizer, names)[0],
        {"round": 1},
    )
    one_step(layer, optimizer, x)

    (path,) = checkpoint.find_checkpoints(tmp_path)
    assert checkpoint.find_damage(path) is None
    weights, moments, state = checkpoint.read_checkpoint(path)
    assert state == {"step": 1, "round": 1}
    again = nn.Linear(3, 2)
    again.load_state_dict(weights)
    fresh = torch.optim.AdamW(again.parameters(), lr=0.1, fused=True)
    restore_optimizer(fresh, moments, {p: n for n, p in again.named_parameters()})
    one_step(again, fresh, x)
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(again.bias, layer.bias)


def write_checkpoints(folder: Path, *steps: int) -> list[Path]:
    for step in steps:
        checkpoint.write_checkpoint(folder, step, {"w": torch.ones(1)}, {}, {})
    return checkpoint.find_checkpoints(folder)


def test_the_two_newest_checkpoints_are_kept_and_half_ones_are_not_seen(tmp_path: Path):
    assert checkpoint.find_checkpoints(tmp_path / "none") == []
    for name in (".step-00000009.tmp", ".step-00000003.old", "step-by-step", "thesis", ".git"):
        (tmp_path / name).mkdir()
    found = write_checkpoints(tmp_path, 3, 4, 12)
    assert [path.name for path in found] == ["step-00000012", "step-00000004"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {path.name for path in found} == {"step-by-step", "thesis", ".git"}
    # After a fall back to step 4, the checkpoint of step 12 is of another run.
    assert [path.name for path in write_checkpoints(tmp_path, 8)] == [
        "step-00000008",
        "step-00000004",
    ]


@pytest.mark.parametrize("name", ["state.json", "weights.safetensors", "manifest.json"])
def test_every_damage_of_a_checkpoint_is_found(tmp_path: Path, name):
    (path,) = write_checkpoints(tmp_path, 3)
    whole = (path / name).read_bytes()
    for damaged in (b"", whole[:-2], whole[: len(whole) // 2], whole[:-3] + b"\x01" + whole[-2:]):
        (path / name).write_bytes(damaged)
        assert checkpoint.find_damage(path) is not None
    (path / name).unlink()
    assert checkpoint.find_damage(path) == f"{name} is missing"
    (path / name).symlink_to("/dev/zero")  # reading it would not end
    assert checkpoint.find_damage(path) == f"{name} is missing"
