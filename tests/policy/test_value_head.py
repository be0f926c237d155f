"""Values of the state before each token: from the policy's trunk, or from one of their own."""

from __future__ import annotations

import pytest
import torch
from policy_models import build, configs
from test_policy import folder, load  # noqa: F401  (a fixture)
from test_score_head import textbook_logprobs

from alignzoo.errors import RunFailed
from alignzoo.policy.forward import ForwardOptions
from alignzoo.policy.heads import ValueHead
from alignzoo.policy.probe import pick_scorer
from alignzoo.policy.scoring import LogitsScorer, backbone_of


def filled(width: int) -> ValueHead:
    """A head that has left its zero."""
    head = ValueHead(width, torch.device("cpu"))
    head.weight.data = torch.linspace(-1, 1, width)[None]
    head.bias.data.fill_(0.25)
    return head


def states_before(model, batch) -> torch.Tensor:
    """`[N, T, h]`: the state that each token was drawn in, a completion at a time."""
    own = textbook_logprobs(model, batch)
    first = []
    for b in batch.group.tolist():
        prompt = batch.prompts[b, : batch.prompt_lengths[b]][None]
        first.append(backbone_of(model)(input_ids=prompt, use_cache=False)[0][0, -1])
    return torch.cat([torch.stack(first)[:, None], own[:, :-1]], 1)


@torch.no_grad()
@pytest.mark.parametrize("name", configs())
def test_a_value_is_of_the_state_that_the_token_was_drawn_in(name, batch):
    model = build(name)
    states = states_before(model, batch)
    head = filled(states.shape[-1])
    scorer = pick_scorer(model)
    found = scorer(batch, ForwardOptions(value_head=head))
    there = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    expected = torch.where(there, states @ head.weight[0] + 0.25, 0.0)
    torch.testing.assert_close(found.values, expected, atol=5e-5, rtol=1e-5)
    assert torch.equal(found.logprobs, scorer(batch).logprobs)


@torch.no_grad()
def test_the_models_own_logits_come_with_values_too(batch):
    model = build("gemma2")
    plain = model.config._attn_implementation
    head = filled(model.config.hidden_size)
    expected = pick_scorer(model)(batch, ForwardOptions(value_head=head)).values
    model.set_attn_implementation(plain)
    found = LogitsScorer(model)(batch, ForwardOptions(value_head=head)).values
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("values", ["shared", "own"])
def test_values_begin_at_zero_and_are_trained(folder, batch, values):  # noqa: F811
    policy = load(folder, values=values)
    before = policy(batch).logprobs.detach()
    assert not policy(batch, values=True).values.any()
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        found = policy(batch, values=True)
        (found.values.sum() + 0.0 * found.logprobs.sum()).backward()
        optimizer.step()
    policy.eval()
    with torch.no_grad():
        after = policy(batch, values=True)
        assert torch.equal(policy.values(batch), after.values)
        assert after.values.abs().min(1).values.max() > 0
        # A critic of its own leaves the policy alone; one that shares its trunk does not.
        assert torch.equal(policy(batch).logprobs, before) == (values == "own")
        again = load(folder, values=values)
        again.load_state(policy.state())
        again.eval()
        assert torch.equal(again.values(batch), after.values)
        assert torch.equal(again(batch).logprobs, after.logprobs)


def test_both_adapters_get_a_gradient_from_one_pass(folder, batch):  # noqa: F811
    policy = load(folder, values="own")
    policy.value_head.weight.data.fill_(0.1)
    found = policy(batch, values=True)
    (found.values.sum() + found.logprobs.sum()).backward()
    moved = {name for name, p in policy.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("lora_B.default" in name for name in moved)
    assert any("lora_B.value" in name for name in moved)
    assert {name for name, p in policy.named_parameters() if p.grad is None} == set()


def test_what_is_saved_is_the_policy_alone(folder, batch, tmp_path):  # noqa: F811
    policy = load(folder, values="own")
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            parameter.add_(0.02 if ".value." in name else 0.01)
        policy.eval()
        expected = policy(batch).logprobs
        result = tmp_path / policy.save(tmp_path)
        assert not list(result.glob("*/"))
        again = load(result, adapter=None)
        again.eval()
        torch.testing.assert_close(again(batch).logprobs, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_reference_has_neither_adapter(folder, batch):  # noqa: F811
    policy = load(folder, values="own")
    base = policy(batch).logprobs
    for parameter in policy.parameters():
        parameter.add_(0.01)
    assert not torch.equal(policy(batch).logprobs, base)
    trained = dict(policy.named_parameters()).keys()
    assert torch.equal(policy.reference(batch).logprobs, base)
    assert dict(policy.named_parameters()).keys() == trained


def test_without_a_head_there_are_no_values(folder, batch):  # noqa: F811
    with pytest.raises(RunFailed, match="no value head"):
        load(folder).values(batch)
