"""A teacher on a server: a stub on loopback that scores prompts with zoo-tiny, as vLLM would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from vllm_stub import Stub, serving

from alignzoo import BadInput, Example, RunFailed, collate, load_policy, remote
from alignzoo.cli import status
from alignzoo.run.server_teacher import KEY_VARIABLE, ServerTeacher
from alignzoo.session.session import execute, load_teacher, recipe_for

SHORT = {
    "task": "sums", "batch_size": 2, "max_new_tokens": 8, "eval_size": 0, "checkpoint_every": 1,
    "random_init": True, "adapter": "none", "learning_rate": 1e-3,
}  # fmt: skip
TOP_K = {"teacher_top_k": 5, "beta": 0.5}


@pytest.fixture(scope="module")
def base():
    return Stub()


@pytest.fixture
def stub(base, monkeypatch):
    """A stub whose only model is called "big": zoo-tiny."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "MAX_BACKOFF", 0.0)
    fresh = Stub.__new__(Stub)
    fresh.__dict__ |= base.__dict__ | {"policies": {"big": base.policies["zoo-tiny"]}}
    fresh.requests, fresh.answered, fresh.keys = [], [], set()
    return fresh


@pytest.fixture
def url(stub):
    with serving(stub) as address:
        yield address


def first_loss(make_run, teacher: str, options: dict):
    run = make_run("distill", **SHORT, teacher=teacher, options=options)
    run.forwards.loaded_teacher = load_teacher(run)
    batch = run.hook.alignzoo_sample(run=run, rows=[run.data.train[i] for i in (0, 1)])
    return run, run.hook.alignzoo_loss(run=run, batch=batch), batch


@pytest.mark.parametrize("options", [TOP_K, {"loss_type": "sampled"}])
def test_it_teaches_what_the_same_model_in_memory_teaches(make_run, stub, url, options):
    run, ours, batch = first_loss(make_run, f"{url},price=2e6", options)
    _, theirs, _ = first_loss(make_run, "zoo-tiny", options)
    assert ours.mean == pytest.approx(theirs.mean, rel=1e-5)
    assert ours.mean > 0.1 and ours.sum.requires_grad
    asked = stub.asked("/v1/completions")[1:]  # after the look at its vocabulary
    assert len(asked) == 2
    sent = [body["prompt"] for body in asked]
    for n, completion in enumerate(batch.completions()):
        prompt = batch.prompts[n, : batch.prompt_lengths[n]].tolist()
        assert prompt + completion in sent
    tokens = run.ledger.tokens["teacher"]
    assert tokens == sum(map(len, sent)) and run.ledger.money == pytest.approx(2 * tokens)
    assert {body["model"] for body in asked} == {"big"}  # its only one


def test_a_run_ends_when_the_server_does_and_is_resumed_bit_for_bit(tmp_path, stub, url):
    def recipe(name: str):
        settings = {**SHORT, "teacher": f"{url},retries=1", "steps": 4, "name": name}
        return recipe_for("distill", settings, {"options": TOP_K, "output_dir": str(tmp_path)})

    straight = execute(recipe("straight")).folder
    stub.answers_left = 1 + 2 * 2  # its vocabulary, and two steps
    with pytest.raises(RunFailed, match=r"the teacher's server: no answer from .* after 2 attemp"):
        execute(recipe("broken"))
    broken = tmp_path / "broken"
    assert len((broken / "metrics.jsonl").read_text().splitlines()) == 2
    stub.answers_left = None
    execute(recipe("broken"), resume=True)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (broken / name).read_text() == (straight / name).read_text()
    weights = [load_file(x / "model/model.safetensors") for x in (straight, broken)]
    assert all(torch.equal(x, weights[1][name]) for name, x in weights[0].items())


def test_the_key_is_sent_and_never_shown(monkeypatch, stub, url):
    monkeypatch.setenv(KEY_VARIABLE, "s3cret")
    teacher = ServerTeacher(url, lambda purpose, **amounts: None)
    stub.refusal = 401
    tokenizer = stub.policies["big"].tokenizer
    with pytest.raises(BadInput, match=KEY_VARIABLE) as error:
        teacher.check_vocabulary(tokenizer, "zoo-tiny")
    assert stub.keys == {"Bearer s3cret"} and "s3cret" not in str(error.value)


def test_replies_without_log_probs_are_named(stub, url):
    teacher = ServerTeacher(f"{url},retries=0", lambda purpose, **amounts: None)
    tokenizer = stub.policies["big"].tokenizer
    stub.texts = False
    assert not teacher.check_vocabulary(tokenizer, "zoo-tiny")  # it cannot tell
    stub.withheld = 1
    with pytest.raises(BadInput, match="returned no log-probs of the tokens"):
        teacher.check_vocabulary(tokenizer, "zoo-tiny")


def run_command(url: str, options: str, out: Path) -> int:
    common = ["--task", "sums", "--eval-size", "0", "--steps", "1", "--output-dir", str(out)]
    return status(["run", "distill", "--teacher", *f"{url}{options}".split(), *common])


REFUSED = {
    " --beta 0.5": ["--teacher", "whole vocabulary", "--teacher-top-k 20"],
    " --teacher-top-k 5 --temperature 0.7": ["--temperature", "at temperature 1"],
    " --teacher-top-k 5 --teacher-four-bit": ["--teacher-four-bit", "its server"],
    " --loss-type sampled --teacher-top-k 5": ["--teacher-top-k"],
    ",api_key=1 --teacher-top-k 5": ["key", KEY_VARIABLE],
    ",models=big --teacher-top-k 5": ["'models'"],
    "?key=1 --teacher-top-k 5": ["host and path"],
    "1/ --teacher-top-k 5": ["the teacher's server", "is the server up"],
}


@pytest.mark.parametrize("options", list(REFUSED))
def test_bad_input_is_refused_and_leaves_nothing_behind(options, url, tmp_path, capfd):
    out = tmp_path / "runs"
    assert run_command(url, options, out) == 2
    message = " ".join(capfd.readouterr().err.split())
    assert all(part in message for part in REFUSED[options]), message
    assert "Traceback" not in message and not (out.exists() and any(out.iterdir()))


def test_another_vocabulary_is_refused_with_a_token(stub, url, tmp_path, capfd):
    stub.policies = {"other": load_policy("zoo-critic")}
    assert run_command(url, " --teacher-top-k 5", tmp_path / "runs") == 2
    message = " ".join(capfd.readouterr().err.split())
    assert "vocabulary of the teacher's server is not that of zoo-tiny: token" in message
    stub.policies["second"] = stub.policies["other"]
    assert run_command(url, " --teacher-top-k 5", tmp_path / "runs") == 2
    assert "has 2 models, not one" in capfd.readouterr().err


def test_what_it_refuses_is_refused_in_its_words(stub, url, tmp_path, capfd):
    assert run_command(url, " --teacher-top-k 21", tmp_path / "runs") == 2
    message = " ".join(capfd.readouterr().err.split())
    assert "greater than max allowed" in message and "--max-logprobs" in message
    assert "Traceback" not in message


def test_masked_tokens_and_groups_are_scored_in_their_places(stub, url):
    teacher = ServerTeacher(f"{url},model=big", lambda purpose, **amounts: None)
    batch = collate([Example([5, 6], [[7, 8, 9], [10]]), Example([11], [[12, 13]])])
    found = teacher.outputs(batch, top_k=3)
    with torch.no_grad():
        wanted = stub.policies["big"](batch, top_k=3)
    assert torch.allclose(found.logprobs, wanted.logprobs, atol=1e-5)
    assert torch.equal(found.top_ids, wanted.top_ids)
    assert torch.allclose(found.top_logprobs, wanted.top_logprobs, atol=1e-5)
