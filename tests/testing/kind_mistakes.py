"""Right plugins of each kind but algorithms, and mistakes in them, with the law that finds each.

A mistake replaces a text of the right plugin.
"""

from __future__ import annotations

from typing import NamedTuple


class Mistake(NamedTuple):
    """A mistake: the law that it breaks, and what is written in place of what."""

    law: str
    old: str
    new: str


REWARD = '''
import random
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from alignzoo import BadInput, RowReward, hookimpl


@dataclass(eq=False)
class Names(RowReward):
    """How often the answer is named."""

    worth: Annotated[float, "of a right answer", Gt(0)] = 1.0
    calls = 0

    @hookimpl
    def alignzoo_check(self, recipe, data):
        pass

    def score(self, row, completion):
        right = row["answer"] in completion
        return self.worth * right + 0.01 * len(completion.split())
'''

WHOLE_BATCH = """
    @hookimpl
    def alignzoo_reward(self, run, batch):
        scores = torch.tensor([self.score(*x) for x in zip(batch.answered(), run.texts(batch))])
        return {}
"""

REWARD_MISTAKES = [
    Mistake("starts", "pass", "raise BadInput('no')"),
    Mistake(
        "starts", "right = ", 'if "gold" not in row:\n            return None\n        right = '
    ),
    Mistake("described options", ", Gt(0)]", "]"),
    Mistake("options that do something", "self.worth *", "2.0 *"),
    Mistake("global generators", "return self", "return random.random() + self"),
    Mistake("one score", "return self.worth", "return float('inf')"),
    Mistake(
        "one score", "    def score", WHOLE_BATCH.format("scores.tolist()") + "\n    def score"
    ),
    Mistake("repeated score", "right = ", "self.calls += 1\n        right = self.calls + "),
    Mistake(
        "order of completions",
        "    def score",
        WHOLE_BATCH.format("scores.sort().values") + "\n    def score",
    ),
    Mistake(
        "neighbours",
        "    def score",
        WHOLE_BATCH.format("scores - scores.mean()") + "\n    def score",
    ),
    Mistake("kept rows", "right = ", 'row["seen"] = True\n        right = '),
    Mistake("odd completions", "len(completion.split())", "len(completion.split()[0])"),
    Mistake("conversational rows", "right = ", 'right = row["prompt"].endswith("?") + '),
]

TASK = '''
import json
import random
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge


@dataclass(eq=False)
class Doubles:
    """Double a number."""

    count: Annotated[int, "numbers of the train split", Ge(1)] = 20

    views = ("demonstrations", "prompts")
    splits = ("train", "dev", "test")
    worst = 0.0
    best = 1.0

    def rows(self, view, split):
        if view not in self.views or split not in self.splits:
            raise ValueError(f"no {view} of {split}")
        low = {"train": 0, "dev": 1000, "test": 2000}[split]
        found = []
        for n in range(low, low + self.count):
            row = {"prompt": f"Double {n}.", "n": n}
            found.append(row if view == "prompts" else row | {"completion": str(2 * n)})
        return found

    def score(self, row, completion):
        return float(completion.strip() == str(2 * row["n"]))

    def measures(self, row, completion):
        return {"digits": float(completion.isdigit())}

    def answer(self, completion):
        return completion.strip() or None
'''

TASK_MISTAKES = [
    Mistake("starts", "low = {", "low = {}[view] + {"),
    Mistake("described options", '"numbers of the train split", Ge(1)', '""'),
    Mistake("options that do something", "self.count", "20"),
    Mistake("global generators", "return found", "return random.sample(found, 20)"),
    Mistake("same rows", "return found", "random.shuffle(found)\n        return found"),
    Mistake("same rows", '"n": n}', '"n": n, "at": (n, n)}'),
    Mistake("same rows", "found = []", "found = self.__dict__.setdefault(view + split, [])"),
    Mistake("splits", '"dev": 1000', '"dev": 10'),
    Mistake("views", "if view not in self.views or", "if"),
    Mistake("views", '{"completion"', '{"complete"'),
    Mistake("scores", "completion.strip() ==", "completion.split()[0] =="),
    Mistake("scores", "return float(", "return 2.0 - float("),
    Mistake("best answers", "return float(", "return 1.0 - float("),
    Mistake("measures", "float(completion.isdigit())", "float(completion.isdigit() or 'nan')"),
    Mistake("measures", "float(completion.isdigit())", "1 / len(completion.split())"),
    Mistake("answers", "completion.strip() or None", "completion.split()"),
    Mistake("answers", "completion.strip() or None", "int(completion)"),
]

JUDGE = '''
import random
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

from annotated_types import Gt

from alignzoo_judges import Judge
from alignzoo_judges.judge import Answer, Usage, normalise


@dataclass(eq=False)
class Hashes(Judge):
    """Prefers by a hash."""

    scale: Annotated[float, "nats between the options", Gt(0)] = 1.0
    calls = 0

    def __post_init__(self):
        self.identity = f"hashes {self.scale}"
        self.salt = ""

    def number(self, *what):
        return sha256(repr((self.salt, what)).encode()).digest()[0] / 256

    def answers(self, questions):
        for i, question in enumerate(questions):
            text = question.messages[-1]["content"]
            scores = [self.scale * self.number(text, option) for option in question.options]
            yield Answer(i, normalise(scores), Usage(10.0, len(text), 0))

    def texts(self, dialogues, max_new_tokens):
        for i, dialogue in enumerate(dialogues):
            yield Answer(i, f"I think {self.number(dialogue)}", Usage(10.0, 5, 3))
'''

JUDGE_MISTAKES = [
    Mistake("starts", "for i, question", "raise ValueError\n        for i, question"),
    Mistake("described options", ", Gt(0)]", "]"),
    Mistake("options that do something", "self.scale", "2.0"),
    Mistake("global generators", "/ 256", "/ 256 + random.random()"),
    Mistake("each question", "enumerate(questions)", "list(enumerate(questions))[:-1]"),
    Mistake("probabilities", "normalise(scores)", "scores"),
    Mistake("probabilities", "normalise(scores)", "normalise(scores)[:2]"),
    Mistake("other questions", "self.number(text", "self.number(len(questions)"),
    Mistake("swapped pairs", "self.number(text", "self.number(i, text"),
    Mistake("texts", "self.number(dialogue)", "self.number(i, dialogue)"),
    Mistake("texts", "enumerate(dialogues)", "list(enumerate(dialogues))[1:]"),
    Mistake("usage", "Usage(10.0, len(text), 0)", "Usage(-10.0, len(text), 0)"),
    Mistake(
        "usage",
        "    def answers",
        "    def ask(self, questions):\n"
        "        return [answer.value for answer in self.answers(questions)]\n\n"
        "    def answers",
    ),
    Mistake("identity", 'self.salt = ""', "self.salt = random.random()"),
    Mistake("kept questions", "text = ", "question.messages.append({})\n            text = "),
]

SAMPLER = '''
import torch
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge

from alignzoo.rollout import Sampler, Sampling, generate, seeds


@dataclass(eq=False)
class Own(Sampler):
    """The model itself."""

    at_once: Annotated[int, "completions at once", Ge(1)] = 64

    def complete(self, run, rows, size, stream):
        sampling = Sampling.of(run.recipe, run.codec)
        prompts = [row.prompt for row in rows for _ in range(size)]
        own = seeds(run, len(prompts), stream)
        with run.model.evaluating():
            drawn = generate(
                run.model, prompts, own, sampling, batch_size=self.at_once, charge=run.ledger.charge
            )
        return [drawn[i : i + size] for i in range(0, len(drawn), size)]
'''

SAMPLER_MISTAKES = [
    Mistake("starts", "own = seeds", "raise ValueError\n        own = seeds"),
    Mistake("described options", '"completions at once"', '""'),
    Mistake("options that do something", "self.at_once", "64"),
    Mistake(
        "global generators", "own = seeds", "stream += str(torch.rand(()))\n        own = seeds"
    ),
    Mistake("completions", "range(0, len(drawn)", "range(size, len(drawn)"),
    Mistake("completions", "drawn[i : i + size]", "drawn[i : i + 1]"),
    Mistake("stream", "(prompts), stream)", "(prompts), 'sample')"),
    Mistake("stream", "seeds(run, len(prompts), stream)", "[0] * len(prompts)"),
    Mistake("other prompts", "(prompts), stream)", "(prompts), stream + str(rows))"),
    Mistake(
        "tokens",
        "Sampling.of(run.recipe, run.codec)",
        "replace(Sampling.of(run.recipe, run.codec), max_new_tokens=50, stop_ids=())",
    ),
    Mistake("tokens", "return [", "drawn[0].tokens[0] = 10**6\n        return ["),
    Mistake("ended", "return [", "drawn[0].ended ^= True\n        return ["),
    Mistake("log-probs", "run.recipe, run", "replace(run.recipe, temperature=1.0), run"),
    Mistake("log-probs", "return [", "drawn[0].logprobs[0] = 0.5\n        return ["),
    Mistake("sampling temperature", "run.recipe, run", "replace(run.recipe, temperature=1.0), run"),
    Mistake(
        "current weights",
        "return [",
        "kept = self.__dict__.setdefault(f'{stream} {run.round}', drawn)\n"
        "        drawn = deepcopy(kept)\n        return [",
    ),
    Mistake(
        "charges",
        "charge=run.ledger.charge",
        "charge=lambda *_: run.charge('generation', tokens=1)",
    ),
    Mistake("kept rows", "own = seeds", "rows[0].prompt.append(3)\n        own = seeds"),
]

OPTIMIZER = '''
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Lt

from alignzoo import hookimpl


class Momentum(torch.optim.Optimizer):
    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad.sign(), 1 - group["decay"])
                p -= group["lr"] * mean


@dataclass(eq=False)
class Sign:
    """The running mean of the signs of gradients"""

    decay: Annotated[float, "of the mean", Ge(0), Lt(1)] = 0.5

    @hookimpl
    def alignzoo_optimizer(self, run, parameters):
        values = [p for _, p in parameters]
        return Momentum(values, {"lr": run.learning_rate, "decay": self.decay})
'''

OPTIMIZER_MISTAKES = [
    Mistake("starts", "values = [", "raise ValueError\n        values = ["),
    Mistake("described options", ", Ge(0), Lt(1)]", "]"),
    Mistake("options that do something", "self.decay", "0.5"),
    Mistake("resume", "self.state[p].setdefault", "vars(self).setdefault(p, {}).setdefault"),
    Mistake("rate 0", 'group["lr"] * mean', "1e-3 * mean"),
    Mistake("learns", "p -= ", "p += "),
]

ADDON = '''
import math
import time
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Gt

from alignzoo import hookimpl


@dataclass(eq=False)
class Smooth:
    """A moving average of the loss"""

    rate: Annotated[float, "of the average", Gt(0)] = 0.1

    @hookimpl
    def alignzoo_step(self, run, metrics):
        state = run.state_of(self)
        before = state.get("loss", metrics["loss"])
        state["loss"] = before + self.rate * (metrics["loss"] - before)
        metrics["smooth_loss"] = state["loss"]

    @hookimpl(wrapper=True)
    def alignzoo_loss(self, run, batch):
        loss = yield
        return loss
'''

ADDON_MISTAKES = [
    Mistake("starts", "state = run", "raise ValueError\n        state = run"),
    Mistake("described options", ", Gt(0)]", "]"),
    Mistake("options that do something", "self.rate", "0.1"),
    Mistake("resume", "run.state_of(self)", "self.__dict__.setdefault('kept', {})"),
    Mistake("core metrics", "loss = yield", "loss = yield\n        loss.sum = 2 * loss.sum"),
    Mistake("added metrics", '["smooth_loss"] = state["loss"]', '["smooth_loss"] = math.nan'),
    Mistake("overhead", "state = run", "time.sleep(0.005)\n        state = run"),
]

ENVIRONMENT = '''
import random
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from alignzoo.environments import Environment, Step, Tool, ToolError

NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@dataclass(eq=False)
class Guess(Environment):
    """Guess a number that a tool halves."""

    highest: Annotated[int, "number to guess", Ge(1)] = 9

    def reset(self, row):
        self.number = random.Random(self.seed).randint(0, self.highest)
        self.said = []
        self.row = row
        self.tools = [Tool("halve", "Half a number.", NUMBER, self.halve)]

    def halve(self, a):
        if a % 2:
            raise ToolError("odd")
        return a // 2

    def step(self, text):
        self.said.append(text)
        right = str(self.number) in text
        return Step(f"guess {len(self.said)}", float(right), len(self.said) == 3)
'''

ENVIRONMENT_MISTAKES = [
    Mistake("starts", "self.row = row", "raise ValueError"),
    Mistake("starts", '"guess {len(self.said)}"', '""'),
    Mistake("starts", '"type": "integer"', '"type": "int"'),
    Mistake("described options", '"number to guess", Ge(1)', '"number to guess"'),
    Mistake("options that do something", "self.highest)", "9)"),
    Mistake("global generators", "random.Random(self.seed).randint", "random.randint"),
    Mistake("same episode", "random.Random(self.seed)", "random.SystemRandom()"),
    Mistake("neighbours", "self.said = []", "self.said = Guess.__dict__.get('kept') or []\n"
            "        Guess.kept = self.said"),
    Mistake("odd texts", "str(self.number) in text", "self.number == text.split()[0]"),
    Mistake("tools", "def halve(self, a)", "def halve(self, b)"),
    Mistake("tools", "if a % 2:", "if 1 / (a - 1):"),
]  # fmt: skip

RIGHT = {
    "rewards": REWARD,
    "tasks": TASK,
    "environments": ENVIRONMENT,
    "judges": JUDGE,
    "samplers": SAMPLER,
    "optimizers": OPTIMIZER,
    "addons": ADDON,
}
MISTAKES = {
    "rewards": REWARD_MISTAKES,
    "tasks": TASK_MISTAKES,
    "environments": ENVIRONMENT_MISTAKES,
    "judges": JUDGE_MISTAKES,
    "samplers": SAMPLER_MISTAKES,
    "optimizers": OPTIMIZER_MISTAKES,
    "addons": ADDON_MISTAKES,
}
