"""Scores of every family against the model's own hidden states, and what is saved of the head."""

from __future__ import annotations

import copy

import pytest
import torch
from policy_models import build, configs
from test_policy import folder, load  # noqa: F401  (a fixture)

from alignzoo.errors import BadInput, RunFailed
from alignzoo.policy import HiddenState
from alignzoo.policy.forward import scatter_tokens
from alignzoo.policy.heads import SCORE_HEAD_FILE
from alignzoo.policy.layout import count_work, pack_batch, token_mask
from alignzoo.policy.probe import pick_scorer
from alignzoo.policy.scoring import LogitsScorer, RowScorer, backbone_of


def textbook_logprobs(model, batch) -> torch.Tensor:
    """`[N, T, h]`: the hidden state of each token, a completion at a time through the model."""
    rows = []
    for n, length in enumerate(batch.lengths.tolist()):
        prompt = batch.prompts[batch.group[n], : batch.prompt_lengths[batch.group[n]]]
        ids = torch.cat([prompt, batch.tokens[n, :length]])[None]
        rows.append(backbone_of(model)(input_ids=ids, use_cache=False)[0][0, len(prompt) :])
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


@torch.no_grad()
@pytest.mark.parametrize("name", configs())
def test_each_token_has_its_own_state(name, batch):
    model = build(name)
    plain = copy.deepcopy(model)
    scorer = pick_scorer(model)
    states = scorer.states(batch, HiddenState.OF_TOKEN)
    weight = torch.linspace(-1, 1, states.shape[1])
    expected = textbook_logprobs(plain, batch) @ weight
    torch.testing.assert_close(
        scatter_tokens(batch, states @ weight), expected, atol=2e-5, rtol=1e-5
    )
    assert len(states) == int(batch.lengths.sum())


@torch.no_grad()
@pytest.mark.parametrize("kind", [RowScorer, LogitsScorer])
def test_all_scorers_agree_on_states(batch, kind):
    model = build("gemma2")
    plain = model.config._attn_implementation
    shared = {which: pick_scorer(model).states(batch, which) for which in HiddenState}
    model.set_attn_implementation(plain)
    for which in HiddenState:
        torch.testing.assert_close(
            kind(model).states(batch, which), shared[which], atol=1e-5, rtol=1e-5
        )


def test_layout_keeps_the_last_tokens_too(batch):
    row = pack_batch(batch, HiddenState.OF_TOKEN)
    assert row.ids.shape == (1, (9 + 4 + 1) + (2 + 2 + 7 + 1) + (4 + 3) + (1 + 1 + 1))
    assert torch.equal(row.ids[0, row.source], batch.tokens[token_mask(batch)])
    counted = count_work(batch, True, HiddenState.OF_TOKEN)
    assert (counted.tokens, counted.scored) == (row.ids.numel(), 0)


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_the_head_is_trained_and_comes_back(folder, batch, tmp_path, adapter):  # noqa: F811
    policy = load(folder, adapter=adapter, score_head=True, reference=False)
    assert "score_head.weight" in dict(policy.named_parameters())
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    for _ in range(2):
        batch.last(policy.scores(batch)).sum().backward()
        optimizer.step()
    policy.eval()
    with torch.no_grad():
        expected = policy.scores(batch)
    result = tmp_path / policy.save(tmp_path)
    assert (result / SCORE_HEAD_FILE).is_file()
    with torch.no_grad():
        again = load(result, adapter=None)
        torch.testing.assert_close(again.scores(batch), expected, atol=1e-5, rtol=1e-5)
        assert not again.parameters()
        further = load(result, adapter="lora", score_head=True)
        torch.testing.assert_close(further.scores(batch), expected, atol=1e-5, rtol=1e-5)
    assert load(result, adapter="lora").score_head is None

    fresh = load(folder, adapter=adapter, score_head=True, reference=False)
    fresh.load_state(policy.state())
    with torch.no_grad():
        assert torch.equal(fresh.eval() or fresh.scores(batch), expected)


def test_scores_are_zero_where_there_is_no_token(folder, batch):  # noqa: F811
    scores = load(folder, score_head=True).scores(batch)
    absent = torch.arange(scores.shape[1]) >= batch.lengths[:, None]
    assert (scores[absent] == 0).all()
    assert (scores[~absent] != 0).all()
    last = torch.stack([row[n - 1] for row, n in zip(scores, batch.lengths, strict=True)])
    assert torch.equal(batch.last(scores), last)


def test_without_a_head_there_are_no_scores(folder, batch):  # noqa: F811
    with pytest.raises(RunFailed, match="no score head"):
        load(folder).scores(batch)


def test_a_head_of_another_width_is_refused(folder, tmp_path):  # noqa: F811
    policy = load(folder, score_head=True)
    result = tmp_path / policy.save(tmp_path)
    policy.score_head.weight.data = torch.zeros(1, 3)
    policy.score_head.save(result)
    with pytest.raises(BadInput, match="not the score head"):
        load(result, adapter=None)
