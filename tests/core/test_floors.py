"""The house has floors: no import runs up, none in a circle, those for typing counted too."""

from __future__ import annotations

import pytest
from imports import CORE, FILES, PLUGINS, ROOT, imports, module_of, reachable, room_of

# From the ground to the roof. A room imports rooms of lower floors alone; docs/design.md draws it.
FLOORS: list[set[str]] = [
    {"errors", "deprecated", "batch", "loss", "ledger", "files", "signals", "ui",
     "changes", "faults", "fingerprints"},
    {"options", "reserved", "safe_yaml", "discovery", "record", "remote", "functional", "data",
     "policy"},
    {"hook_methods", "named"},
    {"algorithm", "recipe", "environments"},
    {"run"},
    {"rewards"},
    {"rollout"},
    {"memory", "results"},
    {"hooks", "evaluation"},
    {"training"},
    {"session"},
    {"cli", "testing"},
    {"__main__"},
]  # fmt: skip
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS, start=1) for room in rooms}
HOUSE = [path for path in CORE if path != ROOT / "alignzoo/__init__.py"]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", HOUSE, ids=name_of)
def test_no_import_runs_up(path):
    own = room_of(module_of(path))
    for module in imports(path):
        room = room_of(module)
        if module.startswith("alignzoo.") and room != own:
            lower = FLOOR[room] < FLOOR[own] or (own in GROUND and room == "errors")
            assert lower, f"{own} (floor {FLOOR[own]}) imports {module} (floor {FLOOR[room]})"


GROUND = FLOORS[0] - {"errors"}  # everything may raise an error


@pytest.mark.parametrize("path", HOUSE, ids=name_of)
def test_no_file_imports_itself_in_a_circle(path):
    module = module_of(path)
    assert module not in reachable(module)


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_the_core_imports_no_plugin_and_no_suite(path):
    assert not [module for module in imports(path) if module.startswith("alignzoo_")]


def test_every_part_of_the_core_has_a_floor():
    assert {room_of(module) for module in FILES if module.startswith("alignzoo.")} == set(FLOOR)


@pytest.mark.parametrize("path", PLUGINS, ids=name_of)
def test_no_plugin_imports_itself_in_a_circle(path):
    module = module_of(path)
    assert module not in reachable(module)
