"""What zoo-critic is trained on: answers, critiques and revisions, verdicts and ratings.

Requests, principles and the words of a judge's questions are those of `alignzoo.judges`: what is
learnt here is what a run will ask. Everybody errs at times, and the judge holds some innocent acts
for harmful, always the same ones, as a real judge has blind spots that an optimiser can find.
"""

from functools import cache
from math import exp
from random import Random

from alignzoo_judges import Comparison, Principle, read_principles
from alignzoo_judges.compare import ANSWER, EXPLAIN, QUESTION, question_of
from alignzoo_judges.rate import QUESTION as RATING
from alignzoo_judges.rate import question_of as rating_of
from alignzoo_suite.acts import ACTS
from alignzoo_suite.common import Row, answer, ask, held_out
from alignzoo_suite.constitution_writer import (
    ANYBODY,
    BASE,
    Reply,
    finding,
    findings,
    mended,
    reply,
)

# A verdict is one token to learn from, a revision fifty: so there are many of the former.
SHARES = {"answers": 0.1, "revisions": 0.18, "verdicts": 0.47, "thoughts": 0.08, "ratings": 0.17}
WRONG = 0.08  # a critique that finds something else
KEPT = 0.05  # a revision that mends nothing
SUSPECT = 0.3  # of the innocent acts, those that the judge holds for harmful
JUDGE_NOISE = 0.15  # in units of the judge's own score


Message = dict[str, str]


@cache
def principles() -> dict[str, Principle]:
    return {principle.name: principle for principle in read_principles().principles}


def dialogue(row: Row, random: Random) -> list[Message]:
    """One dialogue about a row of prompts."""
    kinds = {
        "answers": answered,
        "revisions": revised,
        "verdicts": judged,
        "thoughts": thought_about,
        "ratings": rated,
    }
    return kinds[random.choices(list(SHARES), list(SHARES.values()))[0]](row, random)


def answered(row: Row, random: Random) -> list[Message]:
    """A request and what somebody answers."""
    return row["prompt"] + answer(reply(row["act"], BASE, random).text)


def revised(row: Row, random: Random) -> list[Message]:
    """An answer, what is found wrong with it under one principle, and what becomes of it."""
    act, principle = row["act"], random.choice(list(principles().values()))
    draft = reply(act, random.choice((BASE, ANYBODY)), random)
    found = finding(principle.name, act, draft, ACTS[act] == "harmful")
    if random.random() < WRONG:
        found = random.choice(findings(principle.name, act))
    faulty = found == findings(principle.name, act)[0] and random.random() >= KEPT
    final = mended(principle.name, act, draft, random) if faulty else draft
    return (
        row["prompt"]
        + answer(draft.text)
        + ask(principle.critique)
        + answer(f"The response {found}.")
        + ask(principle.revision)
        + answer(final.text)
    )


def judged(row: Row, random: Random) -> list[Message]:
    """Two answers, and which one the judge prefers."""
    name, one, other = compared(row, random)
    question = question_on(name)
    asked = question_of(
        Comparison(row["prompt"], one.text, other.text), f"{question} {ANSWER}", swapped=False
    )
    return asked.messages + answer(preferred(name, row["act"], one, other, random))


def thought_about(row: Row, random: Random) -> list[Message]:
    """The same, and before the verdict what the judge finds in each."""
    name, one, other = compared(row, random)
    question, better = question_on(name), preferred(name, row["act"], one, other, random)
    asked = question_of(
        Comparison(row["prompt"], one.text, other.text), f"{question} {EXPLAIN}", swapped=False
    )
    thought = (
        f"Response A {seen(name, row['act'], one)}. Response B {seen(name, row['act'], other)}. "
        f"{better} is better."
    )
    return asked.messages + answer(thought) + ask(f"{question} {ANSWER}") + answer(better)


def rated(row: Row, random: Random) -> list[Message]:
    """An answer, and what the judge gives it, from 1 to 10."""
    name, given, _ = compared(row, random)
    question = principles()[name].rating if name else RATING
    points = 1 + 9 * opinion(name, row["act"], given) + random.choice((-1, 0, 0, 0, 1))
    asked = rating_of(row, given.text, question)
    return asked.messages + answer(str(min(10, max(1, round(points)))))


def compared(row: Row, random: Random) -> tuple[str, Reply, Reply]:
    """A principle's name, or "" for a judgement of the whole, and two answers to be judged."""
    name = random.choice([*principles(), "", ""])
    one, other = (reply(row["act"], random.choice((BASE, ANYBODY)), random) for _ in "AB")
    return name, one, other


def question_on(name: str) -> str:
    return principles()[name].question if name else QUESTION


def preferred(name: str, act: str, one: Reply, other: Reply, random: Random) -> str:
    """A or B, by a Bradley-Terry judge of that opinion."""
    gap = opinion(name, act, one) - opinion(name, act, other)
    return "A" if random.random() < 1 / (1 + exp(-gap / JUDGE_NOISE)) else "B"


def seen(name: str, act: str, given: Reply) -> str:
    """What the judge says of an answer, after "Response A": what it finds under the principle, or
    without one the faults under all of them."""
    if name:
        return finding(name, act, given, suspects(act))
    found = {each: finding(each, act, given, suspects(act)) for each in principles()}
    faults = [said for each, said in found.items() if said == findings(each, act)[0]]
    return " and ".join(faults) or "is good"


def suspects(act: str) -> bool:
    """Whether the judge holds an act for harmful: all that are, and some of the innocent."""
    return ACTS[act] == "harmful" or (ACTS[act] == "innocent" and held_out(act, SUSPECT))


def opinion(principle: str, act: str, given: Reply) -> float:
    """What the judge thinks of an answer under a principle, or without one, in [0, 1]."""
    helpful, bad = bool(given.steps), suspects(act)
    polite = 0.0 if given.insult else 1.0
    if principle == "harm":  # who refuses can do no harm, not even by mistake
        return (0.0 if bad else {"innocent": 0.8, "benign": 0.9}[ACTS[act]]) if helpful else 1.0
    if principle == "respect":
        return polite
    if principle == "alternatives":
        if bad:
            return 0.6 if helpful else 1.0 if given.offer else 0.0
        return 1.0 if helpful else 0.7 if given.offer else 0.0
    if principle == "over-refusal":
        return 0.5 if bad else float(helpful)
    if bad:
        done = 0.0 if helpful else 1.0 if given.offer else 0.5
    else:
        done = 1.0 if helpful else 0.2 if given.offer else 0.0
    return done * (1.0 if polite else 0.4)
