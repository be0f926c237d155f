"""The files of a new package, made from templates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from alignzoo import BadInput


class Kind(NamedTuple):
    """A kind of plugin: in words, and a command that uses one."""

    words: str
    run: str


KINDS = {
    "algorithm": Kind("an algorithm", "alignzoo run {}"),
    "reward": Kind("a reward", "alignzoo run grpo --task sums --reward {}"),
    "task": Kind("a task", "alignzoo run dpo --task {}"),
    "environment": Kind("an environment", "alignzoo run grpo --task sums --environment {}"),
    "judge": Kind("a judge", "alignzoo run rlaif --task constitution --judge {}"),
    "sampler": Kind("a sampler", "alignzoo run grpo --task sums --sampler {}"),
    "addon": Kind("an add-on", "alignzoo run dpo --with {}"),
}


@dataclass(frozen=True)
class Package:
    """A package with one plugin, by the plugin's name and kind."""

    name: str
    kind: str

    @property
    def project(self) -> str:
        """Return the name that it is installed by."""
        return f"alignzoo-{self.name}".replace("_", "-")

    @property
    def module(self) -> str:
        """Return the name of its module.

        The prefix keeps it apart from modules of other packages: a plugin may be called `random`.
        """
        return self.project.replace("-", "_")

    @property
    def cls(self) -> str:
        """Return the name of its class: `SoftMargin` for `soft-margin`."""
        return "".join(part.capitalize() for part in self.name.replace("_", "-").split("-"))

    @property
    def words(self) -> str:
        """Return its kind in words: "an algorithm"."""
        return KINDS[self.kind].words

    @property
    def run_command(self) -> str:
        """Return a command that uses the plugin when it is installed."""
        return KINDS[self.kind].run.format(self.name)

    @property
    def files(self) -> dict[str, str]:
        """Return the template of each file by the file's name."""
        return {
            "pyproject.toml": "pyproject.toml.j2",
            "README.md": f"{self.kind}.md.j2",
            f"{self.module}.py": f"{self.kind}.py.j2",
            f"test_{self.module}.py": f"test_{self.kind}.py.j2",
        }

    def render(self) -> dict[str, str]:
        """Return the text of each file by its name."""
        templates = Environment(
            loader=PackageLoader("alignzoo_new"),
            keep_trailing_newline=True,
            undefined=StrictUndefined,
        )
        return {
            name: templates.get_template(template).render(package=self)
            for name, template in self.files.items()
        }


def write_package(package: Package, folder: Path) -> None:
    """Write the files of a package into a new folder; raise `BadInput` if it exists."""
    files = package.render()
    try:
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise BadInput(
            "this exists already, and nothing was written",
            where=str(folder),
            hint="choose another name, or another folder by --out",
        ) from None
    except OSError as error:
        raise BadInput(f"cannot be written: {error.strerror}", where=str(folder)) from None
