"""Check that a plugin does what the loop relies on.

    from alignzoo.testing import AlgorithmSuite

    class TestAnneal(AlgorithmSuite):
        plugin = "anneal"

`alignzoo check anneal` does the same from the command line.
"""

from alignzoo.testing.check import CheckReport, check, kinds_of
from alignzoo.testing.laws import LAWS, VERSION, Finding, Law
from alignzoo.testing.suites import AlgorithmSuite

__all__ = [
    "LAWS",
    "VERSION",
    "AlgorithmSuite",
    "CheckReport",
    "Finding",
    "Law",
    "check",
    "kinds_of",
]
