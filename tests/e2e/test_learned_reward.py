"""`--reward learned`: a reward model is trained once, found again, paid for, and taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from resuming import Interrupts, assert_same_result

from alignzoo.cli import status
from alignzoo.errors import BadInput
from alignzoo.rewards import RewardSpec
from alignzoo.session.learned import cache_key, reward_recipe
from alignzoo.session.session import execute, recipe_for
from alignzoo.training.loop import train

SETTINGS = {
    "task": "style", "steps": 2, "batch_size": 4, "max_new_tokens": 12, "eval_size": 4,
    "options": {"group_size": 2, "round_prompts": 4, "iterations": 1},
    "reward": ["learned,steps=4"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rewards"


def run(tmp_path: Path, name: str, **changes):
    return execute(
        recipe_for("ppo", {**SETTINGS, "output_dir": str(tmp_path), "name": name, **changes})
    )


def facts_of(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def folders(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_it_is_trained_once_and_paid_for_by_each(tmp_path, cache):
    first = facts_of(run(tmp_path, "first").folder)
    (reward,) = folders(cache)
    trained = facts_of(reward)
    assert trained["recipe"]["algorithm"] == "reward" and trained["recipe"]["steps"] == 4
    assert trained["recipe"]["task"] == "style" and trained["status"] == "finished"
    changed = (reward / "run.json").stat().st_mtime_ns
    second = facts_of(run(tmp_path, "second").folder)
    assert folders(cache) == [reward] and (reward / "run.json").stat().st_mtime_ns == changed
    for facts in (first, second):
        ledger = facts["ledger"]
        assert ledger["flops"]["reward_training"] == trained["ledger"]["total_flops"] > 0
        assert ledger["feedback"]["pairs"] == 128 == trained["ledger"]["feedback"]["pairs"]
        assert ledger["seconds"] > trained["ledger"]["seconds"]
        assert facts["recipe"]["reward"] == ["learned,steps=4"]
    spent = trained["ledger"]["total_flops"]
    assert [facts["ledger"]["saved"]["flops"] for facts in (first, second)] == [0, spent]
    rows = (tmp_path / "first" / "metrics.jsonl").read_text().splitlines()
    assert "rewards/learned/mean" in json.loads(rows[0])


def test_one_that_is_damaged_is_trained_again(tmp_path, cache):
    first = run(tmp_path, "first").folder
    (reward,) = folders(cache)
    for name in ("adapter/adapter_model.safetensors", "run.json"):
        path = reward / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
        again = run(tmp_path, Path(name).stem).folder
        if name != "run.json":
            assert path.read_bytes() == whole
        assert_same_result(again, first)
        assert facts_of(again)["ledger"]["saved"]["flops"] == 0


def test_another_seed_or_setting_has_one_of_its_own():
    def key(reward: str = "learned", **changes) -> str:
        asking = recipe_for("ppo", {**SETTINGS, **changes})
        return cache_key(reward_recipe(RewardSpec.parse(reward), asking))

    assert key() == key(max_new_tokens=14, options={"beta": 0.2}, batch_size=8)  # of no concern
    others = {key(seed=1), key("learned,steps=3"), key(adapter="none"), key(task="sums")}
    assert len(others | {key()}) == 5
    assert key(adapter="prefix") == key()


def test_one_that_was_interrupted_is_taken_up_again(tmp_path, cache, monkeypatch):
    def interrupted(run):
        run.plugins.register(Interrupts(3))
        train(run)

    with monkeypatch.context() as patch:
        patch.setattr("alignzoo.session.session.train", interrupted)
        with pytest.raises(KeyboardInterrupt) as error:
            run(tmp_path, "a")
    assert not hasattr(error.value, "folder")  # the run that was asked for has not begun
    assert not (tmp_path / "a").exists()
    (reward,) = folders(cache)
    assert facts_of(reward)["status"] == "interrupted"
    run(tmp_path, "a")
    assert facts_of(reward)["status"] == "finished"


def test_pairs_of_ones_own(tmp_path, cache):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Say {n}.", "chosen": "a b", "rejected": "c"} for n in range(12)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    reward = f"learned,data={pairs},steps=2"
    run(tmp_path, "a", reward=[reward])
    (folder,) = folders(cache)
    assert facts_of(folder)["recipe"]["data"] == str(pairs)
    assert facts_of(folder)["recipe"]["task"] is None
    rows[0]["chosen"] = "d e"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(tmp_path, "b", reward=[reward])
    assert len(folders(cache)) == 2  # other pairs, another reward model


def test_what_cannot_be_learnt_from_leaves_nothing_behind(tmp_path, cache):
    with pytest.raises(BadInput, match="no option 'name'"):
        run(tmp_path, "a", reward=["learned,name=x"])
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Say 1."}\n{"prompt": "Say 2."}\n')
    with pytest.raises(BadInput, match="chosen"):
        run(tmp_path, "a", task=None, data=str(prompts))
    with pytest.raises(BadInput, match="--budget"):
        run(tmp_path, "a", budget="1000flops")
    assert not (tmp_path / "a").exists()


def test_progress_on_a_budget_begins_when_the_reward_model_is_there(tmp_path, cache):
    run(tmp_path, "a")
    (reward,) = folders(cache)
    first = facts_of(reward)["ledger"]["total_flops"]
    one = facts_of(tmp_path / "a")["ledger"]["total_flops"] - first
    budget = f"{first + one:.0f}flops"
    rows = run(tmp_path, "b", steps=None, budget=budget).folder / "metrics.jsonl"
    logged = [json.loads(line) for line in rows.read_text().splitlines()]
    assert len(logged) == 2
    assert logged[-1]["flops"] >= first + one


def test_on_the_command_line(tmp_path, cache, capfd):
    words = "run ppo --reward learned,steps=2 --steps 1 --batch-size 4 --round-prompts 4"
    words += f" --group-size 2 --max-new-tokens 8 --eval-size 4 --output-dir {tmp_path} --name a"
    assert status(words.split()) == 0
    out, err = capfd.readouterr()
    assert "training a reward model first, in" in out + err
    assert "of held-out pairs [" in out + err
    assert "finished: " in out
    log = tmp_path / "a" / "log.txt"
    assert not log.exists() or "Traceback" not in log.read_text()
