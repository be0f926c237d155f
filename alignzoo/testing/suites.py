"""Suites for pytest: subclass one, name the plugin, and each law is a test.

Those for judges are `alignzoo_judges.testing.JudgeSuite`.

    from alignzoo.testing import AlgorithmSuite

    class TestAnneal(AlgorithmSuite):
        plugin = "anneal"
"""

from __future__ import annotations

from typing import Any, ClassVar

from alignzoo.testing.check import check
from alignzoo.testing.laws import LAWS, Finding


class Suite:
    """Tests of a plugin of one kind. A subclass gives `plugin`, `NAME[,OPTION=VALUE...]`."""

    kind: ClassVar[str]
    plugin: ClassVar[str]
    _found: ClassVar[dict[str, dict[str, Finding]]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Give a subclass that names a plugin one test for each law of its kind."""
        super().__init_subclass__(**options)
        if not hasattr(cls, "plugin"):
            return
        for law in LAWS[cls.kind]:

            def test(self: Suite, name: str = law.name) -> None:
                self.require(name)

            test.__doc__ = law.says
            setattr(cls, "test_" + law.name.replace(" ", "_").replace("-", "_"), test)

    def require(self, law: str) -> None:
        """Fail if a law does not hold; skip the test if it says nothing about the plugin."""
        import pytest

        key = f"{self.kind} {self.plugin}"
        if key not in self._found:
            self._found[key] = {each.law.name: each for each in check(self.kind, self.plugin)}
        finding = self._found[key][law]
        if finding.status in ("skipped", "excepted"):
            pytest.skip(finding.text)
        assert finding.status == "held", "\n".join(finding.lines())


class AlgorithmSuite(Suite):
    """The laws for algorithms."""

    kind = "algorithms"


class RewardSuite(Suite):
    """The laws for rewards."""

    kind = "rewards"


class TaskSuite(Suite):
    """The laws for tasks."""

    kind = "tasks"


class EnvironmentSuite(Suite):
    """The laws for environments."""

    kind = "environments"


class SamplerSuite(Suite):
    """The laws for samplers."""

    kind = "samplers"


class OptimizerSuite(Suite):
    """The laws for optimizers."""

    kind = "optimizers"


class AddonSuite(Suite):
    """The laws for add-ons."""

    kind = "addons"
