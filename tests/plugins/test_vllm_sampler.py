"""The sampler vllm against a stub server on loopback and a fake module; no vLLM is installed."""

from __future__ import annotations

import json
import socket
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from vllm_stub import Stub, serving

from alignzoo import remote
from alignzoo.errors import BadInput, RunFailed
from alignzoo.recipe import Recipe
from alignzoo.rollout import Sampling, complete
from alignzoo.training.loop import train
from alignzoo_vllm.engine import Engine
from alignzoo_vllm.sampler import VLLM
from alignzoo_vllm.server import KEY_VARIABLE, Server
from alignzoo_vllm.servers import Servers

SETTINGS = {"task": "sums", "batch_size": 2, "max_new_tokens": 16}
SAMPLING = Sampling(max_new_tokens=4, stop_ids=[2])


@pytest.fixture
def stub(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.setattr(remote, "MAX_BACKOFF", 0.0)
    return Stub()


@pytest.fixture
def url(stub):
    with serving(stub) as address:
        yield address


@pytest.fixture
def second(stub):
    """Another server, with its stub and its address."""
    other = Stub()
    with serving(other) as address:
        yield other, address


def client(*urls: str, retries: int = 2) -> Servers:
    servers = [Server(url, "zoo-tiny", 20.0, retries, whole_models=False) for url in urls]
    return Servers(servers, requests=4)


def logged(run) -> list[dict]:
    lines = (run.record.folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def sampled_in_process(make_run, rows, **options) -> torch.Tensor:
    own = make_run("grpo", **options)
    return own.hook.alignzoo_sample(run=own, rows=rows).tokens


def test_a_run_draws_with_the_adapter_of_each_step(make_run, stub, url):
    options = {"options": {"group_size": 3}, **SETTINGS, "steps": 2, "learning_rate": 0.05}
    options["max_new_tokens"] = 40  # about where a sum ends
    run = make_run("grpo", sampler=f"vllm,url={url}", **options)
    rows = run.data.train[:2]
    served = run.hook.alignzoo_sample(run=run, rows=rows)
    # The stub draws with the given seeds, as the model in this process does.
    assert torch.equal(served.tokens, sampled_in_process(make_run, rows, **options))
    assert served["ended"].any()
    train(run)
    assert run.step == 2
    for row in logged(run):
        # Both have the same weights after a step too.
        assert 0 <= row["sampling/sampling_logp_difference/max"] < 1e-3
        assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1.0, abs=1e-3)
    names = [body["lora_name"] for body in stub.asked("/v1/load_lora_adapter")]
    stem = f"alignzoo-{run.record.folder.name}"
    assert names == [f"{stem}-0", f"{stem}-1"]
    assert [b["lora_name"] for b in stub.asked("/v1/unload_lora_adapter")] == names[:1]
    assert [f.name for f in (run.record.folder / "sampler").iterdir()] == names[1:]


def test_full_training_reloads_whole_models(make_run, stub, url):
    options = {"options": {"group_size": 3}, **SETTINGS, "adapter": "none", "learning_rate": 0.01}
    run = make_run("grpo", sampler=f"vllm,url={url}", steps=2, **options)
    train(run)
    for row in logged(run):
        # The policy has moved before the second step, and the server with it.
        assert 0 <= row["sampling/sampling_logp_difference/max"] < 1e-3
    folders = [
        run.record.folder.resolve() / "sampler" / f"alignzoo-{run.record.folder.name}-{step}/model"
        for step in range(2)
    ]
    asked = [body["kwargs"]["weights_path"] for body in stub.asked("/collective_rpc")]
    assert asked == [str(folder) for folder in folders]
    assert [folder.is_dir() for folder in folders] == [False, True]
    assert len(stub.asked("/reset_prefix_cache")) == 2
    assert {body["model"] for body in stub.asked("/v1/completions")} == {"zoo-tiny"}
    assert not stub.asked("/v1/load_lora_adapter")


def test_rows_are_dealt_to_several_servers(make_run, stub, url, second):
    other, address = second
    options = {"options": {"group_size": 3}, **SETTINGS, "steps": 1, "max_new_tokens": 4}
    run = make_run("grpo", sampler=f"vllm,url={url}+{address}", **options)
    rows = run.data.train[:3]
    served = run.hook.alignzoo_sample(run=run, rows=rows)
    assert torch.equal(served.tokens, sampled_in_process(make_run, rows, **options))
    prompts = [[body["prompt"] for body in s.asked("/v1/completions")] for s in (stub, other)]
    assert sorted(prompts[0]) == sorted([rows[0].prompt, rows[2].prompt] * 3)
    assert prompts[1] == [rows[1].prompt] * 3
    assert [len(s.asked("/v1/load_lora_adapter")) for s in (stub, other)] == [1, 1]


def test_processes_begin_at_different_servers():
    servers = client("http://a/v1", "http://b/v1")
    a, b = servers.servers
    prompts = [[5], [5], [6], [5]]  # the first two are of one row
    assert servers.deal(prompts) == [a, a, b, a]
    servers.first = 1
    assert servers.deal(prompts) == [b, b, a, b]
    servers.lost[a] = remote.NoAnswer("no answer")
    assert servers.deal(prompts) == [b] * 4


def test_the_work_of_a_server_that_dies_is_done_by_the_others(make_run, stub, url, second):
    other, address = second
    options = {"options": {"group_size": 4}, **SETTINGS, "steps": 2, "max_new_tokens": 8}
    run = make_run("grpo", sampler=f"vllm,url={url}+{address},retries=1", **options)
    notes = []
    run.ui.note = notes.append
    rows = run.data.train[:4]
    other.answers_left = 3  # of its 8 completions
    served = run.hook.alignzoo_sample(run=run, rows=rows)
    # Nothing is lost, and everything is in its place.
    assert torch.equal(served.tokens, sampled_in_process(make_run, rows, **options))
    assert len(other.answered) == 3 and len(stub.answered) == 13
    assert len({*stub.answered, *other.answered}) == 16  # no completion was drawn twice
    assert len(notes) == 1 and address in notes[0] and "do its work" in notes[0]
    train(run)
    assert len(other.answered) == 3 and len(stub.answered) == 13 + 2 * 8
    assert [row["step"] for row in logged(run)] == [1, 2]


def test_a_server_that_is_up_again_takes_part_again(make_run, stub, url, second):
    other, address = second
    options = {"options": {"group_size": 2}, **SETTINGS, "steps": 2, "max_new_tokens": 4}
    run = make_run("grpo", sampler=f"vllm,url={url}+{address},retries=0", **options)
    other.answers_left = 1
    complete(run, run.data.train[:2], 2)
    other.restart()
    train(run)
    # It does not have the adapter of the first step, and gets that of the second.
    assert len(other.answered) == 1 + 2
    assert [*other.policies] == ["zoo-tiny", f"alignzoo-{run.record.folder.name}-1"]


def test_a_server_that_was_restarted_in_between_is_passed_over(stub, url, second):
    other, address = second
    servers = client(url, address)
    for server in servers.servers:
        server.adopt("of-this-step")
    stub.policies["of-this-step"] = stub.policies["zoo-tiny"]
    assert len(servers.draw([[5], [6], [7]], [1, 2, 3], SAMPLING)) == 3
    assert len(stub.answered) == 3 and not other.answered
    del stub.policies["of-this-step"]
    with pytest.raises(RunFailed, match=r"all 2 servers are lost, the last because of .*any more"):
        servers.draw([[5], [6], [7]], [1, 2, 3], SAMPLING)


def test_when_all_servers_die_the_run_ends_and_can_be_resumed(make_run, stub, url, second):
    other, address = second
    options = {"options": {"group_size": 2}, **SETTINGS, "steps": 3, "max_new_tokens": 4}
    run = make_run("grpo", sampler=f"vllm,url={url}+{address},retries=1", **options)
    stub.answers_left, other.answers_left = 3, 2  # 5 of 12
    with pytest.raises(remote.NoAnswer, match=r"all 2 servers are lost(.|\n)*is the server up"):
        train(run)
    assert run.step == 1


@pytest.mark.parametrize(
    ("urls", "says"),
    [
        ("{0}+{0}/", "names a server twice"),
        ("{0}+", "not a URL"),
        ("{0}+http://127.0.0.1:9/v1", "no answer"),
    ],
)
def test_urls_that_cannot_be_served_from(url, urls, says):
    with pytest.raises(BadInput, match=says):
        VLLM(url=urls.format(url)).alignzoo_check(Recipe("grpo"))


def test_requests_hold_the_prompt_and_every_sampling_setting(make_run, stub, url):
    settings = {"temperature": 0.7, "top_p": 0.9, "top_k": 5, "min_p": 0.01}
    run = make_run("rloo", options={"group_size": 2}, sampler=f"vllm,url={url}", **SETTINGS)
    for name, value in settings.items():
        setattr(run.recipe, name, value)
    run.recipe.stop_text = ["!"]
    complete(run, run.data.train[:1], 2)
    bodies = stub.asked("/v1/completions")
    assert len({body["seed"] for body in bodies}) == 2
    for body in bodies:
        assert body["prompt"] == run.data.train[0].prompt
        assert body["stop_token_ids"] == run.codec.stop_ids
        assert (body["logprobs"], body["return_token_ids"]) == (0, True)
        assert {name: body[name] for name in settings} == settings and body["stop"] == ["!"]
        assert body["model"].startswith("alignzoo-") and body["max_tokens"] == 16


def test_the_servers_logprobs_are_kept_apart_from_the_trainers(make_run, stub, url):
    stub.shift = -0.5
    run = make_run("grpo", options={"group_size": 2}, sampler=f"vllm,url={url}", **SETTINGS)
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:1])
    difference = (batch["inference_logprobs"] - batch["logprobs"])[batch.mask]
    assert torch.allclose(difference, torch.tensor(-0.5), atol=1e-3)


def test_an_adapter_left_by_an_interrupted_run_is_replaced(stub, url, make_run):
    run = make_run("grpo", sampler=f"vllm,url={url}", **SETTINGS)
    stub.policies[f"alignzoo-{run.record.folder.name}-0"] = stub.policies["zoo-tiny"]
    complete(run, run.data.train[:1], 1)
    assert len(stub.asked("/v1/load_lora_adapter")) == 2


def test_transient_failures_are_retried(stub, url):
    stub.failures = 2
    (completion,) = client(url).draw([[5, 6]], [1], SAMPLING)
    assert len(completion.tokens) == len(completion.logprobs) > 0
    stub.failures = 3
    with pytest.raises(RunFailed, match="no answer from .* after 3 attempts"):
        client(url).draw([[5, 6]], [1], SAMPLING)


def test_a_refusal_is_not_retried(stub, url):
    stub.refusal = 401
    with pytest.raises(RunFailed, match=r"refused completions: 401(.|\n)*VLLM_API_KEY") as found:
        client(url).draw([[5]], [1], SAMPLING)
    assert found.value.message.startswith(f"{url}: ")
    assert len(stub.requests) == 1


def test_the_key_comes_from_the_environment(stub, url, monkeypatch):
    client(url).check()
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    client(url).check()
    assert stub.keys == {None, "Bearer secret"}


def test_a_server_without_token_ids_is_refused(stub, url):
    stub.token_ids = False
    with pytest.raises(RunFailed, match=r"no token ids(.|\n)*0\.10\.2"):
        client(url).draw([[5]], [1], SAMPLING)


def test_a_missing_logprob_is_nan():
    choice = {"token_ids": [4, 2], "finish_reason": "stop", "logprobs": {"token_logprobs": [None]}}
    with pytest.raises(RunFailed, match="2 token ids came with 1 log-probs"):
        client("http://a/v1").servers[0].parse_completion({"choices": [choice]})
    choice["logprobs"]["token_logprobs"] = [None, -1.0]
    found = client("http://a/v1").servers[0].parse_completion({"choices": [choice]})
    assert found.ended and found.logprobs[0] != found.logprobs[0]


def test_a_server_that_is_down_is_bad_input_before_anything_is_written(tmp_path, capfd):
    from alignzoo.cli import status

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["run", "grpo", "--task", "sums", "--output-dir", str(tmp_path / "runs")]
    assert status([*words, "--sampler", f"vllm,url=http://127.0.0.1:{port}/v1"]) == 2
    err = capfd.readouterr().err
    assert "no answer from" in err and "vllm serve" in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"adapter": "dora"}, "cannot load --adapter dora"),
        ({"model": "other"}, "does not serve 'other'\n.*serves zoo-tiny"),
    ],
)
def test_what_the_server_does_not_support_is_refused(url, settings, says):
    with pytest.raises(BadInput, match=says):
        VLLM(url=url).alignzoo_check(Recipe("grpo", **settings))


def test_an_earlier_run_needs_the_name_of_its_merged_weights(tmp_path, url):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(BadInput, match="merged weights"):
        VLLM(url=url).alignzoo_check(Recipe("grpo", model=str(tmp_path)))
    VLLM(url=url, model="zoo-tiny").alignzoo_check(Recipe("grpo", model=str(tmp_path)))


def test_a_url_needs_a_scheme():
    with pytest.raises(BadInput, match="is not a URL"):
        VLLM(url="localhost:8000").alignzoo_check(Recipe("grpo"))


def test_without_vllm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match=r"not installed(.|\n)*alignzoo\[vllm\](.|\n)*url="):
        VLLM().alignzoo_check(Recipe("grpo"))


@pytest.fixture
def fake_vllm(monkeypatch):
    """Install a module that records its arguments and completes each prompt with [7, 2]."""
    calls = SimpleNamespace(llm=[], generate=[], reloaded=[], resets=0)

    class LLM:
        def __init__(self, **settings):
            calls.llm.append(settings)

        def generate(self, prompts, parameters, lora_request, use_tqdm):
            calls.generate.append((prompts, parameters, lora_request))
            drawn = [{7: SimpleNamespace(logprob=-0.5)}, {2: SimpleNamespace(logprob=-0.25)}]
            answer = SimpleNamespace(token_ids=(7, 2), logprobs=drawn, finish_reason="stop")
            return [SimpleNamespace(outputs=[answer]) for _ in prompts]

        def collective_rpc(self, method, kwargs):
            calls.reloaded.append((method, kwargs))

        def reset_prefix_cache(self):
            calls.resets += 1

    vllm, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("request")
    vllm.LLM, vllm.SamplingParams = LLM, lambda **given: given
    request.LoRARequest = lambda *given: given
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.lora", lora)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", request)
    return calls


def test_the_engines_arguments(make_run, fake_vllm):
    settings = {**SETTINGS, "lora_rank": 20, "steps": 2, "precision": "fp32", "seed": 3}
    run = make_run("grpo", options={"group_size": 2}, sampler="vllm,memory=0.4", **settings)
    assert fake_vllm.llm == [
        {
            "model": "zoo-tiny",
            "dtype": "float32",
            "max_model_len": run.recipe.max_length,
            "seed": 3,
            "enable_lora": True,
            "max_lora_rank": 32,
            "gpu_memory_utilization": 0.4,
            "logprobs_mode": "processed_logprobs",
        }
    ]
    batch = run.hook.alignzoo_sample(run=run, rows=run.data.train[:2])
    assert batch.tokens.tolist() == [[7, 2]] * 4 and batch["ended"].all()
    assert batch["inference_logprobs"].tolist() == [[-0.5, -0.25]] * 4
    prompts, parameters, lora = fake_vllm.generate[0]
    assert [prompt["prompt_token_ids"] for prompt in prompts] == [
        row.prompt for row in run.data.train[:2] for _ in range(2)
    ]
    assert len({given["seed"] for given in parameters}) == 4
    assert parameters[0]["stop_token_ids"] == run.codec.stop_ids
    assert (parameters[0]["logprobs"], parameters[0]["top_k"]) == (0, -1)
    name, number, folder = lora
    assert (name, number) == (f"alignzoo-{run.record.folder.name}-0", 1)
    train(run)
    numbers = [lora[1] for _, _, lora in fake_vllm.generate]
    assert numbers == [1, 1, 2]  # step 0 twice, then the adapter after one step
    assert folder.endswith("adapter")


def test_the_engine_reloads_whole_models(make_run, fake_vllm):
    settings = {**SETTINGS, "adapter": "none", "steps": 2}
    run = make_run("grpo", options={"group_size": 2}, sampler="vllm", **settings)
    assert not {"enable_lora", "max_lora_rank"} & fake_vllm.llm[0].keys()
    train(run)
    assert [lora for _, _, lora in fake_vllm.generate] == [None, None]
    calls = [(method, given["weights_path"]) for method, given in fake_vllm.reloaded]
    folder = run.record.folder.resolve() / "sampler" / f"alignzoo-{run.record.folder.name}-1"
    assert len(calls) == 2 and calls[1] == ("reload_weights", str(folder / "model"))
    assert fake_vllm.resets == 2


def test_a_rank_that_vllm_does_not_support_is_refused(fake_vllm):
    with pytest.raises(BadInput, match="up to rank 512"):
        Engine("zoo-tiny", Recipe("grpo", lora_rank=600), 0.3)
