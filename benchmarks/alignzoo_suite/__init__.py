"""The embedded suite: tasks with a hidden gold score, and the models that speak them.

Importing a task imports no torch; only the `make_*` scripts need it.
"""

from pathlib import Path

HERE = Path(__file__).parent
ZOO_TINY = HERE / "zoo_tiny"
MODELS = {"zoo-tiny": ZOO_TINY, "zoo-critic": HERE / "zoo_critic"}
