"""Make several runs in the same processes, which saves their start: `sharded_runs.py JOBS OUT`.

JOBS is a JSON file of `[algorithm, settings]` by name. OUT gets by name "finished" or the message
with which the run was refused. Other errors end the processes.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from accelerate import Accelerator

from alignzoo.errors import BadInput
from alignzoo.policy import keep_bases
from alignzoo.session import execute, recipe_for


def main(jobs: Path, out: Path) -> None:
    keep_bases()
    Accelerator()  # connects the processes, until all runs are made
    done = {}
    for name, (algorithm, settings) in json.loads(jobs.read_text()).items():
        resume, changes = settings.pop("resume", False), settings.pop("allow_changes", False)
        recipe = recipe_for(algorithm, settings, {"output_dir": str(out.parent), "name": name})
        try:
            execute(recipe, resume=resume, allow_changes=changes, allow_code=True)
            done[name] = "finished"
        except BadInput as error:
            done[name] = error.problem
        if os.environ.get("SHOW"):
            print(name, done[name], flush=True)
    if os.environ.get("RANK", "0") == "0":
        out.write_text(json.dumps(done))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
