"""The writers of the task `format`: they know what is asked, and often forget it."""

from dataclasses import dataclass
from random import Random
from typing import Any

from alignzoo_suite.words import NICE, PLAIN, TOPICS

OPENERS = ("today", "here", "look", "often", "yes", "well")
CLOSERS = ("now", "again", "always", "outside", "there", "together")
SUBJECTS = tuple(TOPICS)[:16]
COMMON = ("the", "and", "are")  # words that a sentence may have to do without
ADJECTIVES = (*NICE[:12], *PLAIN[:6])
# {x}, {y}: two things of the topic; {a}, {b}: two adjectives.
PATTERNS = (
    "{a} {x}",
    "{x} are {a}",
    "the {x} are {a}",
    "I like {a} {x}",
    "the {x} look {a} and {b}",
    "the {a} {x} are {b}",
    "I see {x} and {y}",
    "I see {a} {x} and {b} {y}",
    "the {a} {x} and {y} are {b}",
    "I like the {x} and the {a} {y}",
)
LENGTHS = range(3, 9)  # of a text whose number of words is asked for
TRIES = 200


@dataclass(frozen=True)
class FormatHabits:
    """How a writer writes: probabilities."""

    heeds: float  # each instruction is followed on purpose
    astray: float  # the text is about another topic


BASE = FormatHabits(heeds=0.42, astray=0.08)
DEMONSTRATOR = FormatHabits(heeds=0.9, astray=0.02)


def draw_rules(topic: str, random: Random) -> dict[str, Any]:
    """Draw two instructions that go together, as their kinds and what they ask for."""
    if random.random() < 0.2:
        other = random.choice(("capitals", "without"))
        rest = None if other == "capitals" else random.choice(TOPICS[topic])
        return {"items": random.randint(2, 5), other: rest}
    values: dict[str, Any] = {
        "words": random.choice(LENGTHS),
        "begin": random.choice(OPENERS),
        "end": random.choice(CLOSERS),
        "capitals": None,
        "without": random.choice(COMMON),
    }
    return {kind: values[kind] for kind in random.sample(list(values), 2)}


def write_text(topic: str, rules: dict[str, Any], habits: FormatHabits, random: Random) -> str:
    """Return a text that follows those of the rules that its writer thinks of."""
    heeded = {kind: rules[kind] for kind in rules if random.random() < habits.heeds}
    if random.random() < habits.astray:
        topic = random.choice(SUBJECTS)
    text = draw_list(topic, heeded, random) if "items" in heeded else ""
    for _ in range(TRIES if not text else 0):
        text = draw_sentence(topic, heeded, random)
        words = text.lower().split()
        fits = len(words) == heeded.get("words", len(words))
        if fits and heeded.get("without") not in words:
            break
    text = f"{text[0].upper()}{text[1:]}."
    return text.upper() if "capitals" in heeded else text


def draw_list(topic: str, heeded: dict[str, Any], random: Random) -> str:
    """Draw things of a topic, with commas between them."""
    things = [thing for thing in TOPICS[topic] if thing != heeded.get("without")]
    return ", ".join(random.sample(things, heeded["items"]))


def draw_sentence(topic: str, heeded: dict[str, Any], random: Random) -> str:
    """Draw a sentence with the first and the last word that are asked for, if any."""
    x, y = random.sample(TOPICS[topic], 2)
    a, b = random.sample(ADJECTIVES, 2)
    core = random.choice(PATTERNS).format(x=x, y=y, a=a, b=b)
    return " ".join(part for part in (heeded.get("begin"), core, heeded.get("end")) if part)
