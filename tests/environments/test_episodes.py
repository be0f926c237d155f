"""Episodes: which tokens they have, who wrote them, what each turn is worth, where they end."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from toys import Echo

from alignzoo import Example, load_policy
from alignzoo.data import Codec, episode_texts, split_turns
from alignzoo.environments import Environment, Step, Tool
from alignzoo.errors import BadInput, RunFailed
from alignzoo.rollout import (
    Completion,
    EpisodeSettings,
    Sampling,
    Start,
    batch_completions,
    generate,
    play,
)

TOYS = str(Path(__file__).parent / "toys.py")
TASK = "sums,prompts=20,demonstrations=20,held_out=4"
SETTINGS = {"task": TASK, "environment": TOYS, "batch_size": 2, "max_new_tokens": 120}


@pytest.fixture(scope="module")
def policy():
    policy = load_policy("zoo-tiny")
    policy.eval()
    return policy


@pytest.fixture(scope="module")
def codec(policy):
    return Codec(policy.tokenizer)


def settings_of(codec, environment, most=60, **more):
    sampling = Sampling(most, codec.stop_ids, decode=codec.decode, **more)
    return EpisodeSettings(environment, codec, sampling, room=200)


def ids_of(codec, text):
    return codec.tokenizer.encode(text, add_special_tokens=False)


def script(codec, turns):
    """A draw that gives these turns, one after the other, to every context."""
    left, seen = list(turns), []

    def draw(contexts, seeds, sampling):
        seen.append((contexts, seeds, sampling.max_new_tokens))
        ids = ids_of(codec, left.pop(0))
        ended = ids[-1] in codec.stop_ids
        return [Completion([*ids], [-1.0] * len(ids), ended) for _ in contexts]

    draw.seen = seen
    return draw


class Told(Environment):
    """Give the steps that it is made with."""

    steps: list[Step] = []
    given = None

    def reset(self, row):
        self.left = list(self.steps)
        return self.given

    def step(self, text):
        return self.left.pop(0)


def told(*steps, given=None, **options):
    """An environment that gives these steps, whatever the model writes."""
    return type("Told", (Told,), {"steps": steps, "given": given})(**options)


def play_one(codec, environment, turns, most=60, prompt="Hi.", **more):
    start = Start({"prompt": prompt}, codec.prompt(prompt), 1, 2)
    draw = script(codec, turns)
    return play(settings_of(codec, environment, most, **more), [start], draw)[0], draw


CHAT = [{"role": "user", "content": "Hi."}]


def test_the_tokens_the_mask_and_the_rewards_of_a_dialogue(codec):
    steps = [Step("Go on.", 0.5), Step(None, 1.0, True)]
    found, draw = play_one(codec, told(*steps), ["The park<|end|>", "is old<|end|>"], prompt=CHAT)
    # By hand: zoo-tiny closes an answer with <|end|> and opens the next with <|assistant|>.
    first, said = ids_of(codec, "The park<|end|>"), ids_of(codec, "<|user|>Go on.<|end|>")
    said += ids_of(codec, "<|assistant|>")
    second = ids_of(codec, "is old<|end|>")
    assert found.tokens == first + said + second
    assert found.mask == [True] * len(first) + [False] * len(said) + [True] * len(second)
    rewards = [0.0] * len(found.tokens)
    rewards[len(first) - 1], rewards[-1] = 0.5, 1.0
    assert found.rewards == rewards
    assert found.ended and found.prompt == codec.prompt(CHAT)
    assert found.length == len(first) + len(second) and found.logprob == -found.length
    # The second turn is drawn after all of it, with a seed of its own and the room that is left.
    (contexts, seeds, room) = draw.seen[1]
    assert contexts == [found.prompt + first + said]
    assert seeds != draw.seen[0][1] == [1] and room == 60 - len(first) - len(said)


def test_a_dialogue_in_tokens_is_the_one_that_the_template_writes(codec):
    steps = [Step("Go on."), Step(None, 1.0, True)]
    found, _ = play_one(codec, told(*steps), ["The park<|end|>", "is old<|end|>"], prompt=CHAT)
    turns = [*CHAT, {"role": "assistant", "content": "The park"}]
    turns += [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "is old"}]
    assert found.prompt + found.tokens == codec.text(turns)


def test_plain_text_goes_on_as_it_is(codec):
    found, _ = play_one(
        codec, told(Step("= 7."), Step(done=True)), ["3 + 4<|end|>", " So 7<|end|>"]
    )
    said = ids_of(codec, "= 7.")
    first, second = ids_of(codec, "3 + 4<|end|>"), ids_of(codec, " So 7<|end|>")
    assert found.tokens == first + said + second


def test_a_turn_that_a_text_ends_is_closed_by_the_environment(codec):
    ids = ids_of(codec, "The park")

    def draw(contexts, seeds, sampling):  # as `--stop-text` ends it: without a stop token
        return [Completion([*ids], [-1.0] * len(ids), True) for _ in contexts]

    settings, size = settings_of(codec, told(Step("Go on."), Step(done=True))), len(ids)
    (found,) = play(settings, [Start({"prompt": CHAT}, codec.prompt(CHAT), 1, 2)], draw)
    said = ids_of(codec, "<|end|><|user|>Go on.<|end|><|assistant|>")
    assert found.tokens[size : size + len(said)] == said
    assert found.mask[size : size + len(said)] == [False] * len(said)


@pytest.mark.parametrize(
    ("steps", "turns", "most", "options", "ended", "count"),
    [
        ([Step("a", 1.0)] * 9, ["x<|end|>"] * 9, 60, {"max_turns": 2}, False, 2),
        ([Step("a", 1.0)] * 9, ["x<|end|>"] * 9, 12, {}, False, 2),  # no room for a third turn
        ([Step("a", 1.0)] * 9, ["x y z x y z"], 4, {}, False, 1),  # a turn is cut off
        ([Step(None, 1.0, True)], ["x y z"], 60, {}, False, 1),  # the model was stopped elsewhere
        ([Step("bye", 1.0, True)], ["x<|end|>"], 60, {}, True, 1),
    ],
)
def test_where_an_episode_ends(codec, steps, turns, most, options, ended, count):
    found, _ = play_one(codec, told(*steps, **options), turns, most, prompt=CHAT)
    assert found.ended is ended
    assert sum(found.rewards) == count  # each turn that the environment saw gave 1
    assert len(found.tokens) <= most and found.mask[-1]


def test_a_prompt_of_the_environment_takes_the_place_of_the_rows(codec):
    found, draw = play_one(codec, told(Step(done=True), given="Count."), ["one<|end|>"])
    assert found.prompt == codec.prompt("Count.") == draw.seen[0][0][0]
    batch = batch_completions([Example([1, 2, 3], [], row={})], [[found]])
    assert batch.prompts[0].tolist() == found.prompt
    with pytest.raises(BadInput, match="'told': a prompt of 1,001 tokens, and there is room"):
        play_one(codec, told(Step(done=True), given="Count. " * 200), ["one<|end|>"])


class Calculator(Environment):
    """Add by a tool, and end with the first turn that calls none."""

    def reset(self, row):
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        self.tools = [Tool("twice", "Double a number.", schema, lambda a: 2 * a)]

    def step(self, text):
        return Step(None, 1.0, True)


def test_tools_answer_the_calls_of_a_turn(codec):
    call = '<tool_call>{"name": "twice", "arguments": {"a": 21}}</tool_call><|end|>'
    found, _ = play_one(codec, Calculator(), [call, "42<|end|>"], 200, prompt=CHAT)
    turns = split_turns(codec, found.tokens, found.written)
    assert [who for who, _ in turns] == ["model", "environment", "model"]
    # The template of zoo-tiny has no role for tools: they are written as the user's.
    assert turns[1][1] == "<tool_response>\n42\n</tool_response>"
    assert found.ended and sum(found.rewards) == 1.0


def test_an_observation_is_cut(codec):
    step = Step("word " * 1_000_000)
    found, _ = play_one(
        codec, told(step, Step(done=True), observation_tokens=10), ["x<|end|>", "y<|end|>"], 200
    )
    (_, said), size = split_turns(codec, found.tokens, found.written)[1], 5_000_000
    assert said.endswith(f"\n[cut: it had {size:,} characters]") and len(said) < 150


def test_completions_of_one_row_share_a_prompt(codec):
    class Unsteady(Told):
        steps = (Step(done=True),)
        count = [0]

        def reset(self, row):
            super().reset(row)
            self.count[0] += 1
            return f"Prompt {self.count[0]}."

    row = {"prompt": "Hi."}
    starts = [Start(row, codec.prompt("Hi."), seed, 2) for seed in (1, 2)]
    with pytest.raises(RunFailed, match="'unsteady': reset gave two prompts for one row") as error:
        play(settings_of(codec, Unsteady()), starts, script(codec, ["x<|end|>"]))
    assert "row with prompt='Hi.'" in error.value.hint


# What the model draws.


def starts_of(codec, count):
    rows = [{"prompt": [{"role": "user", "content": f"What is {n} + 4?"}]} for n in range(count)]
    return [Start(row, codec.prompt(row["prompt"]), 7 + n, 3) for n, row in enumerate(rows)]


def test_an_episode_does_not_depend_on_its_neighbours(policy, codec):
    settings, starts = settings_of(codec, Echo(), 80), starts_of(codec, 5)
    draw = partial(generate, policy)
    together = play(settings, starts, draw)
    assert any(not all(one.mask) for one in together)
    for start, one in zip(starts, together, strict=True):
        (alone,) = play(settings, [start], draw)
        assert (alone.tokens, alone.mask, alone.rewards) == (one.tokens, one.mask, one.rewards)


def test_an_episode_of_one_turn_is_a_plain_completion(policy, codec):
    settings, starts = settings_of(codec, Echo(turns=1), 30), starts_of(codec, 3)
    prompts, seeds = [s.prompt for s in starts], [s.seed for s in starts]
    plain = generate(policy, prompts, seeds, settings.sampling)
    for one, other in zip(play(settings, starts, partial(generate, policy)), plain, strict=True):
        assert (one.tokens, one.ended) == (other.tokens, other.ended)


def test_the_sampler_and_the_trainer_give_the_same_logprobs(policy, codec):
    settings, starts = settings_of(codec, Echo(), 80), starts_of(codec, 3)
    found = play(settings, starts, partial(generate, policy))
    examples = [Example(s.prompt, [], row=dict(s.row)) for s in starts]
    batch = batch_completions(examples, [[one] for one in found])
    with torch.no_grad():
        logprobs = policy(batch).logprobs
    assert (logprobs - batch["logprobs"])[batch.mask].abs().max() < 1e-4
    assert not any(math.isnan(x) for row in batch["logprobs"].tolist() for x in row)
    for text, one in zip(episode_texts(codec, batch), found, strict=True):
        assert text.split("\n") == [said for _, said in split_turns(codec, one.tokens, one.mask)]


# What a run learns from.


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("grpo", {"beta": 0.1}),
        ("grpo", {"credit": "turns"}),
        ("grpo", {"loss_type": "clip_cov", "top_entropy": 0.5}),
        ("rloo", {}),
        ("reinforce", {}),
        ("reinforce", {"baseline": "greedy"}),
        ("ppo", {"round_prompts": 0}),
        ("raft", {}),
    ],
)
def test_nothing_is_learned_of_what_the_environment_wrote(
    make_run, monkeypatch, algorithm, options
):
    run = make_run(algorithm, options=options, **SETTINGS)
    run.hook.alignzoo_start(run=run)
    batch = run.hook.alignzoo_sample(run=run, rows=[run.data.train[i] for i in range(2)])
    assert (batch["rewards"] == batch["reward/environment"]).all()
    positions = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    theirs = positions & ~batch.mask
    assert theirs.any()
    policy, leaves = run.forwards.policy, []

    def with_leaf(batch, **options):
        found = policy(batch, **options)
        found.logprobs = found.logprobs.detach().requires_grad_()
        leaves.append(found.logprobs)
        return found

    monkeypatch.setattr(run.forwards, "policy", with_leaf)
    run.hook.alignzoo_loss(run=run, batch=batch).sum.backward()
    gradient = leaves[-1].grad
    assert not gradient[theirs].any() and gradient[batch.mask].any()
