"""Checks of what is installed: versions, extras, plugins."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version

from packaging.requirements import Requirement

from alignzoo import discovery
from alignzoo.errors import AlignzooError
from alignzoo_doctor.finding import Finding

OWN = "alignzoo"
# What these packages require of others is checked: they break by the versions of one another.
CHECKED = (
    OWN, "torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "trl", "vllm",
    "lm-eval", "cyllama",
)  # fmt: skip
EXTRAS = ("gguf", "lm-eval", "ray", "vllm")


def check_versions() -> Iterator[Finding]:
    """Find packages whose requirements are not met, and packages in each other's place."""
    found = [finding for package in CHECKED for finding in check_requirements(package)]
    found += check_shadows()
    present = [name for name in CHECKED if installed(name) is not None]
    if not found:
        text = ", ".join(f"{name} {installed(name)}" for name in present)
        found = [Finding("ok", "versions", f"{text}: what they require is there")]
    yield from found


def check_requirements(package: str) -> Iterator[Finding]:
    """Find the requirements of an installed package that are not met."""
    if installed(package) is None:
        return
    for text in distribution(package).requires or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        have = installed(needed.name)
        if have is None or not needed.specifier.contains(have, prereleases=True):
            yield Finding(
                "problem",
                "versions",
                f"{package} {installed(package)} needs {needed.name}{needed.specifier}, and "
                + (f"{have} is installed" if have else "it is not installed"),
                f"pip install '{needed.name}{needed.specifier}', or another {package}",
            )


def check_shadows() -> Iterator[Finding]:
    """Find a module that two packages have installed, one over the other."""
    for module in ("llama_cpp",):
        packages = sorted(set(packages_distributions().get(module, ())))
        if len(packages) > 1:
            yield Finding(
                "problem",
                "versions",
                f"{' and '.join(packages)} both install the module {module}",
                f"pip uninstall {packages[0]}, or keep them in two environments",
            )


def check_extras() -> Iterator[Finding]:
    """Find which extras of alignzoo are installed."""
    missing = [extra for extra in EXTRAS if not has_extra(extra)]
    present = [extra for extra in EXTRAS if extra not in missing]
    text = f"installed: {', '.join(present) or 'none'}"
    if missing:
        text += f"; not installed: {', '.join(missing)} (pip install 'alignzoo[{missing[0]}]')"
    yield Finding("ok", "extras", text)


def has_extra(extra: str) -> bool:
    """Return whether all packages of an extra of alignzoo are installed."""
    needed = [Requirement(text) for text in distribution(OWN).requires or ()]
    of_extra = [
        one
        for one in needed
        if one.marker is not None
        and one.marker.evaluate({"extra": extra})
        and not one.marker.evaluate({"extra": ""})
    ]
    return bool(of_extra) and all(installed(one.name) is not None for one in of_extra)


def check_plugins() -> Iterator[Finding]:
    """Find plugins that cannot be loaded; those of other packages are imported."""
    advice = "alignzoo -p no:NAME leaves a plugin or a package out"
    problems = list(discovery.find_problems())
    count = 0
    for kind in discovery.GROUPS:
        for name, found in discovery.discover(kind).items():
            count += 1
            if found.package != OWN:
                try:
                    discovery.load_plugin(kind, name)
                except AlignzooError as error:
                    problems.append(error.message)
    for problem in dict.fromkeys(problems):
        yield Finding("problem", "plugins", problem, advice)
    if not problems:
        yield Finding("ok", "plugins", f"{count} plugins, all of which can be loaded")


def installed(package: str) -> str | None:
    """Return the version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
