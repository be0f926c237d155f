"""What plugins give to hooks is checked right after the plugin, and its faults name it."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import pytest
import torch

from alignzoo import BadInput, Example, Loss, RunFailed, collate, hooks
from alignzoo.discovery import hookimpl
from alignzoo.faults import THE_CORE
from alignzoo.reserved import Names
from alignzoo.rollout import Completion
from alignzoo.rollout.mismatch import DIFFERENCE, RATIO
from alignzoo.rollout.rollout import summarise_completions
from alignzoo.run.log import RoundLog

NAN, INF = float("nan"), float("inf")
ROWS = [Example([1, 2], [], row={"prompt": "a"}), Example([3], [], row={"prompt": "b"})]
HERE = __file__


class Algorithm:
    @hookimpl
    def alignzoo_loss(self, run, batch):
        return good_loss()


def good_loss(**metrics):
    return Loss(torch.tensor(2.0, requires_grad=True) * 1, torch.tensor(4), metrics)


def number(x: float):
    return torch.tensor(x), torch.tensor(1)


@pytest.fixture
def run():
    names = Names()
    config = SimpleNamespace(vocab_size=10)
    network = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: config))
    return SimpleNamespace(
        names=names,
        round_metrics=RoundLog(SimpleNamespace(gather_values=lambda x: x), names),
        external_logprobs=False,
        step=3,
        model=SimpleNamespace(model=network),
        texts=lambda batch: [str(ids) for ids in batch.completions()],
    )


@pytest.fixture
def batch():
    """Two groups of two completions, the last of which has no reward."""
    examples = [
        Example([1], [[2, 3], [4]], row={"prompt": "a"}),
        Example([5], [[6], [7, 8]], row={"prompt": "b"}),
    ]
    found = collate(examples)
    found.columns["rewards"] = torch.tensor([1.0, 0.0, 2.0, NAN])
    return found


def plugin(hook: str, give, *, wrapper: bool = False):
    """Return a plugin whose hook gives what `give(arguments)` returns."""
    arguments = {
        "alignzoo_sample": "run, rows",
        "alignzoo_complete": "run, rows, size",
        "alignzoo_reward": "batch",  # a plugin need not take all arguments
        "alignzoo_advantage": "batch",
        "alignzoo_loss": "run",
        "alignzoo_step": "metrics",
        "alignzoo_answer": "rows",
        "alignzoo_evaluate": "run",
    }[hook]
    lines = ["    given = yield", f"    return give(given, {arguments})"]
    code = "\n".join([f"def {hook}(self, {arguments}):", *(lines if wrapper else [])])
    code += "" if wrapper else f"\n    return give({arguments})"
    space = {"give": give}
    exec(compile(code, HERE, "exec"), space)
    method = hookimpl(wrapper=True)(space[hook]) if wrapper else hookimpl(space[hook])
    return type("Mine", (), {hook: method})()


def call(hook: str, *plugins, **arguments):
    named = {f"p{i}": each for i, each in enumerate(plugins)}
    has_loss = hook == "alignzoo_loss" and not isinstance(plugins[0], Algorithm)
    base = {} if has_loss or isinstance(plugins[0], Algorithm) else {"algo": Algorithm()}
    return getattr(hooks.make_manager(base | named).hook, hook)(**arguments)


def refused(says: str, hook: str, *plugins, **arguments):
    """Call a hook, whose last plugin's fault must be one message that has `says`."""
    with pytest.raises(RunFailed) as failure:
        call(hook, *plugins, **arguments)
    message = failure.value.message
    assert says in message, message
    assert f"plugin 'p{len(plugins) - 1}': {hook} " in message, message
    assert f"{HERE}, line " in message, message
    assert len(message.splitlines()) <= 2


LOSSES = {
    "a tensor of shape [] and type torch.float32 instead of a Loss": torch.tensor(1.0),
    "returned nothing": None,
    "whose sum is a tensor of shape [2]": Loss(torch.ones(2, requires_grad=True), 2),
    "whose sum has no gradient": Loss(torch.tensor(1.0), torch.tensor(2)),
    "not finite at step 4 (its sum is nan)": Loss(
        torch.tensor(NAN, requires_grad=True), torch.tensor(2)
    ),
    "whose count is -1": Loss(torch.tensor(1.0, requires_grad=True), -1),
    "whose metric 'x' is not a sum and a count": good_loss(x=torch.tensor(1.0)),
}


@pytest.mark.parametrize("says", LOSSES)
@pytest.mark.parametrize("wrapper", [False, True])
def test_a_wrong_loss(run, batch, says, wrapper):
    mine = plugin("alignzoo_loss", lambda *given: LOSSES[says], wrapper=wrapper)
    plugins = [Algorithm(), mine] if wrapper else [mine]
    refused(says, "alignzoo_loss", *plugins, run=run, batch=batch)


def test_an_evaluation_has_no_gradient_and_may_overflow(run, batch):
    mine = plugin("alignzoo_loss", lambda run: Loss(torch.tensor(INF), 2))
    with torch.no_grad():
        assert call("alignzoo_loss", mine, run=run, batch=batch).mean == INF


REWARDS = {
    "returned a value of type list instead of a tensor": [1.0] * 4,
    "returned nothing": None,
    "shape [3] for 4 completions": torch.zeros(3),
    "shape [4, 1] for 4 completions": torch.zeros(4, 1),
    "complex64": torch.zeros(4, dtype=torch.complex64),
    "gave inf, which is not finite": torch.tensor([0.0, NAN, INF, 0.0]),
    "gave 1e+38, which is too large": torch.tensor([0.0, 0.0, 1e38, 0.0]),
}


@pytest.mark.parametrize("says", REWARDS)
@pytest.mark.parametrize("wrapper", [False, True])
def test_a_wrong_reward(run, batch, says, wrapper):
    if says == "returned nothing" and wrapper:
        says, value = "returned nothing instead of the list", None
    else:
        value = [REWARDS[says]] if wrapper else REWARDS[says]
    inner = plugin("alignzoo_reward", lambda batch: torch.zeros(4))
    mine = plugin("alignzoo_reward", lambda *given: value, wrapper=wrapper)
    plugins = [inner, mine] if wrapper else [mine]
    refused(says, "alignzoo_reward", *plugins, run=run, batch=batch)


def test_nan_and_whole_numbers_are_rewards(run, batch):
    for scores in (torch.tensor([NAN, 1.0, 2.0, NAN]), torch.tensor([0, 1, 2, 3])):
        mine = plugin("alignzoo_reward", lambda batch, scores=scores: scores)
        (found,) = call("alignzoo_reward", mine, run=run, batch=batch)
        assert found is scores


def test_a_wrong_reward_shows_its_row_and_completion(run, batch):
    scores = torch.tensor([0.0, 0.0, INF, 0.0])
    mine = plugin("alignzoo_reward", lambda batch: scores)
    with pytest.raises(RunFailed, match=r"the row with prompt='b'; the completion was '\[6\]'"):
        call("alignzoo_reward", mine, run=run, batch=batch)


ADVANTAGES = {
    "instead of a tensor of advantages": 1.0,
    "returned nothing": None,
    "returned a tensor of shape [2, 2]": torch.zeros(2, 2),
    "an advantage that is not finite for a completion with reward 0": torch.tensor(
        [0.0, NAN, 0, 0]
    ),
    "an advantage that is not finite for a completion with reward 2": torch.tensor(
        [[0.0, 0], [0, 0], [-INF, 0], [0, 0]]
    ),
}


@pytest.mark.parametrize("says", ADVANTAGES)
@pytest.mark.parametrize("wrapper", [False, True])
def test_wrong_advantages(run, batch, says, wrapper):
    inner = plugin("alignzoo_advantage", lambda batch: torch.zeros(4))
    mine = plugin("alignzoo_advantage", lambda *given: ADVANTAGES[says], wrapper=wrapper)
    plugins = [inner, mine] if wrapper else [mine]
    refused(says, "alignzoo_advantage", *plugins, run=run, batch=batch)


def test_a_completion_without_a_reward_may_have_any_advantage(run, batch):
    mine = plugin("alignzoo_advantage", lambda batch: torch.tensor([0.0, 0, 0, NAN]))
    assert call("alignzoo_advantage", mine, run=run, batch=batch).shape == (4,)


def drawn(tokens=(1, 2), logprobs=(-1.0, 0.0), **more):
    return Completion(list(tokens), list(logprobs), ended=True, **more)


COMPLETIONS = {
    "returned nothing": None,
    "completions of 1 rows, not of 2": [[drawn(), drawn()]],
    "returned 1 completions of a prompt, not 2": [[drawn(), drawn()], [drawn()]],
    "a value of type str instead of Completions": [["a", "b"], ["c", "d"]],
    "returned 0 log-probs for 2 tokens": [[drawn(), drawn(logprobs=())]] * 2,
    "returned 1 log-probs for 2 tokens": [[drawn(), drawn(logprobs=[-1.0])]] * 2,
    "returned nan as the log-prob": [[drawn(), drawn(logprobs=[-1.0, NAN])]] * 2,
    "returned 0.5 as the log-prob": [[drawn(), drawn(logprobs=[-1.0, 0.5])]] * 2,
    "returned -inf as the log-prob": [[drawn(), drawn(logprobs=[-INF, -1.0])]] * 2,
    "returned None as the log-prob": [[drawn(), drawn(logprobs=[None, -1.0])]] * 2,
    "the token id 10, and the model's vocabulary has 0 to 9": [[drawn(), drawn([1, 10])]] * 2,
    "the token id -1": [[drawn(), drawn([-1, 2])]] * 2,
    "not all ids of type int": [[drawn(), drawn([1.0, 2.0])]] * 2,
    "a mask of 1 for 2 tokens": [[drawn(), drawn(mask=[True])]] * 2,
}


@pytest.mark.parametrize("says", COMPLETIONS)
@pytest.mark.parametrize("wrapper", [False, True])
def test_wrong_completions(run, says, wrapper):
    inner = plugin("alignzoo_complete", lambda *given: [[drawn()] * 2] * 2)
    mine = plugin("alignzoo_complete", lambda *given: COMPLETIONS[says], wrapper=wrapper)
    plugins = [inner, mine] if wrapper else [mine]
    refused(says, "alignzoo_complete", *plugins, run=run, rows=ROWS, size=2, stream="sample")


def test_what_an_external_sampler_does_not_know_is_nan(run):
    run.external_logprobs = True
    mine = plugin("alignzoo_complete", lambda *given: [[drawn(logprobs=[NAN, -1.0])]] * 2)
    call("alignzoo_complete", mine, run=run, rows=ROWS, size=1, stream="sample")


def test_what_the_policy_did_not_write_has_no_log_prob(run):
    one = drawn(logprobs=[NAN, -1.0], mask=[False, True])
    mine = plugin("alignzoo_complete", lambda *given: [[one]] * 2)
    call("alignzoo_complete", mine, run=run, rows=ROWS, size=1, stream="sample")


def test_a_sampler_may_leave_rows_to_the_next(run):
    first = plugin("alignzoo_complete", lambda *given: [[drawn()]] * 2)
    passes = plugin("alignzoo_complete", lambda *given: None)
    found = call("alignzoo_complete", first, passes, run=run, rows=ROWS, size=1, stream="s")
    assert len(found) == 2


def test_wrong_answers(run):
    short = plugin("alignzoo_answer", lambda rows: [drawn()])
    refused("returned 1 completions for 2 rows", "alignzoo_answer", short, run=run, rows=ROWS)
    odd = plugin("alignzoo_answer", lambda rows: [drawn(), drawn(logprobs=[-1.0, 3.0])])
    refused("returned 3.0 as the log-prob", "alignzoo_answer", odd, run=run, rows=ROWS)
    silent = plugin("alignzoo_answer", lambda rows: None)
    assert call("alignzoo_answer", silent, run=run, rows=ROWS) is None


def test_wrong_batches(run, batch):
    wrong = {
        "a value of type list instead of a Batch": ROWS,
        "returned nothing": None,
        "whose lengths is [3], not [4]": batch.__class__(
            **{**vars(batch), "lengths": torch.ones(3)}
        ),
        "the token id 99": batch.__class__(**{**vars(batch), "tokens": 99 + 0 * batch.tokens}),
    }
    for says, value in wrong.items():
        mine = plugin("alignzoo_sample", lambda *given, value=value: value)
        refused(says, "alignzoo_sample", mine, run=run, rows=ROWS)
    mine = plugin("alignzoo_sample", lambda *given: batch.select([]))
    assert len(call("alignzoo_sample", mine, run=run, rows=ROWS)) == 0


@pytest.mark.parametrize("wrapper", [False, True])
def test_wrong_metrics_of_a_step(run, wrapper):
    wrong = {
        "put a tensor of shape [] and type torch.float32 into metrics['x']": {"x": torch.ones(())},
        "put a value of type str into metrics['x']": {"x": "1"},
        "gave the metric 'flops', which is the core's own": {"flops": 1.0},
        "gave the metric 'step', which is the core's own": {"step": 1.0},
        "changed the metric 'loss', which the core gives": {"loss": 1.0},
        "changed the metric 'grad_norm'": {"grad_norm": NAN},
        "gave the metric 'alarms/kl'": {"alarms/kl": 1.0},
        "gave the metric 'rewards/task/mean'": {"rewards/task/mean": 1.0},
    }
    for says, values in wrong.items():
        metrics = {"loss": 2.0, "grad_norm": 1.0}

        def add(*given, values=values):
            given[-1].update(values)

        mine = plugin("alignzoo_step", add, wrapper=wrapper)
        refused(says, "alignzoo_step", mine, run=run, step=1, metrics=metrics)


def test_what_a_step_returns_is_not_lost_unseen(run):
    mine = plugin("alignzoo_step", lambda metrics: {"x": 1.0})
    refused("which nobody reads", "alignzoo_step", mine, run=run, step=1, metrics={})


def test_a_plugin_does_not_change_the_metric_of_another(run):
    first = plugin("alignzoo_step", lambda metrics: metrics.update(x=1.0))
    second = plugin("alignzoo_step", lambda given, metrics: metrics.update(x=2.0), wrapper=True)
    says = "changed the metric 'x', which plugin 'p0': alignzoo_step gives"
    refused(says, "alignzoo_step", first, second, run=run, step=1, metrics={"loss": NAN})


def test_the_names_of_a_loss(run, batch):
    for name in ("loss", "step", "learning_rate", "reward", f"{DIFFERENCE}/mean"):
        mine = plugin("alignzoo_loss", lambda run, name=name: good_loss(**{name: number(1.0)}))
        says = f"gave the metric {name!r}, which is the core's own"
        refused(says, "alignzoo_loss", mine, run=run, batch=batch)


def test_a_wrapper_adds_to_the_metrics_of_a_loss_and_changes_none(run, batch):
    inner = plugin("alignzoo_loss", lambda run: good_loss(a=number(1.0)))

    def add(loss, run):
        loss.metrics["b"] = number(2.0)
        return loss

    both = call(
        "alignzoo_loss", inner, plugin("alignzoo_loss", add, wrapper=True), run=run, batch=batch
    )
    assert both.metrics.keys() == {"a", "b"}

    def change(loss, run):
        loss.metrics["a"] = number(3.0)
        return loss

    mine = plugin("alignzoo_loss", change, wrapper=True)
    says = "changed the metric 'a', which plugin 'p0': alignzoo_loss gives"
    refused(says, "alignzoo_loss", inner, mine, run=run, batch=batch)


def test_a_metric_is_logged_for_the_round_or_by_the_loss(run, batch):
    run.round_metrics.add({"completions/mean_length": 3.0}, THE_CORE)
    mine = plugin(
        "alignzoo_loss", lambda run: good_loss(**{"completions/mean_length": number(1.0)})
    )
    refused("which the core gives", "alignzoo_loss", mine, run=run, batch=batch)


@pytest.mark.parametrize("name", ["reward", "loss", "sampling/x", "completions/max_length"])
def test_what_a_plugin_logs_for_a_round_has_a_name_of_its_own(run, batch, name):
    run.round_metrics.add({"completions/max_length": 3.0}, THE_CORE)

    def log(*given):
        run.round_metrics.add_means({name: torch.ones(2)})
        return batch

    mine = plugin("alignzoo_sample", log)
    refused(f"gave the metric {name!r}, which", "alignzoo_sample", mine, run=run, rows=ROWS)


def test_a_name_that_the_core_gives_later_is_still_its_own(run, batch):
    mine = plugin("alignzoo_sample", lambda run, rows: run.round_metrics.add({"own": 1.0}) or batch)
    call("alignzoo_sample", mine, run=run, rows=ROWS)
    with pytest.raises(RunFailed, match="'p0': alignzoo_sample gave the metric 'own', which the c"):
        run.round_metrics.add({"own": 2.0}, THE_CORE)


ESTIMATES = {
    "a value of type list instead of a dict": [1.0],
    "returned a tensor of shape [2] and type torch.float32 as 'x'": {"x": torch.ones(2)},
    "returned a value of type list as 'x'": {"x": []},
    "gave the estimate 'score', which is the core's own": {"score": 1.0},
    "gave the estimate 'kl', which is the core's own": {"kl": 1.0},
    "gave the estimate 'held-out/loss', which is the core's own": {"held-out/loss": 1.0},
    "gave the estimate 'ended'": {"ended": [1.0, 1.0]},
    "gave the estimate 'length'": {"length": 1.0},
    "gave the estimate 'answer/flops'": {"answer/flops": 1.0},
}


@pytest.mark.parametrize("says", ESTIMATES)
@pytest.mark.parametrize("wrapper", [False, True])
def test_wrong_estimates(run, says, wrapper):
    value = [ESTIMATES[says]] if wrapper else ESTIMATES[says]
    mine = plugin("alignzoo_evaluate", lambda *given: value, wrapper=wrapper)
    refused(says, "alignzoo_evaluate", mine, run=run, model=None)


def test_two_plugins_do_not_give_one_estimate(run):
    first, second = (plugin("alignzoo_evaluate", lambda run: {"x": [1.0, NAN]}) for _ in range(2))
    with pytest.raises(RunFailed, match="the estimate 'x', which plugin 'p1': alignzoo_evaluate g"):
        call("alignzoo_evaluate", first, second, run=run, model=None)


def test_the_held_out_value_of_a_metric_is_that_of_its_giver(run, batch):
    class Reward:
        @hookimpl
        def alignzoo_loss(self):
            return good_loss(**{"rewards/accuracies": number(1.0)})

        @hookimpl
        def alignzoo_evaluate(self):
            return {"held-out/rewards/accuracies": [1.0, 0.0, 1.0]}

    pm = hooks.make_manager({"reward": Reward()})
    pm.hook.alignzoo_loss(run=run, batch=batch)
    assert pm.hook.alignzoo_evaluate(run=run, model=None)
    mine = plugin("alignzoo_evaluate", lambda run: {"held-out/rewards/accuracies": 1.0})
    says = "changed the metric 'rewards/accuracies', which plugin 'reward'"
    run.names.estimates.givers.clear()
    refused(says, "alignzoo_evaluate", mine, run=run, model=None)


def test_who_answers_knows_the_kl(run):
    class Answers:
        @hookimpl
        def alignzoo_answer(self): ...

        @hookimpl
        def alignzoo_evaluate(self):
            return {"kl": 1.0}

    pm = hooks.make_manager({"algo": Algorithm(), "answers": Answers()})
    assert pm.hook.alignzoo_evaluate(run=run, model=None) == [{"kl": 1.0}]


def test_the_core_reserves_what_it_logs(run):
    values = torch.ones(2, 2)
    columns = {"rewards": values, "reward/a": values * NAN, "lengths": values, "ended": values}
    shared = {"completions/mean_length", "completions/clipped_ratio"}  # spin gives them itself
    logged = summarise_completions({**columns, "reward/a": torch.tensor([[1.0, NAN]])}).keys()
    mine = {f"{DIFFERENCE}/mean", f"{RATIO}/max", "step", "flops", "alarms/kl", *logged} - shared
    mine = {name for name in mine if not name.startswith("completions/")}
    assert {"reward", "reward_std", "rewards/a/missing"} < mine
    assert [name for name in mine if not run.names.metrics.reserved.fullmatch(name)] == []


# Exceptions.


def test_an_exception_names_the_line_of_the_plugin(run, batch, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from alignzoo import hookimpl\n\n\nclass Mine:\n    @hookimpl\n"
        "    def alignzoo_reward(self, batch):\n        return self.help(batch)\n\n"
        "    def help(self, batch):\n        return batch['no such column']\n"
    )
    from alignzoo.discovery import load_plugin_file

    pm = hooks.make_manager({"algo": Algorithm(), "mine.py": load_plugin_file(path)()})
    with pytest.raises(RunFailed) as failure:
        pm.hook.alignzoo_reward(run=run, batch=batch)
    assert failure.value.message == (
        f"{path}, line 10: plugin 'mine.py': alignzoo_reward failed: KeyError: 'no such column'"
    )
    assert isinstance(failure.value.__cause__, KeyError)


@pytest.mark.parametrize("wrapper", [False, True])
def test_any_exception_but_a_message_and_an_interruption_is_the_plugins(run, wrapper):
    def raising(error):
        def give(*given):
            raise error

        return plugin("alignzoo_evaluate", give, wrapper=wrapper)

    for error, says in [
        (ValueError("odd"), "failed: ValueError: odd"),
        (StopIteration(), "failed: "),
        (SystemExit(0), "tried to end the program: SystemExit(0)"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file"), "/a/file: No space left"),
    ]:
        refused(says, "alignzoo_evaluate", raising(error), run=run, model=None)
    for passing in (BadInput("wrong"), RunFailed("bad luck"), KeyboardInterrupt()):
        with pytest.raises(type(passing)) as failure:
            call("alignzoo_evaluate", raising(passing), run=run, model=None)
        assert failure.value is passing


def test_the_fault_of_a_plugin_is_not_its_wrappers(run):
    def fail(run):
        raise ValueError("odd")

    inner = plugin("alignzoo_evaluate", fail)
    outer = plugin("alignzoo_evaluate", lambda given, run: given, wrapper=True)
    with pytest.raises(RunFailed, match="plugin 'p0': alignzoo_evaluate failed"):
        call("alignzoo_evaluate", inner, outer, run=run, model=None)


def test_a_wrapper_yields_once(run):
    class Never:
        @hookimpl(wrapper=True)
        def alignzoo_evaluate(self, run):
            if run is None:
                yield
            return []

    class Twice:
        @hookimpl(wrapper=True)
        def alignzoo_evaluate(self, run):
            yield
            yield

    for mine in (Never(), Twice()):
        refused("a wrapper yields exactly once", "alignzoo_evaluate", mine, run=run, model=None)
