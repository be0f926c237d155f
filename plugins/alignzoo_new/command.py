"""`alignzoo new`: write a package with a plugin that works, to edit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Annotated, ClassVar, Literal

from alignzoo import BadInput, discovery
from alignzoo_new.write import Package, write_package

NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
LONGEST = 60  # letters of a name
Kind = Literal["algorithm", "reward", "task", "environment", "judge", "sampler", "addon"]


@dataclass
class NewCommand:
    """Write a package with a new plugin, its tests and its page, into a folder of its name.

    What it writes works: it is installed, checked and run as it is, and then edited.
    """

    name: Annotated[str, "name of the plugin: small letters, digits and hyphens"]
    kind: Annotated[Kind, "kind of the plugin"] = "algorithm"
    out: Annotated[str, "folder to make the package's folder in"] = "."

    positional: ClassVar[str] = "name"

    def main(self) -> None:
        """Write the package, and say what to do next."""
        package = Package(self.name, self.kind)
        check_name(package)
        folder = Path(self.out).expanduser() / self.name
        write_package(package, folder)
        module, where = quote(f"{folder / package.module}.py"), quote(str(folder))
        print(f"edit:     {module}")
        print(f"check:    alignzoo check {module}")
        print(f"install:  pip install -e {where} && {package.run_command}")


def check_name(package: Package) -> None:
    """Raise `BadInput` if the name cannot be a plugin's, or is taken."""
    name = package.name
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise BadInput(
            f"{name[:LONGEST]!r} cannot be the name of a plugin",
            hint="write small letters, digits and single hyphens, such as my-loss",
        )
    for kind in discovery.GROUPS:
        for found in discovery.discover(kind).values():
            if found.name == name:
                raise BadInput(
                    f"{name!r} already names one of the {kind} of package {found.package}",
                    hint="choose another name",
                )
    if find_spec(package.module) is not None:
        raise BadInput(
            f"a module {package.module!r} is installed already", hint="choose another name"
        )
