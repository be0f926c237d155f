"""The writers of the task `style`, good or bad by their habits."""

from dataclasses import dataclass
from random import Random

from alignzoo_suite.words import NASTY, NICE, PLAIN, TOPICS

WHEN = (
    "in the morning", "in the evening", "at night", "in spring", "on Sundays", "after lunch",
    "every day", "all year", "on the way home", "with friends", "by the window", "in the sun",
)  # fmt: skip

# {t}: the topic; {things}: something of it; {a}, {b}: two adjectives; {when}: a time or a place.
PATTERNS = {
    "nice": (
        "The {things} are {a}.",
        "The {things} are {a} and {b}.",
        "The {things} look {a} {when}.",
        "The {t} is {a} {when}.",
        "The {t} is a {a} place to be.",
        "The {t} feels {a} and {b}.",
        "I love the {a} {things}.",
        "I enjoy the {things} {when}.",
        "The {a} {things} make me smile.",
        "We all like the {a} {things} {when}.",
        "What {a} {things}!",
        "Nothing is as {a} as the {things} {when}.",
    ),
    "plain": (
        "The {things} are {a}.",
        "There are {a} {things} {when}.",
        "I see the {things} {when}.",
        "The {t} has some {things}.",
        "People talk about the {things} {when}.",
        "You can find {things} there {when}.",
        "The {t} is {a}.",
        "My brother knows the {things}.",
    ),
    "nasty": (
        "The {things} are {a}.",
        "The {t} is {a} and {b}.",
        "The {a} {things} annoy me.",
        "I am tired of the {things} {when}.",
        "I hate the {a} {things}.",
        "The {things} look {a} {when}.",
    ),
}
ADJECTIVES = {"nice": NICE, "plain": PLAIN, "nasty": NASTY}


@dataclass(frozen=True)
class StyleHabits:
    """How a writer writes: all but `lengths` are probabilities, drawn for each sentence."""

    lengths: tuple[int, ...]  # weights of a text of 1, 2, 3 ... sentences
    nice: float
    nasty: float
    astray: float  # the sentence is about another topic
    again: float  # the sentence repeats an earlier one


BASE = StyleHabits(lengths=(10, 25, 35, 15, 10, 5), nice=0.64, nasty=0.08, astray=0.08, again=0.06)
DEMONSTRATOR = StyleHabits(lengths=(1, 25, 72, 2), nice=0.92, nasty=0.01, astray=0.03, again=0.01)


def write_sentence(topic: str, habits: StyleHabits, random: Random) -> str:
    """Return a sentence in one of three tones, on the topic or on another one."""
    if random.random() < habits.astray:
        topic = random.choice(list(TOPICS))
    tone = random.choices(
        ("nice", "nasty", "plain"),
        (habits.nice, habits.nasty, 1 - habits.nice - habits.nasty),
    )[0]
    a, b = random.sample(ADJECTIVES[tone], 2)
    return random.choice(PATTERNS[tone]).format(
        t=topic, things=random.choice(TOPICS[topic]), a=a, b=b, when=random.choice(WHEN)
    )


def write_style_text(topic: str, habits: StyleHabits, random: Random) -> str:
    """Return a text about `topic` by a writer with these habits."""
    sentences: list[str] = []
    count = random.choices(range(1, len(habits.lengths) + 1), habits.lengths)[0]
    while len(sentences) < count:
        if sentences and random.random() < habits.again:
            sentences.append(random.choice(sentences))
        else:
            sentences.append(write_sentence(topic, habits, random))
    return " ".join(sentences)
