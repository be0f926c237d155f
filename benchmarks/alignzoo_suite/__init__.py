"""The embedded suite: tasks with a hidden gold score, and small models trained on them.

Importing a task imports no torch; only the `make_*` scripts and the task `critic` need it.
"""

from pathlib import Path

HERE = Path(__file__).parent
ZOO_TINY = HERE / "zoo_tiny"
MODELS = {
    "zoo-tiny": ZOO_TINY,
    "zoo-critic": HERE / "zoo_critic",
    "zoo-scout": HERE / "zoo_scout",
    "zoo-abacus": HERE / "zoo_abacus",
}
