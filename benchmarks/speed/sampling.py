"""Compare sampling with `transformers.generate`: `python benchmarks/speed/sampling.py`.

8 completions of each of 8 prompts at temperature 1, a fresh process per measurement, the two
libraries in turn. `equal`: prompts of 512 tokens, completions of 64. `unlike`: prompts of 64 to
512 tokens, and one token in 32 of the vocabulary ends a completion, so that lengths differ.
CPU seconds hardly depend on other load, so the ratio is of tokens per CPU second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import torch
from meter import METER, read_status
from model import FIRST_WORD, make_model

from alignzoo.policy import Policy, load_policy
from alignzoo.rollout import Sampling, generate
from compare import RESULTS, describe_machine, log, run_python

PROMPTS, GROUP, MAX_PROMPT, TOKENS = 8, 8, 512, 64
SIDES, CASES = ("transformers", "alignzoo"), ("equal", "unlike")


def make_prompts(case: str, vocabulary: int) -> list[list[int]]:
    """Return random prompts, each `GROUP` times in a row."""
    draw = Random(f"{case}/{vocabulary}")
    lengths = [
        MAX_PROMPT if case == "equal" else draw.randint(64, MAX_PROMPT) for _ in range(PROMPTS)
    ]
    rows = [[draw.randrange(FIRST_WORD, vocabulary) for _ in range(n)] for n in lengths]
    return [row for row in rows for _ in range(GROUP)]


def sample_ours(policy: Policy, prompts: list[list[int]], stops: range, tokens: int) -> list[int]:
    """Sample with alignzoo and return the lengths of the completions."""
    found = generate(policy, prompts, range(len(prompts)), Sampling(tokens, stops))
    return [len(completion.tokens) for completion in found]


def sample_theirs(policy: Policy, prompts: list[list[int]], stops: range, tokens: int) -> list[int]:
    """Sample with transformers, all rows at once and left-padded as by TRL; return the lengths."""
    width = max(map(len, prompts))
    ids = torch.tensor([[3] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    made = policy.model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=tokens,
        do_sample=True,
        top_k=0,
        eos_token_id=list(stops) or None,
        pad_token_id=3,
    )[:, width:]
    ended = torch.isin(made, torch.tensor(list(stops)))
    first = torch.where(ended.any(1), ended.int().argmax(1) + 1, made.shape[1])
    return first.tolist()


def measure(folder: str, side: str, case: str, vocabulary: int) -> dict[str, float]:
    """Sample once with one library and return tokens, time and memory."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = load_policy(folder)
    policy.eval()
    policy.model.generation_config.eos_token_id = None
    function = sample_ours if side == "alignzoo" else sample_theirs
    prompts = make_prompts(case, vocabulary)
    stops = range(FIRST_WORD, FIRST_WORD + (vocabulary // 32 if case == "unlike" else 0))
    function(policy, [prompt[:32] for prompt in prompts], stops, 2)
    METER.begin()
    started = time.perf_counter(), time.process_time()
    lengths = function(policy, prompts, stops, TOKENS)
    seconds, processor = time.perf_counter() - started[0], time.process_time() - started[1]
    return {
        "tokens": sum(lengths),
        "seconds": seconds,
        "core_seconds": processor,
        "memory_rise": read_status("VmHWM") - METER.facts["memory_before"],
    }


def make_table(processes: list[dict]) -> str:
    """Return the medians of the processes as a Markdown table."""
    lines = [
        "| vocabulary | prompts | | tokens/s | per core-second | alignzoo is | rise MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for vocabulary, case in dict.fromkeys((p["vocabulary"], p["case"]) for p in processes):
        found = {}
        for side in SIDES:
            mine = [
                p
                for p in processes
                if (p["vocabulary"], p["case"], p["side"]) == (vocabulary, case, side)
            ]
            found[side] = (
                statistics.median(p["tokens"] / p["seconds"] for p in mine),
                statistics.median(p["tokens"] / p["core_seconds"] for p in mine),
                statistics.median(p["memory_rise"] for p in mine),
            )
        for side, (wall, core, memory) in found.items():
            ratio = found["alignzoo"][1] / core
            lines.append(
                f"| {vocabulary:,} | {case} | {side} | {wall:.0f} | {core:.0f} | {ratio:.2f}x "
                f"| {memory:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measure both libraries on both cases, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[8_192, 50_257])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="sampling", help="name of the result files")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(*json.loads(args.one))))
        return
    processes = []
    with tempfile.TemporaryDirectory(prefix="alignzoo-speed-") as folder:
        for vocabulary in args.vocabularies:
            make_model(Path(folder) / str(vocabulary), vocabulary)
        for number in range(args.rounds):
            for vocabulary in args.vocabularies:
                for case in CASES:
                    for side in SIDES:
                        job = [f"{folder}/{vocabulary}", side, case, vocabulary]
                        out = run_python([__file__, "--one", json.dumps(job)], 1)
                        found = json.loads(out.strip().splitlines()[-1])
                        found |= {"vocabulary": vocabulary, "case": case, "side": side}
                        load = float(Path("/proc/loadavg").read_text().split()[0])
                        processes.append({"round": number, "load": load, **found})
                        log(f"{job[1:]}: {found['core_seconds']:.2f} core-seconds, load {load}")
    m = describe_machine()
    command = f"python benchmarks/speed/sampling.py {' '.join(sys.argv[1:])}".strip()
    packages = ", ".join(f"{k} {v}" for k, v in m["packages"].items())
    loads = [p["load"] for p in processes]
    text = (
        f"`{command}` on {m['cores']} cores of {m['cpu']}, {packages}. One thread; load average "
        f"{min(loads):.1f} to {max(loads):.1f} while it ran.\n\n{make_table(processes)}\n"
    )
    print(text)
    report = {"command": command, "machine": m, "processes": processes}
    (RESULTS / f"{args.name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (RESULTS / f"{args.name}.md").write_text(text)


if __name__ == "__main__":
    main()
