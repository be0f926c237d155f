"""Local, server, cached and gold judges: their questions, their answers and their costs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from judge_stub import Stub, serving, text, tops

from alignzoo.data import Codec
from alignzoo.errors import BadInput, RunFailed
from alignzoo.ledger import Ledger
from alignzoo.policy import ModelSpec, load_policy
from alignzoo_judges import Comparison, Question, ServerOptions, compare, rate, resolve_judge
from alignzoo_judges.cached import CachedJudge
from alignzoo_judges.local import LocalJudge
from alignzoo_judges.reply import parse_answer
from alignzoo_judges.server import ServerJudge

HI = [{"role": "user", "content": "hi"}]


def question(n: int | str, options: tuple[str, ...] = ("A", "B")) -> Question:
    return Question([{"role": "user", "content": f"question {n}"}], options)


def unusable(answer: list[float]) -> bool:
    return all(map(math.isnan, answer))


# --- models in this process


@pytest.fixture(scope="module")
def policy():
    return load_policy("zoo-tiny")


def test_a_local_models_answers_match_a_plain_forward_pass(policy):
    policy.eval()
    codec = Codec(policy.tokenizer)
    judge = LocalJudge(policy, codec, policy.evaluating)
    judge.ledger = Ledger()
    options = ("A", "B", "AB")
    asked = [question(1, options), Question(HI, options)]
    for q, found in zip(asked, judge.ask(asked), strict=True):
        prompt, totals = codec.prompt(q.messages), []
        for option in options:
            answer = codec.completion(q.messages, option)
            with torch.no_grad():
                logits = policy.model(torch.tensor([prompt + answer])).logits[0]
            logp = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            totals.append(sum(float(logp[t, token]) for t, token in enumerate(answer)))
        expected = torch.tensor(totals).softmax(0).tolist()
        assert found == pytest.approx(expected, abs=1e-4)
    assert judge.ledger.flops["judge"] > 0
    assert judge.ledger.feedback["judge_calls"] == 2


def test_only_a_question_that_does_not_fit_is_unusable(policy):
    judge = LocalJudge(policy, Codec(policy.tokenizer), policy.evaluating)
    judge.max_tokens = 60
    long, short = judge.ask([question("long " * 200), question(1)])
    assert unusable(long)
    assert sum(short) == pytest.approx(1)


def test_self_is_the_base_of_a_run_at_every_step(make_run):
    run = make_run("grpo", task="sums", batch_size=2, options={"group_size": 2})
    judge = resolve_judge("self", run=run)
    before = judge.ask([question(1)])
    for name, p in run.model.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    (judge.file).unlink()
    assert resolve_judge("self", run=run).ask([question(1)]) == before
    assert resolve_judge("self", run=run).identity == judge.identity
    assert run.ledger.feedback["judge_calls"] == 2
    assert run.ledger.flops["judge"] > 0


def test_self_writes_as_the_base_does_at_every_step(make_run):
    run = make_run("grpo", task="sums", batch_size=2, options={"group_size": 2})
    (before,) = resolve_judge("self", run=run).write([HI], 6)
    for name, p in run.model.named_parameters():
        if "lora_B" in name:
            p.data.normal_()
    judge = resolve_judge("self", run=run)
    judge.known.clear()
    assert judge.write([HI], 6) == [before] != [""]
    trained = LocalJudge(run.model, run.codec, run.model.evaluating)
    assert trained.write([HI], 6) != [before]


def test_an_earlier_run_judges_with_its_adapter(policy):
    codec = Codec(policy.tokenizer)
    names = set()
    for scale in (0.0, 0.5):
        trained = load_policy(ModelSpec("zoo-tiny", adapter="lora", seed=1))
        for name, p in trained.named_parameters():
            if "lora_B" in name:
                p.data.fill_(scale)
        names.add(LocalJudge(trained, codec, trained.evaluating).identity)
    assert len(names) == 2


def test_a_model_in_four_bits_is_another_judge_with_similar_answers():
    asked = [question(n) for n in range(20)]
    full, small = resolve_judge("zoo-tiny"), resolve_judge("zoo-tiny,four_bit=true")
    assert full.identity != small.identity
    apart = torch.tensor(full.ask(asked)) - torch.tensor(small.ask(asked))
    assert 0 < apart.abs().mean() < 0.15  # on questions that it was not trained on


# --- servers


def ask_server(stub: Stub, questions: list[Question], **settings):
    with serving(stub) as url:
        return ServerJudge(url, ServerOptions(**{"requests": 4, "retries": 2, **settings})).ask(
            questions
        )


def test_a_request_asks_for_an_options_tokens_and_logprobs():
    stub = Stub(lambda body: tops(A=math.log(0.6), B=math.log(0.2), C=math.log(0.2)))
    assert ask_server(stub, [question(1)])[0] == pytest.approx([0.75, 0.25])
    (body,) = stub.asked
    assert (body["model"], body["max_tokens"], body["logprobs"]) == ("judge", 2, True)
    assert (body["top_logprobs"], body["temperature"]) == (20, 0)
    assert body["messages"] == question(1).messages


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (text("B"), [0.0, 1.0]),
        (text(" A."), [1.0, 0.0]),
        (text("neither"), None),
        (text(""), None),
        (tops(C=-0.1, D=-3.0), None),
        ({"choices": []}, None),
        ({"error": "?"}, None),
        ([1], None),
        ({"choices": [{"message": {"content": None}}]}, None),
    ],
)
def test_without_logprobs_the_text_is_the_answer_if_it_is_an_option(reply, expected):
    found = parse_answer(reply, question(1))
    assert unusable(found) if expected is None else found == expected


def test_tokens_that_differ_only_in_space_are_added():
    reply = tops(**{"A": math.log(0.3), " A": math.log(0.3), "B": math.log(0.2)})
    assert parse_answer(reply, question(1)) == pytest.approx([0.75, 0.25])


def test_failures_and_timeouts_are_retried_and_useless_answers_are_not():
    stub = Stub(lambda body: text("A" if int(body["messages"][0]["content"][9:]) % 2 else "B"))
    stub.slow = 1.0
    troubles = {3: (503, "busy"), 5: (0, None), 7: (200, "{not json"), 8: (200, "<html>")}
    stub.trouble = lambda n: troubles.get(n % 10)
    found = ask_server(stub, [question(n) for n in range(40)], timeout=0.4, retries=30)
    useless = [n for n, answer in enumerate(found) if unusable(answer)]
    # A page that is not JSON is an unusable answer; all other failures are retried.
    assert len(useless) == sum(n % 10 == 8 for n in range(1, len(stub.asked) + 1)) > 0
    for n, answer in enumerate(found):
        if n not in useless:
            assert answer == ([1.0, 0.0] if n % 2 else [0.0, 1.0])


def test_answers_before_a_server_died_are_cached():
    stub = Stub(lambda body: text("A"))
    with serving(stub) as url:
        stub.trouble = lambda n: (503, "dead") if n > 5 else None
        judge = CachedJudge(ServerJudge(url, ServerOptions(requests=1, retries=1)))
        with pytest.raises(RunFailed, match="no answer from .* after 2 attempts"):
            judge.ask([question(n) for n in range(10)])
        stub.trouble = lambda n: None
        before = len(stub.asked)
        again = CachedJudge(ServerJudge(url, ServerOptions(requests=1, retries=1)))
        assert again.ask([question(n) for n in range(10)]) == [[1.0, 0.0]] * 10
        assert len(stub.asked) - before == 5


def test_the_key_comes_from_the_environment_and_is_in_no_message(monkeypatch):
    monkeypatch.setenv("ALIGNZOO_JUDGE_KEY", "secret")
    stub = Stub(lambda body: text("A"))
    stub.trouble = lambda n: (401, "wrong key: secret")
    with pytest.raises(RunFailed, match="ALIGNZOO_JUDGE_KEY") as error:
        ask_server(stub, [question(1)])
    assert stub.keys == {"Bearer secret"}
    assert "secret" not in error.value.message


def test_no_redirect_is_followed():
    stub = Stub(lambda body: text("A"))
    stub.trouble = lambda n: (302, "")
    with pytest.raises(RunFailed, match="refused chat/completions: 302"):
        ask_server(stub, [question(1)])
    assert len(stub.asked) == 1


# --- the cache


def test_a_question_is_asked_once_and_counted_every_time():
    stub = Stub(lambda body: text("A"))
    ledger = Ledger()
    with serving(stub) as url:
        for _ in range(2):
            judge = resolve_judge(url, ledger=ledger)
            assert judge.ask([question(1), question(1), question(2)]) == [[1.0, 0.0]] * 3
        assert len(stub.asked) == 2
        resolve_judge(f"{url},model=other").ask([question(1)])
        assert len(stub.asked) == 3  # another judge
    assert ledger.feedback["judge_calls"] == 6
    with judge.file.open("a") as file:
        file.write('{"question": "cut o')
    assert len(CachedJudge(judge.judge).known) == 2


def test_unusable_answers_are_not_cached():
    replies = iter(["useless", "B"])
    stub = Stub(lambda body: text(next(replies)))
    with serving(stub) as url:
        judge = resolve_judge(url)
        assert unusable(judge.ask([question(1)])[0])
        assert judge.ask([question(1)]) == [[0.0, 1.0]]


# --- comparing and rating


LONGER = SimpleNamespace(
    score=lambda row, completion: min(len(completion) / 10, 1.0), worst=0.0, best=1.0
)


def test_both_orders_are_asked_and_position_bias_cancels():
    stub = Stub(lambda body: tops(A=math.log(0.9), B=math.log(0.1)))
    with serving(stub) as url:
        (verdict,) = compare(
            resolve_judge(url), [Comparison("hi", "one", "two")], "Which is kinder?"
        )
    assert verdict.label == pytest.approx((0.5, 0.5))
    assert verdict.flips
    asked = [body["messages"][0]["content"] for body in stub.asked]
    assert all("Which is kinder?" in each for each in asked)
    assert sorted("[Response A]\none\n" in each for each in asked) == [False, True]
    assert sorted("[Response B]\none\n" in each for each in asked) == [False, True]


def test_gold_prefers_and_rates_by_the_score():
    gold = resolve_judge("gold", task=LONGER)
    pairs = [Comparison(HI, "a", "aaaa"), Comparison("hi", "aa", "bb")]
    assert [v.label for v in compare(gold, pairs)] == [(0.0, 1.0), (0.5, 0.5)]
    assert rate(gold, [({"prompt": HI}, "a" * 10), ({"prompt": "x"}, "aaa")]) == pytest.approx(
        [1.0, -0.4]
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gold", "there is none"),
        ("self", "there is none"),
        ("no/such/folder/", "no/such/folder"),
        ("gold,x=1", "has no option 'x'"),
        ("self,four_bit=true", "has no option 'four_bit'"),
        ("zoo-tiny,four_bits=true", "did you mean 'four_bit'"),
        ("zoo-tiny,four_bit=8", "--four-bit"),
        ("http://localhost/v1,four_bit=true", "unknown option 'four_bit'"),
        ("http://a:b@localhost/v1", "holds a password"),
        ("http://localhost/v1?key=secret", "could leak a key"),
        ("http://localhost/v1,api_key=secret", "ALIGNZOO_JUDGE_KEY only"),
        ("http://localhost/v1,requests=0", "--requests: '0' is not allowed"),
        ("http://localhost/v1,timeout=0", "--timeout"),
        ("http://localhost/v1,timeout=soon", "--timeout"),
        ("http://localhost/v1,retries=-1", "--retries"),
        ("http://localhost/v1,per_minute=-1", "--per-minute"),
        ("http://localhost/v1,price_in=nan", "--price-in"),
        ("http://localhost/v1,speed=1", "unknown option 'speed'"),
    ],
)
def test_an_unavailable_judge_is_bad_input(text, says):
    with pytest.raises(BadInput, match=says) as error:
        resolve_judge(text)
    assert "secret" not in error.value.message


def test_a_server_with_several_models_needs_one_named():
    stub = Stub(lambda body: None)
    stub.models = ["one", "two"]
    with serving(stub) as url, pytest.raises(BadInput, match=r"2 models(.|\n)*model=one"):
        resolve_judge(url)


@pytest.mark.parametrize("think", [0, 5])
def test_a_swap_swaps_the_label_exactly_and_asks_the_same(policy, think):
    pairs = [Comparison(HI, f"one {i}", f"{i} two", {}, "Kind?" * i or None) for i in range(5)]
    swapped = [Comparison(c.prompt, c.b, c.a, {}, c.question) for c in pairs]
    mixed = [(swapped if i % 2 else pairs)[i] for i in range(5)]
    local = LocalJudge(policy, Codec(policy.tokenizer), policy.evaluating)
    labels = [v.label for v in compare(local, pairs, think=think)]
    assert len(set(labels)) == 5
    assert [v.label[::-1] for v in compare(local, swapped, think=think)] == labels
    turned = [
        v.label[:: -1 if i % 2 else 1] for i, v in enumerate(compare(local, mixed, think=think))
    ]
    assert turned == labels


def test_answers_are_kept_per_order():
    # "zzz" gets 0.9 in first position, and 0.6 in second.
    def answer(body):
        first = "[Response A]\nzzz\n" in body["messages"][0]["content"]
        return (
            tops(A=math.log(0.9), B=math.log(0.1))
            if first
            else tops(A=math.log(0.4), B=math.log(0.6))
        )

    with serving(Stub(answer)) as url:
        one, other = compare(
            resolve_judge(url), [Comparison("p", "zzz", "a"), Comparison("p", "a", "zzz")]
        )
    assert one.a_first == pytest.approx([0.9, 0.1])
    assert one.b_first == pytest.approx([0.4, 0.6])
    assert one.label == pytest.approx((0.75, 0.25))
    assert other.a_first == one.b_first
    assert other.label == one.label[::-1]


# --- writing, and thinking before the answer


def test_a_comparison_may_have_a_question_of_its_own():
    stub = Stub(lambda body: text("A"))
    with serving(stub) as url:
        pairs = [Comparison("p", "a", "b", question="Which is kinder?"), Comparison("p", "a", "b")]
        compare(resolve_judge(url), pairs, "Which is shorter?")
    ends = sorted(body["messages"][0]["content"].rpartition("\n\n")[2] for body in stub.asked)
    kinder, shorter = (f"Which is {x}? Answer with A or B alone." for x in ("kinder", "shorter"))
    assert ends == [kinder, kinder, shorter, shorter]


def test_a_local_model_writes_greedily_and_is_charged(policy):
    policy.eval()
    codec = Codec(policy.tokenizer)
    judge = LocalJudge(policy, codec, policy.evaluating)
    judge.ledger = Ledger()
    judge.max_tokens = 40
    written = judge.write([HI, [{"role": "user", "content": "long " * 50}], HI], 8)
    ids = codec.prompt(HI)
    start, tokens = len(ids), 0
    with torch.no_grad():
        while tokens < 8 and (not tokens or ids[-1] not in codec.stop_ids):
            ids.append(int(policy.model(torch.tensor([ids])).logits[0, -1].argmax()))
            tokens += 1
    expected = codec.decode(ids[start:]).strip()
    assert expected
    assert written == [expected, "", expected]
    assert judge.ledger.feedback["judge_calls"] == 3
    assert judge.ledger.flops["judge"] > 0


def test_with_thinking_the_answer_follows_an_explanation_in_a_further_turn():
    def answer(body):
        if len(body["messages"]) == 1:
            return text(f"because {len(stub.asked)}")
        return tops(A=math.log(0.8), B=math.log(0.2))

    stub, ledger = Stub(answer), Ledger()
    with serving(stub) as url:
        for _ in range(2):
            judge = resolve_judge(url, ledger=ledger)
            (verdict,) = compare(
                judge, [Comparison("p", "one", "two")], "Which is kinder?", think=7
            )
    assert verdict.label == pytest.approx((0.5, 0.5))
    assert len(stub.asked) == 4  # all of it was cached the second time
    assert ledger.feedback["judge_calls"] == 8
    explained, answered = stub.asked[:2], stub.asked[2:]
    for body in explained:
        assert (body["max_tokens"], body["temperature"]) == (7, 0)
        assert body["messages"][0]["content"].endswith(
            "Which is kinder? Explain which one, and why."
        )
    for body in answered:
        asked, explanation, last = body["messages"]
        assert [asked] in [each["messages"] for each in explained]
        assert explanation["role"] == "assistant"
        assert explanation["content"].startswith("because ")
        assert last == {"role": "user", "content": "Which is kinder? Answer with A or B alone."}


def test_without_an_explanation_the_answer_is_unusable_and_not_cached():
    replies = [{"error": "?"}, text("because")]

    def answer(body):
        return replies.pop(0) if len(body["messages"]) == 1 else text("B")

    stub = Stub(answer)
    with serving(stub) as url:
        judge = CachedJudge(ServerJudge(url, ServerOptions(requests=1)))
        pair = [Comparison("p", "one", "two")]
        (verdict,) = compare(judge, pair, think=7)
        assert not verdict.usable
        assert len(stub.asked) == 3  # two to explain, one to answer
        replies.append(text("because"))
        (verdict,) = compare(judge, pair, think=7)
        assert verdict.usable
        assert len(stub.asked) == 5


def test_texts_are_cached_by_dialogue_and_length():
    stub = Stub(lambda body: text(f"said {len(stub.asked)}"))
    with serving(stub) as url:
        assert resolve_judge(url).write([HI, HI], 7) == ["said 1", "said 1"]
        assert resolve_judge(url).write([HI], 7) == ["said 1"]
        assert resolve_judge(url).write([HI], 8) == ["said 2"]


def test_the_gold_score_cannot_write():
    with pytest.raises(BadInput, match="cannot write text: GoldJudge"):
        compare(resolve_judge("gold", task=LONGER), [Comparison("p", "a", "b")], think=7)
