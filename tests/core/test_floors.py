"""The house has floors, and no import runs up the stairs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = [
    {"functional", "hookspecs", "errors", "ledger", "loss", "options", "files", "ui", "memory"}
    | {"kinds", "policy_gradient", "preference", "remote", "pace"},
    {"alarms", "batch", "plugins", "recipe", "record", "checkpoint", "algorithm", "tracking"},
    {"policy", "data"},
    {"run", "reference_cache", "experience", "samplers", "judges", "rewards", "on_policy", "cast"},
    {"evaluation"},
    {"loop", "learned"},
    {"session", "chat"},
    {"leaderboard"},
    {"cli", "__main__"},
]
HEIGHT = {name: floor for floor, names in enumerate(FLOORS) for name in names}
PUBLIC = "alignzoo"
FOR_PLUGINS = {"files", "functional", "policy_gradient", "preference", "remote", "samplers"}
FOR_PLUGINS |= {"judges", "rewards", "hookimpl", "collate", "joined", "algorithm_of"}


def imports(path: Path) -> set[str]:
    """Modules that a file imports when it runs; imports for types alone do not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == PUBLIC:
                found.update(f"{PUBLIC}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


CORE = sorted(p for p in (ROOT / "alignzoo").rglob("*.py") if p != ROOT / "alignzoo/__init__.py")
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_import_runs_up(path: Path):
    own = path.relative_to(ROOT / "alignzoo").parts[0].removesuffix(".py")
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == PUBLIC and len(parts) > 1 and parts[1] in HEIGHT and parts[1] != own:
            assert HEIGHT[parts[1]] <= HEIGHT[own], f"{path.name} imports {module}"


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_no_plugin_and_no_suite(path: Path):
    assert not [m for m in imports(path) if m.startswith("alignzoo_")]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_plugin_uses_only_what_anybody_can_import(path: Path):
    own = path.relative_to(ROOT / "plugins").parts[0]
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == PUBLIC and len(parts) > 1:
            assert parts[1][0].isupper() or parts[1] in FOR_PLUGINS, module
        assert not parts[0].startswith("alignzoo_") or parts[0] == own, module


def test_every_module_of_the_core_has_a_floor():
    names = {p.relative_to(ROOT / "alignzoo").parts[0].removesuffix(".py") for p in CORE}
    assert names <= set(HEIGHT), names - set(HEIGHT)
