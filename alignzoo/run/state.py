"""What plugins carry from step to step: JSON values and tensors, a namespace per plugin.

It is a part of every checkpoint. A value is checked when it is set, so that a mistake shows in the
line that makes it and not hours later, when the checkpoint is written.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignzoo.errors import BadInput
from alignzoo.policy.sharding import is_split

TENSOR = "tensor:"  # begins the text that stands for a tensor among JSON values
TEXT = "text:"  # begins a text of the plugin's own that would read as one of the two


class State(UserDict[str, Any]):
    """The state of one plugin: a dict of JSON values and tensors, also in lists and dicts.

    Setting anything else raises `BadInput` with the names of the plugin and the key.
    """

    def __init__(self, plugin: str):
        self.plugin = plugin
        super().__init__()

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise BadInput(
                f"plugin {self.plugin!r}: the key {key!r} of its state is not a text",
                hint="run.state_of(self) is saved as JSON, whose keys are texts",
            )
        self.check(key, value)
        super().__setitem__(key, value)

    def check(self, key: str, value: Any) -> None:
        """Raise `BadInput` if a value cannot be saved under this key."""
        try:
            flatten(value, key, {})
        except UnsavableValue as error:
            raise BadInput(
                f"plugin {self.plugin!r}: {error} cannot be saved in its state", hint=error.hint
            ) from None


class UnsavableValue(Exception):
    """A value that no checkpoint can hold: where it is, and in `hint` what to do about it."""

    def __init__(self, path: str, value: Any, hint: str):
        self.hint = hint
        super().__init__(f"{path!r}, a {type(value).__name__},")


def flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return a value as JSON, with its tensors moved to `tensors` under their path.

    Raise `UnsavableValue` for what is neither.
    """
    if isinstance(value, Tensor):
        if value.requires_grad:
            raise UnsavableValue(path, value, "it has a gradient: save x.detach()")
        if is_split(value):
            raise UnsavableValue(path, value, "--shard has split this weight: run without it")
        if value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise UnsavableValue(path, value, "save a dense tensor")
        while path in tensors:  # the key "a/b", and "b" in a dict under "a"
            path += "'"
        tensors[path] = value
        return f"{TENSOR}{value.device.type}:{path}"
    if isinstance(value, str):
        return TEXT + value if value.startswith((TENSOR, TEXT)) else value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list):
        return [flatten(each, f"{path}/{i}", tensors) for i, each in enumerate(value)]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise UnsavableValue(f"{path}/{key!r}", key, "the keys of a dict are texts")
        return {key: flatten(each, f"{path}/{key}", tensors) for key, each in value.items()}
    raise UnsavableValue(
        path, value, "save numbers, texts, True, False, None, tensors, and lists and dicts of them"
    )


def unflatten(value: Any, tensors: Mapping[str, Tensor], device: torch.device) -> Any:
    """Return the value that `flatten` made JSON of; a tensor that was not on the CPU is put on
    `device`."""
    if isinstance(value, list):
        return [unflatten(each, tensors, device) for each in value]
    if isinstance(value, dict):
        return {key: unflatten(each, tensors, device) for key, each in value.items()}
    if isinstance(value, str) and value.startswith(TENSOR):
        kind, _, path = value.removeprefix(TENSOR).partition(":")
        return tensors[path].to("cpu" if kind == "cpu" else device)
    return value.removeprefix(TEXT) if isinstance(value, str) else value


@dataclass
class Snapshot:
    """The state of all plugins as a checkpoint holds it.

    Args:
        values: by the name of the plugin, as JSON.
        tensors: by their path in the values.
        shared: the numbers of the former `run.state`.
    """

    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, float] = field(default_factory=dict)

    def copied(self) -> Snapshot:
        """Return a snapshot that changes of the plugins' tensors do not reach."""
        copies = {path: tensor.clone() for path, tensor in self.tensors.items()}
        return replace(self, tensors=copies)


class PluginStates:
    """The state of each plugin of a run by its name.

    `shared` is the former dict of numbers without namespaces, `run.state`. `source` is the
    checkpoint that the states were restored from, None in a new run.
    """

    def __init__(self) -> None:
        self.shared: dict[str, float] = {}
        self.source: Path | None = None
        self._states: dict[str, State] = {}
        self._owners: dict[str, Any] = {}  # unregistered objects, by the name that stands for them

    def of(self, name: str) -> State:
        """Return the state under a name."""
        return self._states.setdefault(name, State(name))

    def of_unregistered(self, plugin: Any) -> State:
        """Return the state of an object that is not registered in the run, by its class.

        Raise `BadInput` if another object of that class has asked for it: which one is which could
        not be told after a resumption.
        """
        name = f"{type(plugin).__module__}.{type(plugin).__qualname__}"
        if self._owners.setdefault(name, plugin) is not plugin:
            raise BadInput(
                f"two objects of {name} keep state, and their names would be the same",
                hint="keep it in the state of the plugins that have them: run.state_of(plugin)",
            )
        return self.of(name)

    def snapshot(self) -> Snapshot:
        """Return all states; raise `BadInput` for a value that cannot be saved.

        The tensors are the live ones, not copies.
        """
        found = Snapshot(shared=dict(self.shared))
        for name, state in self._states.items():
            for key, value in state.items():
                state.check(key, value)  # a list or dict in it may have changed
            if state:
                found.values[name] = flatten(dict(state), name, found.tensors)
        return found

    def restore(self, saved: Snapshot, device: torch.device) -> None:
        """Set all states to those of a snapshot, in place, because plugins hold them."""
        for state in self._states.values():
            state.clear()
        for name, values in saved.values.items():
            self.of(name).update(unflatten(values, saved.tensors, device))
        self.shared.clear()
        self.shared.update(saved.shared)
