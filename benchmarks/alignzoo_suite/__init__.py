"""The embedded suite: tasks with a hidden gold score, and `zoo-tiny`, a model that speaks them.

Importing a task imports no torch; only the `make_*` scripts need it.
"""

from pathlib import Path

HERE = Path(__file__).parent
ZOO_TINY = HERE / "zoo_tiny"
