"""Generation: the same as transformers' when greedy, and each row on its own when sampling."""

from __future__ import annotations

import pytest
import torch
from policy_models import configs, tokenize
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    MinPLogitsWarper,
    MistralConfig,
    PreTrainedTokenizerFast,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignzoo.batch import Example, collate
from alignzoo.errors import RunFailed
from alignzoo.policy import ModelSpec, load_policy
from alignzoo.policy.decoder import SPARE_LENGTH, growing_cache
from alignzoo.rollout import Sampling, generate
from alignzoo.rollout.sampling import inverse_cumulative, truncate

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "mistral with a window of 6": MistralConfig(**SMALL, sliding_window=6),
    "gpt2": GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, tie_word_embeddings=False
    ),
}
PROMPTS = [[5, 9, 11], [7], [3, 4, 8, 21, 40, 2, 17, 33, 60], [12, 13]]
PROMPTS_OF_12 = [[5, 9, 11], [7], [3, 4, 8, 2, 10], [7], [6, 1], [5, 9, 11]]


@pytest.fixture(scope="module", params=list(CONFIGS))
def policy(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param])
    # Random logits are nearly flat; larger ones make greedy decoding and endings definite.
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)
    model.save_pretrained(folder)
    tokenize(folder)
    loaded = load_policy(str(folder))
    loaded.eval()
    return loaded


def sampling(**changed) -> Sampling:
    return Sampling(**{"max_new_tokens": 20, "stop_ids": [1], **changed})


def test_greedy_is_what_transformers_generates(policy):
    ours = generate(policy, PROMPTS, [0] * 4, sampling(temperature=0.0))
    for prompt, completion in zip(PROMPTS, ours, strict=True):
        theirs = policy.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=1,
            pad_token_id=0,
        )[0, len(prompt) :]
        assert completion.tokens == theirs.tolist()
        assert completion.ended == (1 in completion.tokens)


@pytest.mark.parametrize("name", list(configs()))
def test_every_architecture_says_greedily_what_it_says_in_transformers(name, tmp_path):
    """Alone, and beside prompts of other lengths: left-padded. 97 tokens, sliding windows of 4."""
    config = configs()[name]
    config.tie_word_embeddings = False  # tied, such models say one word again and again
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(97)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w2").save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    expected = [
        plain.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=96,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    assert len({token for tokens in expected for token in tokens}) > 4

    ours = load_policy(str(tmp_path))
    ours.eval()
    greedy = sampling(temperature=0.0, max_new_tokens=12, stop_ids=[96])
    twice = [prompt for prompt in PROMPTS for _ in range(2)]
    together = generate(ours, twice, [0] * len(twice), greedy)
    assert [c.tokens for c in together[::2]] == expected
    assert [c.tokens for c in together[1::2]] == expected
    assert [generate(ours, [p], [0], greedy)[0].tokens for p in PROMPTS] == expected


def test_a_completion_depends_on_its_seed_and_not_on_its_neighbours(policy):
    together = generate(policy, PROMPTS, [1, 2, 3, 4], sampling())
    apart = [
        generate(policy, [p], [s], sampling())[0]
        for p, s in zip(PROMPTS, [1, 2, 3, 4], strict=True)
    ]
    small = generate(policy, PROMPTS, [1, 2, 3, 4], sampling(), batch_size=2)
    for one, other, third in zip(together, apart, small, strict=True):
        assert one.tokens == other.tokens == third.tokens
    other_seeds = generate(policy, PROMPTS, [5, 6, 7, 8], sampling())
    assert [c.tokens for c in other_seeds] != [c.tokens for c in together]


def test_a_completion_ends_at_the_first_stop_and_nowhere_else(policy):
    seen = generate(policy, PROMPTS * 16, list(range(64)), sampling(stop_ids=[*range(8)]))
    assert {c.ended for c in seen} == {True, False}
    for completion in seen:
        assert not any(token < 8 for token in completion.tokens[:-1])
        assert completion.ended == (completion.tokens[-1] < 8)
        assert len(completion.logprobs) == len(completion.tokens) <= 20


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_log_probs_are_those_of_the_policy_at_the_temperature_that_draws(policy, temperature):
    sampled = generate(policy, PROMPTS, [1, 2, 3, 4], sampling(temperature=temperature))
    batch = collate([Example(p, [c.tokens]) for p, c in zip(PROMPTS, sampled, strict=True)])
    scored = policy(batch, temperature=temperature or 1.0).logprobs
    for n, completion in enumerate(sampled):
        found = scored[n, : len(completion.tokens)]
        assert torch.allclose(found, torch.tensor(completion.logprobs), atol=2e-4)


@pytest.mark.parametrize("size", [1, 255, 256, 257, 1000])
def test_a_large_vocabulary_is_searched_block_by_block(size):
    draw = torch.Generator().manual_seed(size)
    weights = torch.rand(200, size, generator=draw)
    weights[:, 1::3] = 0.0  # left out
    weights[:50, : size // 2] = 0.0
    weights[:, -1] += 0.1
    uniform = torch.rand(200, generator=draw, dtype=torch.float64)
    uniform[::20], uniform[1::20] = 0.0, 1 - 2**-53
    found = inverse_cumulative(weights, uniform)
    assert (weights.gather(1, found[:, None]) > 0).all()
    cumulative = weights.double().cumsum(-1)
    textbook = (cumulative > uniform[:, None] * cumulative[:, -1:]).int().argmax(-1)
    # Another order of summation may decide otherwise on a hair's breadth: next to never.
    assert (found == textbook).float().mean() >= 0.99


def test_drawing_inverts_the_cumulative_distribution():
    # Probabilities 0.1, 0.2, 0.3, 0.4: cumulative 0.1, 0.3, 0.6, 1.
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(6, 4)
    uniform = torch.tensor([0.0, 0.05, 0.15, 0.45, 0.65, 0.9999999999], dtype=torch.float64)
    assert sampling().draw(logits, uniform).tolist() == [0, 0, 1, 2, 3, 3]
    # At temperature 1/2 the probabilities are squared: 1, 4, 9, 16 of 30.
    assert sampling(temperature=0.5).draw(logits, uniform).tolist() == [0, 1, 1, 2, 3, 3]
    assert sampling(temperature=0.0).draw(logits, uniform).tolist() == [3] * 6


def test_a_token_of_no_probability_is_never_drawn():
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0]]).expand(2, 4)
    uniform = torch.tensor([0.0, 0.999999999999], dtype=torch.float64)
    assert sampling().draw(logits, uniform).tolist() == [1, 3]


@pytest.mark.parametrize(
    "cut",
    [{"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.7, "min_p": 0.1}],
    ids=str,
)
def test_unlikely_tokens_are_left_out_as_transformers_does(cut: dict[str, float]):
    logits = 3 * torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    warped = logits
    for name, warper in {
        "top_k": TopKLogitsWarper,
        "top_p": TopPLogitsWarper,
        "min_p": MinPLogitsWarper,
    }.items():
        if name in cut:
            warped = warper(cut[name])(None, warped)
    kept = truncate(logits.softmax(-1), **cut) > 0
    assert torch.equal(kept, warped > -torch.inf)
    assert bool((kept.sum(-1) < 40).all() and (kept.sum(-1) > 0).all())
    uniform = torch.linspace(0, 0.999999, 20, dtype=torch.float64)
    drawn = sampling(**cut).draw(logits, uniform)
    assert bool(kept.gather(1, drawn[:, None]).all())


def test_a_text_ends_a_completion_too(policy):
    free = generate(policy, PROMPTS, [1, 2, 3, 4], sampling(stop_ids=[]))

    def decode(ids):
        return " ".join(map(str, ids))

    word = str(free[0].tokens[7])
    ended = generate(
        policy, PROMPTS, [1, 2, 3, 4], sampling(stop_ids=[], stop=[word], decode=decode)
    )
    first = next(n for n in range(1, 21) if word in decode(free[0].tokens[:n]))
    assert ended[0].tokens == free[0].tokens[:first]
    assert ended[0].ended and not free[0].ended


def test_a_prompt_is_computed_once_for_all_its_completions(policy):
    """Groups of four of each prompt, beside each completion alone."""
    prompts = [prompt for prompt in PROMPTS for _ in range(4)]
    seeds = list(range(16))
    together = generate(policy, prompts, seeds, sampling())
    for prompt, seed, completion in zip(prompts, seeds, together, strict=True):
        (alone,) = generate(policy, [prompt], [seed], sampling())
        assert completion.tokens == alone.tokens
        assert completion.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
    seen = []
    hook = policy.model.register_forward_hook(
        lambda _, __, kwargs, output: seen.append(tuple(kwargs["input_ids"].shape)),
        with_kwargs=True,
    )
    generate(policy, prompts, seeds, sampling(max_new_tokens=3))
    hook.remove()
    assert seen[0] == (4, 9)
    assert seen[1][1] == 1 and seen[1][0] > 4


def moved(policy, seed: int = 8) -> None:
    """What is trained, away from its start, so that policy and reference differ."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=draw))


@pytest.fixture(scope="module", params=["lora", "none", "prompt", "prefix"])
def adapted(request, tmp_path_factory):
    """A policy that has moved away from its reference, by adapter; words 0 to 11 in all."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SMALL, "vocab_size": 12}))
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    model.save_pretrained(folder)
    tokenize(folder)
    loaded = load_policy(ModelSpec(str(folder), adapter=request.param, reference=True))
    moved(loaded)
    loaded.eval()
    return loaded


def probabilities(policy, prompt: list[int]) -> tuple[Tensor, Tensor]:
    """Of the first word `[V]`, and of the second after each first `[V, V]`, from the scorer: what
    training sees, prompts shared and no cache."""
    words = range(12)
    batch = collate([Example(prompt, [[a, b] for a in words for b in words])])
    logprobs = policy(batch).logprobs.detach().double().view(12, 12, 2)
    return logprobs[:, 0, 0].exp(), logprobs[:, :, 1].exp()


def inverse(probability: Tensor, uniform: float) -> int:
    """The first word whose cumulative probability is above `uniform`."""
    total = 0.0
    for word, p in enumerate(probability.tolist()):
        total += p
        if uniform < total:
            return word
    return len(probability) - 1


@pytest.mark.parametrize("mixture", [0.25, 0.5, 1.0])
def test_a_mixture_is_drawn_token_by_token(adapted, mixture):
    """The first two tokens are those that the enumerated mixture has at the rows' own numbers."""
    prompt, seeds = [3, 7, 5], range(300)
    policy = probabilities(adapted, prompt)
    with adapted.as_reference():
        reference = probabilities(adapted, prompt)
    mixed = []
    for pi, ref in zip(policy, reference, strict=True):
        weight = pi ** (1 - mixture) * ref**mixture
        mixed.append(weight / weight.sum(-1, keepdim=True))
    assert (policy[0] - reference[0]).abs().sum() > 0.05
    drawn = generate(
        adapted,
        [prompt] * 300,
        list(seeds),
        sampling(max_new_tokens=2, stop_ids=[]),
        mixture=mixture,
    )
    expected = []
    for seed in seeds:
        u = torch.rand(2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        first = inverse(mixed[0], u[0].item())
        expected.append([first, inverse(mixed[1][first], u[1].item())])
    # A number that falls on a border within rounding could give the neighbour; none of these do.
    assert [c.tokens for c in drawn] == expected
    plain = generate(adapted, [prompt] * 300, list(seeds), sampling(max_new_tokens=2, stop_ids=[]))
    assert [c.tokens for c in plain] != expected
    # Log-probs are the policy's own.
    for completion in drawn[:20]:
        a, b = completion.tokens
        own = [policy[0][a].log().item(), policy[1][a, b].log().item()]
        assert completion.logprobs == pytest.approx(own, abs=1e-4)


def test_mixture_0_is_the_policy_and_1_the_reference(adapted):
    def drawn(**how):
        return generate(adapted, PROMPTS_OF_12, [1, 2, 3, 4, 5, 6], sampling(), **how)

    policy = drawn()
    assert drawn(mixture=0.0) == policy
    with adapted.as_reference():
        reference = drawn()
    assert [c.tokens for c in drawn(mixture=1.0)] == [c.tokens for c in reference]
    assert [c.tokens for c in policy] != [c.tokens for c in reference]


def test_without_a_reference_there_is_no_mixture(policy):
    assert generate(policy, [[7]], [0], sampling(), mixture=0.0)
    with pytest.raises(RunFailed, match="no reference"):
        generate(policy, [[7]], [0], sampling(), mixture=0.1)


def test_a_mixture_does_not_depend_on_neighbours_either(adapted):
    seeds = [1, 2, 3, 4, 5, 6]
    together = generate(adapted, PROMPTS_OF_12, seeds, sampling(), mixture=0.4)
    assert len({len(c.tokens) for c in together}) > 1  # some leave before others
    for prompt, seed, completion in zip(PROMPTS_OF_12, seeds, together, strict=True):
        (alone,) = generate(adapted, [prompt], [seed], sampling(), mixture=0.4)
        assert completion.tokens == alone.tokens


def test_a_cache_with_room_is_transformers_cache(policy):
    """What it holds and gives back, over a border of its buffers and a change of its rows."""
    config = policy.model.config
    mine, theirs = growing_cache(config), DynamicCache(config=config)
    draw = torch.Generator().manual_seed(0)
    rows = 3
    for length in [5, *[1] * (SPARE_LENGTH + 3), 2, 3, 1]:
        if length == 2:
            rows, chosen = 4, torch.tensor([2, 0, 0, 1])
            mine.reorder_cache(chosen)
            theirs.reorder_cache(chosen)
        if length == 3:
            rows, chosen = 2, torch.tensor([3, 1])
            mine.batch_select_indices(chosen)
            theirs.batch_select_indices(chosen)
        keys, values = torch.randn(2, rows, 2, length, 8, generator=draw)
        assert mine.get_mask_sizes(length, 0) == theirs.get_mask_sizes(length, 0)
        for found, expected in zip(
            mine.update(keys, values, 0), theirs.update(keys, values, 0), strict=True
        ):
            assert torch.equal(found, expected)
        assert mine.get_seq_length() == theirs.get_seq_length()
