"""The ledger's arithmetic against counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from policy_models import SIZES, build
from test_policy import llama, load  # noqa: F401  (a fixture)
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AriaTextConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DeepseekV3Config,
    Gemma4TextConfig,
    LlamaConfig,
)

import alignzoo_suite
from alignzoo.batch import Batch, Example, collate
from alignzoo.data import Codec
from alignzoo.ledger import Ledger
from alignzoo.policy import HiddenState, Policy
from alignzoo.policy.flops import AdapterWork, FlopsProfile, Products, profile
from alignzoo.policy.kinds import ADAPTERS
from alignzoo.rollout import Sampling, generate
from alignzoo_judges import Question
from alignzoo_judges.local import LocalJudge


def test_formula():
    flops = FlopsProfile(backbone=10, head=7, width=4, layers=2, trains_base=False)
    assert flops.forward(3, 6, 2) == 2 * 10 * 3 + 4 * 4 * 2 * 6 + 2 * 7 * 2
    assert flops.update(3, 6, 2) == 2 * flops.forward(3, 6, 2)


def test_formula_with_an_adapter():
    own = AdapterWork(Products(token=5, once=100), Products(token=15, once=300))
    flops = FlopsProfile(10, 7, 4, 2, trains_base=False, adapter=own)
    base = flops.without_adapter
    assert flops.forward(3, 6, 2) == base.forward(3, 6, 2) + 2 * (5 * 3 + 100)
    assert flops.update(3, 6, 2) == 2 * base.forward(3, 6, 2) + 2 * (15 * 3 + 300)


@pytest.fixture(scope="module")
def pairs() -> Batch:
    """Eight prompts of 20 to 27 tokens with two completions each: 420 tokens to compute."""
    draw = torch.Generator().manual_seed(0)

    def ids(count: int) -> list[int]:
        return torch.randint(20, 200, (count,), generator=draw).tolist()

    return collate([Example(ids(20 + i), [ids(10 + i), ids(14 + i)]) for i in range(8)])


def products(compute) -> float:
    """The FLOPs of matrix products that torch counts; on a CPU it counts no attention."""
    with FlopCounterMode(display=False) as counter:
        compute()
    return counter.get_total_flops()


KINDS = [name for name in ADAPTERS if not ADAPTERS[name].four_bit]


@pytest.fixture(scope="module")
def wider(tmp_path_factory) -> Path:
    """Twice as wide as zoo-tiny, with queries that share keys, and a head of its own."""
    path = tmp_path_factory.mktemp("models") / "wider"
    config = LlamaConfig(
        vocab_size=1500, hidden_size=256, intermediate_size=704, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, tie_word_embeddings=False,
        max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(Path(alignzoo_suite.__path__[0]) / "zoo_tiny").save_pretrained(
        path
    )
    return path


MODELS = ["zoo-tiny", "wider"]


@pytest.fixture(scope="module", params=[f"{model} {kind}" for model in MODELS for kind in KINDS])
def policy(request) -> Policy:
    """Both models under every adapter, with a value head and a score head."""
    model, kind = request.param.split()
    model = str(request.getfixturevalue("wider")) if model == "wider" else model
    return load(
        model, adapter=kind, lora_rank=16, reference=False, values="shared", score_head=True
    )


def test_training_and_scoring_against_what_torch_counts(policy, pairs):
    policy.train()
    tokens, attended, scored = policy.work(pairs)
    linear = products(lambda: policy(pairs).logprobs.sum().backward())
    if policy.flops.trains_base:  # the head is computed again for the gradient of its weights
        linear -= 2 * policy.flops.head * scored
    # What is counted too much is the gradient of the first layer's input.
    assert 0.999 * linear < policy.flops.update(tokens, 0, scored) < 1.03 * linear
    policy.eval()
    with torch.no_grad():
        linear = products(lambda: policy(pairs))
    assert policy.flops.forward(tokens, 0, scored) == linear
    # Scores and their sum over values, of unmasked pairs alone.
    config = policy.model.config
    wide = 2 * 2 * config.num_hidden_layers * config.hidden_size
    assert policy.flops.forward(tokens, attended, scored) - linear == wide * attended


@torch.no_grad()
def test_values_and_rewards_against_what_torch_counts(policy, pairs):
    policy.eval()
    values = products(lambda: policy.values(pairs))
    attended = policy.work(pairs).attended
    assert_counted(policy, policy.cost(pairs, lm_head=False).flops, values, attended)
    rewards = products(lambda: policy.scores(pairs))
    work = {"states": HiddenState.OF_TOKEN}
    attended = policy.work(pairs, **work).attended
    assert_counted(policy, policy.cost(pairs, **work).flops, rewards, attended)


def test_generation_against_what_torch_counts(policy):
    policy.eval()
    prompts = [[20 + i, 40, 41, 42, 43, 44, 45] for i in range(3) for _ in range(4)]
    sampling, spent = Sampling(5, []), Ledger()
    linear = products(
        lambda: generate(policy, prompts, range(12), sampling, batch_size=6, charge=spent.charge)
    )
    # Groups of four in batches of six: the second prompt is computed twice.
    own, before = policy.virtual.placeholders, policy.virtual.count
    assert spent.tokens["generation"] == 4 * (own + 7) + 12 * 4
    attended = 12 * sum(before + 7 + i for i in range(1, 5))  # of drawn tokens
    attended += 4 * sum(before - own + i for i in range(1, own + 8))  # of prompts
    assert spent.flops["generation"] - attention(policy, attended) == linear


def test_a_judge_against_what_torch_counts(policy):
    judge = LocalJudge(policy, Codec(policy.tokenizer), policy.evaluating)
    question = Question([{"role": "user", "content": "is it so?"}], ("A", "B"))
    others = Question([{"role": "user", "content": "and which of them is it?"}], ("A", "B", "no"))
    judge.ledger = spent = Ledger()
    linear = products(lambda: judge.ask([question, others]))
    examples = [judge.build_example(i, each) for i, each in enumerate((question, others))]
    attended = policy.work(collate(examples)).attended
    assert spent.flops["judge"] - attention(policy, attended) == linear
    judge.ledger = spent = Ledger()
    linear = products(lambda: judge.write([question.messages], 5))
    cached = policy.virtual.count - policy.virtual.placeholders
    attended = sum(cached + i for i in range(1, spent.tokens["judge"] + 1))
    assert spent.flops["judge"] - attention(policy, attended) == linear


def test_attention_in_generation_against_what_torch_counts():
    """Eager attention masks nothing if rows are alike and prompts have one token."""
    policy = load("zoo-tiny", reference=False)
    policy.model.set_attn_implementation("eager")
    spent = Ledger()
    whole = products(
        lambda: generate(policy, [[20], [21]], [0, 1], Sampling(9, []), charge=spent.charge)
    )
    assert spent.flops["generation"] == whole


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_critic_of_its_own_against_what_torch_counts(kind, pairs):
    policy = load("zoo-tiny", adapter=kind, lora_rank=16, reference=False, values="own")
    with torch.no_grad():
        values = products(lambda: policy.values(pairs))
    attended = policy.work(pairs).attended
    assert_counted(policy, policy.cost(pairs, lm_head=False).flops, values, attended)


def attention(policy: Policy, attended: float) -> float:
    return 4 * policy.flops.width * policy.flops.layers * attended


def assert_counted(policy: Policy, flops: float, linear: float, attended: float) -> None:
    """What is not counted is a head of one number: 0.1% at most."""
    assert 0.999 * linear <= flops - attention(policy, attended) <= linear


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "prompt"])
def test_a_reference_without_the_adapter_costs_less(kind, pairs):
    policy = load("zoo-tiny", adapter=kind, reference=True)
    tokens, _, scored = work = policy.work(pairs, reference=True)
    cost = policy.cost(pairs, reference=True)
    assert cost == (policy.flops.without_adapter.forward(*work), tokens)
    assert products(lambda: policy.reference(pairs)) == policy.flops.without_adapter.forward(
        tokens, 0, scored
    )
    with policy.as_reference():
        assert policy.cost(pairs) == cost
    policy.move_reference()
    assert policy.cost(pairs, reference=True) == policy.cost(pairs)


HEADS_AND_EXPERTS = {
    "heads of latent vectors": DeepseekV3Config(
        **SIZES, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, moe_intermediate_size=32, first_k_dense_replace=1, q_lora_rank=16,
        kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=8, v_head_dim=8,
    ),
    "experts by other names": AriaTextConfig(
        **SIZES, num_key_value_heads=2, moe_num_experts=4, moe_topk=1, moe_num_shared_experts=1
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["llama", "gpt2", *HEADS_AND_EXPERTS])
def test_matches_what_torch_counts(name):
    own = HEADS_AND_EXPERTS.get(name)
    model = AutoModelForCausalLM.from_config(own) if own is not None else build(name)
    flops = profile(model, trains_base=True)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.set_attn_implementation("eager")
        model.set_experts_implementation("eager")  # torch does not count grouped products
        model(torch.arange(20)[None])
    # Eager attention computes the masked half as well.
    assert flops.forward(20, 20 * 20, 20) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_only_active_experts_count():
    dense = profile(build("llama"), True).backbone
    sparse = profile(build("mixtral"), True).backbone
    assert dense < sparse < 2.2 * dense  # two experts of four, and the router


def test_the_cost_of_a_pass(llama, batch):  # noqa: F811
    policy = load(llama)
    work = policy.work(batch)
    assert policy.cost(batch) == (policy.flops.forward(*work), work.tokens)
    assert policy.cost(batch, backward=True) == (policy.flops.update(*work), work.tokens)
    scores = policy.cost(batch, states=HiddenState.OF_TOKEN)
    assert scores.tokens == work.tokens + len(batch.lengths)
    assert policy.cost(batch, shared=False).tokens > work.tokens


def test_heads_that_differ_by_layer():
    sizes = {key: v for key, v in SIZES.items() if key != "initializer_range"}
    config = Gemma4TextConfig(
        **sizes, head_dim=8, num_key_value_heads=2,
        layer_types=["sliding_attention", "full_attention"], global_head_dim=16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    flops = profile(model, trains_base=False)
    assert flops.width * flops.layers == 4 * 8 + 4 * 16
