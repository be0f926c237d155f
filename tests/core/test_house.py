"""Rules of the house that the code is held to: one meaning a name, one way to log and to charge."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
from imports import CORE, PLUGINS, ROOT, imported_names

import alignzoo


def public_definitions(path: Path) -> set[str]:
    """Return the public functions, classes and constants that a file defines at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}


def test_a_public_name_has_one_definition():
    homes = defaultdict(list)
    for path in CORE:
        for name in public_definitions(path):
            homes[name].append(str(path.relative_to(ROOT)))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def attributes_set(path: Path) -> set[str]:
    """Return the names of attributes that a file assigns to, or changes by a method."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


CODE = [*CORE, *PLUGINS, *sorted((ROOT / "benchmarks" / "alignzoo_suite").rglob("*.py"))]


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_costs_and_round_metrics_have_one_way_in(path):
    """Compute is charged by `Ledger.charge` alone, round metrics logged by `RoundLog` alone."""
    text = path.read_text(encoding="utf-8")
    if path.name != "ledger.py":
        assert ".flops[" not in text.replace('ledger.flops["reward_training"]', "")
    writes = [line for line in text.splitlines() if "round_metrics.numbers" in line]
    assert not [line for line in writes if "] =" in line or "|=" in line or ".update(" in line]


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_plugin_imports_only_what_is_public(path):
    """Names of `alignzoo/__init__.pyi`, and what the packages for authors export."""
    own = path.relative_to(ROOT / "plugins").parts[0]
    for module, name in imported_names(path):
        top = module.split(".")[0]
        if top == "alignzoo":
            assert is_public(module, name), f"{module}.{name}"
        elif top.startswith("alignzoo_"):
            assert top in (own, *LIBRARIES), module


# Plugin packages that other plugins share.
LIBRARIES = ("alignzoo_judges", "alignzoo_rewards", "alignzoo_sandbox")


def is_public(module: str, name: str) -> bool:
    """Return whether docs/design.md offers a name to plugin authors."""
    if module == "alignzoo":
        return name in alignzoo.__all__ or f"alignzoo.{name}" in PUBLIC_MODULES
    return module in PUBLIC_MODULES


# Parts of the core that plugins may import from, each with the names of its `__all__`, or all of a
# module without one.
PUBLIC_MODULES = {
    "alignzoo.algorithm",
    "alignzoo.cli.quiet",
    "alignzoo.cli.render",
    "alignzoo.cli.terminal",
    "alignzoo.data",
    "alignzoo.discovery",
    "alignzoo.environments",
    "alignzoo.errors",
    "alignzoo.evaluation",
    "alignzoo.faults",
    "alignzoo.files",
    "alignzoo.fingerprints",
    "alignzoo.functional",
    "alignzoo.ledger",
    "alignzoo.named",
    "alignzoo.options",
    "alignzoo.policy",
    "alignzoo.recipe",
    "alignzoo.record",
    "alignzoo.remote",
    "alignzoo.rewards",
    "alignzoo.rollout",
    "alignzoo.safe_yaml",
    "alignzoo.session",
    "alignzoo.signals",
    "alignzoo.testing",
    "alignzoo.ui",
}


def test_mypy_covers_the_core_every_plugin_and_the_suite():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {
        path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()
    }
    assert set(settings["tool"]["mypy"]["packages"]) == packages | {"alignzoo", "alignzoo_suite"}
