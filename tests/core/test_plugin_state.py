"""What plugins carry from step to step: what it takes, and how it is saved and restored."""

from __future__ import annotations

import json
import math

import pytest
import torch

from alignzoo import BadInput
from alignzoo.run.state import PluginStates, Snapshot

CPU = torch.device("cpu")

VALUES = {
    "number": 0.1 + 0.2,
    "nan": math.nan,
    "counts": [1, True, None, "text:tensor:"],
    "ema": {"layer": {"weight": torch.tensor([1.5, -2.0]), "step": 3}},
    "ema/layer": {"weight": torch.ones(1, dtype=torch.bfloat16)},
    "rows": [torch.arange(3), torch.tensor(True)],
}


def through_json(saved: Snapshot) -> Snapshot:
    return Snapshot(json.loads(json.dumps(saved.values)), saved.tensors, saved.shared)


def assert_same(found, wanted):
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype and torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_same(one, other)
    else:
        assert type(found) is type(wanted)
        assert found == wanted or (math.isnan(found) and math.isnan(wanted))


def test_json_values_and_tensors_come_back_as_they_were():
    states = PluginStates()
    states.of("a").update(VALUES)
    states.of("a/ema")["layer"] = torch.zeros(2)
    states.of("nothing")
    again = PluginStates()
    again.restore(through_json(states.snapshot()), CPU)
    assert_same(dict(again.of("a")), VALUES)
    assert_same(dict(again.of("a/ema")), {"layer": torch.zeros(2)})
    assert "nothing" not in states.snapshot().values


def test_a_copy_is_not_reached_by_later_changes():
    states = PluginStates()
    state = states.of("a")
    state["ema"], state["list"] = torch.zeros(2), [1]
    before = states.snapshot().copied()
    state["ema"].add_(1)
    state["list"].append(2)
    state["new"] = 1
    states.restore(before, CPU)
    assert_same(dict(state), {"ema": torch.zeros(2), "list": [1]})  # the same object


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("pair", (1, 2), "'pair', a tuple,.*lists and dicts"),
        ("deep", {"a": [1, {2}]}, "'deep/a/1', a set,"),
        ("ids", {7: 1.0}, "the keys of a dict are texts"),
        ("ema", torch.ones(2, requires_grad=True), "'ema', a Tensor,.*detach"),
        ("odd", torch.ones(2).to_sparse(), "'odd', a Tensor,.*dense"),
        (3, 1.0, "the key 3 of its state is not a text"),
    ],
)
def test_what_cannot_be_saved_is_refused_with_the_names_of_plugin_and_key(key, value, said):
    states = PluginStates()
    with pytest.raises(BadInput, match=f"(?s)plugin 'mine': .*{said}"):
        states.of("mine")[key] = value
    assert not states.snapshot().values


def test_a_list_that_was_changed_later_is_checked_when_it_is_saved():
    states = PluginStates()
    states.of("mine")["rows"] = rows = [1]
    rows.append(object())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="plugin 'mine': 'rows/1', a object,"):
        states.snapshot()


class Part:
    """A part of a plugin, which is not registered itself."""


def test_an_object_that_is_not_registered_has_a_state_by_its_class():
    states, part = PluginStates(), Part()
    states.of_unregistered(part)["x"] = 1
    assert states.of_unregistered(part) == {"x": 1}
    assert list(states.snapshot().values) == [f"{__name__}.Part"]
    with pytest.raises(BadInput, match="two objects of"):
        states.of_unregistered(Part())
