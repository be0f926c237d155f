"""Check what a plugin gives to a hook, right after the plugin that gave it.

A wrong result fails where it was made, with the names of plugin, hook, file and line, and not some
steps later as a loss that is not finite. `guard` wraps each implementation of a hook once, when its
plugin is registered; what an add-on's wrapper returns is checked like what it was given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from pluggy import HookCaller, HookImpl
from torch import Tensor
from torch.optim import Optimizer

from alignzoo.batch import Batch
from alignzoo.discovery import hook_methods
from alignzoo.faults import Blame, PluginMethod
from alignzoo.loss import Loss
from alignzoo.rewards.score import check_scores
from alignzoo.rollout import Completion

LIKELIEST = 1e-3  # nats, the most that rounding leaves of a log-prob of 0
INTACT = "the last checkpoint is intact"


@dataclass
class Call:
    """A call of one plugin's hook.

    Args:
        place: the plugin and its hook.
        plugin: the object.
        arguments: those of the hook, by name, also if the plugin does not take them.
        before: the numbers by name that were there before the call.
    """

    place: PluginMethod
    plugin: Any
    arguments: Mapping[str, Any]
    before: dict[str, Any]

    @property
    def run(self) -> Any:
        """Return the run that the hook is given."""
        return self.arguments["run"]

    def fail(self, problem: str, hint: str | None = None) -> Exception:
        """Return the error for a wrong result."""
        return self.place.fail(problem, hint)

    def require(self, result: Any, kind: type | tuple[type, ...], what: str) -> None:
        """Raise `RunFailed` unless the result is of a type, which the message calls `what`."""
        if not isinstance(result, kind):
            raise self.fail(f"returned {describe_result(result)} instead of {what}")


def describe_result(value: Any) -> str:
    """Return what a value is, for a message: its type, and of a tensor also its shape."""
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)} and type {value.dtype}"
    return f"a value of type {type(value).__name__}"


def is_number(value: Any) -> bool:
    """Return True for a plain number, NaN and infinity included: no tensor, no text."""
    return isinstance(value, int | float)


# A check for each hook. Of a hook whose results are all used, it gets one plugin's result.


def check_nothing(call: Call, result: Any) -> None:
    """Refuse any result: the core would not look at it."""
    if result is not None:
        raise call.fail(f"returned {describe_result(result)}, which nobody reads")


def check_sampled(call: Call, result: Any) -> None:
    """Check the batch of a round: its type, its shapes and its token ids."""
    call.require(result, Batch, "a Batch")
    groups, rows = len(result), result.tokens.shape[0]
    shapes = {
        "prompt_lengths": (groups,),
        "lengths": (rows,),
        "mask": tuple(result.tokens.shape),
        "group": (rows,),
    }
    for name, shape in shapes.items():
        found = tuple(getattr(result, name).shape)
        if found != shape:
            raise call.fail(f"returned a batch whose {name} is {list(found)}, not {list(shape)}")
    if result.rows and len(result.rows) != groups:
        raise call.fail(f"returned a batch of {groups} groups with {len(result.rows)} rows")
    if rows:
        lowest, highest = result.tokens.aminmax()
        check_token_ids(call, int(lowest), int(highest))


def check_token_ids(call: Call, lowest: int, highest: int) -> None:
    """Refuse token ids that the model has no embedding of."""
    size = call.run.model.model.config.get_text_config().vocab_size
    if lowest < 0 or highest >= size:
        wrong = lowest if lowest < 0 else highest
        raise call.fail(
            f"returned the token id {wrong}, and the model's vocabulary has 0 to {size - 1}"
        )


def check_completions(call: Call, result: Any) -> None:
    """Check what a sampler drew: a list of `size` completions for each row."""
    rows, size = call.arguments["rows"], call.arguments["size"]
    call.require(result, Sequence, "a list of completions per row")
    if len(result) != len(rows):
        raise call.fail(f"returned completions of {len(result)} rows, not of {len(rows)}")
    for group in result:
        call.require(group, Sequence, "a list of completions per row")
        if len(group) != size:
            raise call.fail(f"returned {len(group)} completions of a prompt, not {size}")
    check_each_completion(call, [completion for group in result for completion in group])


def check_answers(call: Call, result: Any) -> None:
    """Check the answers to held-out prompts: one completion per row."""
    rows = call.arguments["rows"]
    call.require(result, Sequence, "a list with one completion per row")
    if len(result) != len(rows):
        raise call.fail(f"returned {len(result)} completions for {len(rows)} rows")
    check_each_completion(call, result)


def check_each_completion(call: Call, completions: Sequence[Any]) -> None:
    """Check the token ids and the log-probs of completions."""
    unknown_allowed = call.run.external_logprobs
    lowest, highest = 0, 0
    for completion in completions:
        call.require(completion, Completion, "Completions")
        tokens, logprobs = completion.tokens, completion.logprobs
        if not all(type(token) is int for token in tokens):
            raise call.fail("returned a completion whose tokens are not all ids of type int")
        if len(logprobs) != len(tokens):
            raise call.fail(
                f"returned {len(logprobs)} log-probs for {len(tokens)} tokens of a completion",
                hint="a completion has the log-prob of each of its tokens, in nats",
            )
        if completion.mask is not None and len(completion.mask) != len(tokens):
            raise call.fail(
                f"returned a mask of {len(completion.mask)} for {len(tokens)} tokens",
                hint="it has one bool per token, False for one that the policy did not write",
            )
        for logprob in compress(logprobs, completion.written):
            known = is_number(logprob) and -math.inf < logprob <= LIKELIEST
            if not known and not (unknown_allowed and logprob != logprob):
                raise call.fail(
                    f"returned {logprob!r} as the log-prob of a token",
                    hint="it is a finite number of at most 0; a sampler with external_logprobs = "
                    "True may give NaN for one that it does not know",
                )
        if tokens:
            lowest, highest = min(lowest, *tokens), max(highest, *tokens)
    check_token_ids(call, lowest, highest)


def check_reward(call: Call, result: Any) -> None:
    """Check the scores of one reward: `[N]`, each a number to compute with or NaN."""
    call.require(result, Tensor, "a tensor with a score for each completion")
    if result.is_complex():
        raise call.fail(f"returned {describe_result(result)}", hint="scores are real numbers")
    check_scores(call.place, result, call.run, call.arguments["batch"])


def check_advantages(call: Call, result: Any) -> None:
    """Check advantages: `[N]` or `[N, T]`, finite for all completions that have a reward."""
    batch = call.arguments["batch"]
    call.require(result, Tensor, "a tensor of advantages")
    if result.shape not in (batch.tokens.shape, batch.tokens.shape[:1]) or result.is_complex():
        raise call.fail(
            f"returned {describe_result(result)} for {batch.tokens.shape[0]} completions",
            hint=f"advantages are {list(batch.tokens.shape[:1])}, or per token "
            f"{list(batch.tokens.shape)}",
        )
    finite = result.isfinite().reshape(len(result), -1).all(1).tolist()
    for is_finite, reward in zip(finite, batch["rewards"].tolist(), strict=True):
        if not is_finite and not math.isnan(reward):
            raise call.fail(
                f"returned an advantage that is not finite for a completion with reward {reward:g}",
                hint="does it divide by a standard deviation or a number that may be 0?",
            )


def check_loss(call: Call, result: Any) -> None:
    """Check a loss: a finite sum with a gradient, a count, and metrics of the plugin's own.

    In evaluations there is no gradient, and what is not finite is left out and said.
    """
    if not isinstance(result, Loss):
        raise call.fail(
            f"returned {describe_result(result)} instead of a Loss",
            hint="return Loss.per_sequence(values) or Loss.per_token(values, mask): a sum and a "
            "count, not a mean",
        )
    if not isinstance(result.sum, Tensor) or result.sum.dim():
        raise call.fail(
            f"returned a Loss whose sum is {describe_result(result.sum)}, not a scalar tensor"
        )
    if not is_scalar(result.count) or not 0 <= float(result.count) < math.inf:
        raise call.fail(f"returned a Loss whose count is {result.count!r}, not a number from 0")
    for name, value in result.metrics.items():
        check_loss_metric(call, name, value)
    if not torch.is_grad_enabled():
        return
    if not result.sum.requires_grad:
        raise call.fail(
            "returned a Loss whose sum has no gradient",
            hint="it is made of run.policy(batch), run.scores(batch) or run.values(batch), without "
            "detach() or no_grad",
        )
    if not math.isfinite(total := result.sum.item()):
        raise call.fail(
            f"returned a Loss that is not finite at step {call.arguments['run'].step + 1} "
            f"(its sum is {total})",
            hint=f"a logarithm, a division or an overflow, or a --learning-rate too high; {INTACT}",
        )


def check_loss_metric(call: Call, name: Any, value: Any) -> None:
    """Check a metric of a loss, and that no one else gives one of this name."""
    if name in call.before:
        if call.before[name] is not value:
            call.run.names.metrics.refuse_change(name, call.place)
        return
    pair = isinstance(value, tuple) and len(value) == 2 and all(map(is_scalar, value))
    if not isinstance(name, str) or not pair:
        raise call.fail(
            f"returned a Loss whose metric {name!r} is not a sum and a count, both scalars",
            hint="Loss.per_sequence and Loss.per_token make them of tensors",
        )
    call.run.names.metrics.claim(name, call.place)


def is_scalar(value: Any) -> bool:
    """Return True for a number, plain or as a tensor without dimensions."""
    return is_number(value) or (isinstance(value, Tensor) and value.dim() == 0)


def check_step_metrics(call: Call, result: Any = None) -> None:
    """Check that a plugin has only added metrics of its own to those of a step, all numbers."""
    metrics = call.arguments["metrics"]
    for name, value in call.before.items():
        if metrics.get(name) is not value:
            call.run.names.metrics.refuse_change(name, call.place)
    for name in metrics.keys() - call.before.keys():
        if not isinstance(name, str) or not is_number(metrics[name]):
            raise call.fail(
                f"put {describe_result(metrics[name])} into metrics[{name!r}]",
                hint="a metric is a number: float(x)",
            )
        call.run.names.metrics.claim(name, call.place)
    check_nothing(call, result)


def check_estimates(call: Call, result: Any) -> None:
    """Check the scores that a plugin returns of an evaluation, by name."""
    call.require(result, Mapping, "a dict of scores by name")
    for name, value in result.items():
        if name in call.before:
            if call.before[name] is not value:
                call.run.names.estimates.refuse_change(name, call.place)
            continue
        values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not isinstance(name, str) or not values or not all(map(is_number, values)):
            raise call.fail(
                f"returned {describe_result(value)} as {name!r}",
                hint="a score is a number, or a list with one number per item: x.tolist()",
            )
        # Only the plugin that answers the prompts can know the KL of its answers.
        if name != "kl" or "alignzoo_answer" not in hook_methods(call.plugin):
            call.run.names.estimates.claim(name, call.place)
        loss = call.run.names.metrics.givers.get(name.removeprefix("held-out/"))
        if name.startswith("held-out/") and loss is not None and loss.owner != call.place.owner:
            call.run.names.metrics.refuse_change(name.removeprefix("held-out/"), call.place)


def check_optimizer(call: Call, result: Any) -> None:
    """Check that an optimizer has each trained parameter of the model once, and no other."""
    call.require(result, Optimizer, "a torch.optim.Optimizer")
    names = {parameter: name for name, parameter in call.arguments["parameters"]}
    groups = result.param_groups
    left = names.keys() - {parameter for group in groups for parameter in group["params"]}
    if left:
        first = min(names[parameter] for parameter in left)
        raise call.fail(
            f"returned an optimizer without {len(left)} of {len(names)} parameters, as {first}",
            hint="a group that is not to learn has an lr_scale of 0",
        )
    if any(parameter not in names for group in groups for parameter in group["params"]):
        raise call.fail(
            "returned an optimizer of a parameter that is not one of the model's",
            hint="no checkpoint has it: train it by an optimizer of the plugin's own, and keep "
            "both in run.state_of(self)",
        )
    for scale in (group.get("lr_scale", 1.0) for group in groups):
        if not is_number(scale) or not 0 <= scale < math.inf:
            raise call.fail(f"returned an optimizer with an lr_scale of {scale!r}")


def check_learning_rate(call: Call, result: Any) -> None:
    """Check a learning rate."""
    if not is_number(result) or not 0 <= result < math.inf:
        raise call.fail(f"returned {result!r} as a learning rate, not a number of at least 0")


def check_rows(call: Call, result: Any) -> None:
    """Check the rows of a round: their number, and that the training data has them."""
    call.require(result, list, "a list of places in run.data.train")
    wanted, rows = call.run.schedule.rows_per_round, len(call.run.data.train)
    if len(result) != wanted:
        raise call.fail(f"returned {len(result)} rows, and a round has {wanted}")
    wrong = [row for row in result if type(row) is not int or not 0 <= row < rows]
    if wrong:
        raise call.fail(f"returned the row {wrong[0]!r}, and run.data.train has 0 to {rows - 1}")


RESULT_CHECKS: dict[str, Callable[[Call, Any], None]] = {
    "alignzoo_optimizer": check_optimizer,
    "alignzoo_learning_rate": check_learning_rate,
    "alignzoo_order": check_rows,
    "alignzoo_sample": check_sampled,
    "alignzoo_complete": check_completions,
    "alignzoo_reward": check_reward,
    "alignzoo_advantage": check_advantages,
    "alignzoo_loss": check_loss,
    "alignzoo_step": check_step_metrics,
    "alignzoo_answer": check_answers,
    "alignzoo_evaluate": check_estimates,
}
# Hooks whose first result counts, and without which a run cannot go on.
REQUIRED = {"alignzoo_sample", "alignzoo_complete", "alignzoo_advantage", "alignzoo_loss"}


# The calls.


def numbers_before(hook: str, arguments: Mapping[str, Any], given: Any) -> dict[str, Any]:
    """Return the numbers by name that are there before a plugin is called.

    `given` is what a wrapper is given: the result, or the results, of the other plugins.
    """
    if hook == "alignzoo_step":
        return dict(arguments["metrics"])
    if hook == "alignzoo_loss" and given is not None:
        return dict(given.metrics)
    if hook == "alignzoo_evaluate":
        return {name: value for scores in given or [] for name, value in scores.items()}
    return {}


def guard(impl: HookImpl, hook: HookCaller) -> None:
    """Replace an implementation of a hook by one that checks its result and names its faults."""
    assert hook.spec is not None
    function: Callable[..., Any] = impl.function
    place = PluginMethod.of(f"plugin {impl.plugin_name!r}", impl.plugin, function)
    names = hook.spec.argnames
    own = [names.index(name) for name in impl.argnames]
    first_only = bool(hook.spec.opts.get("firstresult"))

    def must_give() -> bool:
        others = [each for each in hook.get_hookimpls() if not each.wrapper]
        is_last = others[0].plugin is impl.plugin  # pluggy calls the first one last
        return hook.name == "alignzoo_reward" or (hook.name in REQUIRED and is_last)

    def begin(values: Sequence[Any], given: Any = None) -> Call:
        arguments = dict(zip(names, values, strict=True))
        return Call(place, impl.plugin, arguments, numbers_before(hook.name, arguments, given))

    def call_plain(*values: Any) -> Any:
        call = begin(values)
        with Blame(place):
            result = function(*[values[index] for index in own])
        if result is None and must_give():
            raise call.fail("returned nothing", hint="is a `return` missing?")
        check_result(hook.name, call, result)
        return result

    def call_wrapper(*values: Any) -> Generator[None, Any, Any]:
        call = begin(values)
        with Blame(place):
            generator = function(*[values[index] for index in own])
            advance(generator.__next__, stops=False)
        if hook.name == "alignzoo_step":
            check_step_metrics(call)
        try:
            given = yield
        except BaseException as error:
            with Blame(place):
                result = advance(generator.throw, error)
            given = None
        else:
            call = begin(values, given)
            with Blame(place):
                result = advance(generator.send, given)
        check_wrapped(hook.name, call, given, result, first_only=first_only)
        return result

    guarded = call_wrapper if impl.wrapper else call_plain
    for name, value in {"function": guarded, "argnames": tuple(names)}.items():
        setattr(impl, name, value)  # pluggy declares them final


def advance(step: Callable[..., Any], *value: Any, stops: bool = True) -> Any:
    """Run a wrapper up to its `yield`, or from there to its end, and return its result then."""
    try:
        step(*value)
    except StopIteration as end:
        if stops:
            return end.value
    else:
        if not stops:
            return None
    raise RuntimeError("a wrapper yields exactly once")


def check_result(hook: str, call: Call, result: Any) -> None:
    """Check the result of a plugin that wraps no others."""
    if hook == "alignzoo_step":
        check_step_metrics(call, result)
    elif hook not in RESULT_CHECKS:
        check_nothing(call, result)
    elif result is not None:
        RESULT_CHECKS[hook](call, result)


def check_wrapped(hook: str, call: Call, given: Any, result: Any, *, first_only: bool) -> None:
    """Check the result of a wrapper: what its hook returns, or a list of all plugins' results."""
    if hook == "alignzoo_step":
        check_step_metrics(call)
    elif hook not in RESULT_CHECKS:
        return
    elif first_only:
        if result is None and hook in REQUIRED:
            raise call.fail("returned nothing", hint="a wrapper returns what it was given")
        if result is not None:
            RESULT_CHECKS[hook](call, result)
    else:
        call.require(result, list, "the list that it was given")
        if given is not None and hook == "alignzoo_reward" and len(result) != len(given):
            raise call.fail(f"returned {len(result)} of {len(given)} tensors of scores")
        for each in result:
            RESULT_CHECKS[hook](call, each)
