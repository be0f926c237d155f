"""Check that a plugin does what the loop relies on.

    from alignzoo.testing import AlgorithmSuite

    class TestAnneal(AlgorithmSuite):
        plugin = "anneal"

`alignzoo check anneal` does the same from the command line. `docs/check.md` lists the laws.
"""

from alignzoo.testing.check import CheckReport, add_kind, check, kinds_of
from alignzoo.testing.laws import LAWS, VERSION, Broken, Finding, Law, NotApplicable, law
from alignzoo.testing.subject import Subject, require_same
from alignzoo.testing.suites import (
    AddonSuite,
    AlgorithmSuite,
    EnvironmentSuite,
    OptimizerSuite,
    RewardSuite,
    SamplerSuite,
    Suite,
    TaskSuite,
)

__all__ = [
    "LAWS",
    "VERSION",
    "AddonSuite",
    "AlgorithmSuite",
    "Broken",
    "CheckReport",
    "EnvironmentSuite",
    "Finding",
    "Law",
    "NotApplicable",
    "OptimizerSuite",
    "RewardSuite",
    "SamplerSuite",
    "Subject",
    "Suite",
    "TaskSuite",
    "add_kind",
    "check",
    "kinds_of",
    "law",
    "require_same",
]
