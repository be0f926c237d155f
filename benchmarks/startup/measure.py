"""Measure what a run takes to start, and 20,000 pairs to be read, at two revisions.

    python benchmarks/startup/measure.py --before REVISION

Every case is a process of its own with one thread, in turn at REVISION, in a git worktree, and in
this tree. The time is the CPU time, user and system, of the whole process, or of `load_data` alone;
of each case the fastest is taken.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import process_time

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "benchmarks" / "results" / "startup" / "startup.json"
PAIRS = ROOT.parent / "shared" / "data" / "hh-rlhf" / "harmless-base-test.jsonl.gz"
ROWS = 20_000
TURN = re.compile(r"\n\n(Human|Assistant): ?")
ROLES = {"Human": "user", "Assistant": "assistant"}
RUN = "run dpo --task style --steps 1 --eval-size 0 --name run --output-dir".split()


def write_pairs(source: Path, folder: Path) -> None:
    """Write pairs as plain text and as messages; a number makes each of them one of its own."""
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    with (folder / "text.jsonl").open("w") as text, (folder / "messages.jsonl").open("w") as other:
        for number in range(ROWS):
            row = rows[number % len(rows)]
            pair = {
                side: row[side].replace("Human:", f"Human: ({number})", 1)
                for side in ("chosen", "rejected")
            }
            text.write(json.dumps(pair) + "\n")
            talk = {side: messages_of(dialogue) for side, dialogue in pair.items()}
            other.write(json.dumps(talk) + "\n")


def messages_of(dialogue: str) -> list[dict[str, str]]:
    """Return a dialogue of hh-rlhf as messages."""
    _, *parts = TURN.split(dialogue)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[speaker], "content": said.strip()} for speaker, said in turns]


def read(path: str, model: str) -> None:
    """Print the CPU seconds of `load_data`; called in a process of its own, at each revision."""
    from transformers import AutoTokenizer

    from alignzoo.data import Codec, Preferences, load_data

    codec = Codec(AutoTokenizer.from_pretrained(model))
    began = process_time()
    load_data(Preferences, codec, data=path, max_length=1024, strict=False, seed=0, holdout=100)
    print(process_time() - began)


def seconds(tree: Path, words: list[str], cache: Path, *, whole: bool) -> float:
    """Return the CPU seconds of a Python process in a tree, or those that it prints."""
    paths = [tree, tree / "plugins", tree / "benchmarks"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "ALIGNZOO_CACHE": str(cache),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words], env=environment, cwd=tree, check=True, stdout=subprocess.PIPE
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not whole:
        return float(done.stdout)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(trees: dict[str, Path], model: str | None, repeats: int, folder: Path) -> dict:
    """Return the fastest CPU seconds of each case in each tree, with an empty cache and again."""
    cases = {"first step of dpo on zoo-tiny": ["-m", "alignzoo", *RUN]}
    if model:
        own = str(Path(__file__).absolute())
        for form in ("text", "messages"):
            cases[f"{ROWS:,} pairs of {form}"] = [
                own,
                "--read",
                str(folder / f"{form}.jsonl"),
                model,
            ]
    found: dict[str, dict[str, float]] = {}
    for repeat in range(repeats):
        for case, words in cases.items():
            whole = words[0] == "-m"
            for name, tree in trees.items():
                cache = folder / f"cache-{repeat}-{name}"
                for again in ("", ", again"):
                    runs = [str(folder / f"runs-{repeat}-{name}{again}")] if whole else []
                    taken = seconds(tree, [*words, *runs], cache, whole=whole)
                    times = found.setdefault(case + again, {})
                    times[name] = min(taken, times.get(name, taken))
                    print(f"{case}{again}, {name}: {taken:.2f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--before", help="the revision to compare with")
    parser.add_argument("--model", help="a folder with a tokenizer, for the pairs")
    parser.add_argument("--pairs", type=Path, default=PAIRS, help="pairs of hh-rlhf, .jsonl.gz")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(*options.read)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        git = ["git", "-C", str(ROOT)]
        old = folder / "before"
        subprocess.run([*git, "worktree", "add", "--detach", old, options.before], check=True)
        try:
            if options.model:
                write_pairs(options.pairs, folder)
            trees = {"before": old, "after": ROOT}
            found = measure(trees, options.model, options.repeats, folder)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", old], check=True)
    result = {
        "before": options.before,
        "repeats": options.repeats,
        "machine": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "cases": {
            case: {
                **{name: round(time, 2) for name, time in times.items()},
                "ratio": round(times["after"] / times["before"], 3),
            }
            for case, times in found.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
