"""What plugins give to the hooks of training is checked: optimizer, learning rate, rows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from alignzoo import RunFailed, hooks
from alignzoo.discovery import hookimpl

LAYER, OTHER = nn.Linear(2, 2), nn.Linear(1, 1)
PARAMETERS = list(LAYER.named_parameters())
WEIGHT, BIAS = LAYER.weight, LAYER.bias


def sgd(*groups):
    return torch.optim.SGD([{"params": list(params), **more} for params, more in groups], lr=0.1)


class Gives:
    def __init__(self, value):
        self.value = value

    @hookimpl
    def alignzoo_optimizer(self):
        return self.value

    @hookimpl
    def alignzoo_learning_rate(self):
        return self.value

    @hookimpl
    def alignzoo_order(self):
        return self.value

    @hookimpl
    def alignzoo_gradient(self):
        return self.value

    @hookimpl
    def alignzoo_evaluated(self):
        return self.value


ARGUMENTS = {
    "alignzoo_optimizer": {"parameters": PARAMETERS},
    "alignzoo_learning_rate": {"step": 1},
    "alignzoo_order": {"index": 0},
    "alignzoo_gradient": {"parameters": PARAMETERS},
    "alignzoo_evaluated": {"phase": "before", "scores": {}},
}


def call(hook: str, value):
    run = SimpleNamespace(
        schedule=SimpleNamespace(rows_per_round=2), data=SimpleNamespace(train=[None] * 5)
    )
    manager = hooks.make_manager({"mine": Gives(value)}, loss=False)
    return getattr(manager.hook, hook)(run=run, **ARGUMENTS[hook])


@pytest.mark.parametrize(
    ("hook", "value", "says"),
    [
        ("optimizer", "sgd", "a value of type str instead of a torch.optim.Optimizer"),
        ("optimizer", sgd(([WEIGHT], {})), "without 1 of 2 parameters, as bias"),
        ("optimizer", sgd(([WEIGHT, BIAS, OTHER.bias], {})), "not one of the model's"),
        ("optimizer", sgd(([WEIGHT, BIAS], {"lr_scale": -1.0})), "an lr_scale of -1.0"),
        ("learning_rate", torch.tensor(0.1), "as a learning rate"),
        ("learning_rate", float("nan"), "returned nan as a learning rate"),
        ("learning_rate", -0.1, "returned -0.1 as a learning rate"),
        ("order", (1, 2), "instead of a list"),
        ("order", [1], "returned 1 rows, and a round has 2"),
        ("order", [1, 5], "the row 5, and run.data.train has 0 to 4"),
        ("order", [1, True], "the row True"),
        ("gradient", [1.0], "which nobody reads"),
        ("evaluated", True, "which nobody reads"),
    ],
)
def test_a_wrong_result_names_plugin_hook_and_line(hook, value, says):
    with pytest.raises(RunFailed) as failure:
        call(f"alignzoo_{hook}", value)
    message = failure.value.message
    assert says in message
    assert f"plugin 'mine': alignzoo_{hook} " in message and f"{__file__}, line " in message


def test_right_results_pass():
    groups = sgd(([WEIGHT], {"lr_scale": 0}), ([BIAS], {}))
    assert call("alignzoo_optimizer", groups) is groups
    assert call("alignzoo_learning_rate", 0) == 0
    assert call("alignzoo_order", [3, 3]) == [3, 3]
