"""What a reply of the chat interface says: probabilities of options, text, and tokens used."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_judges.judge import Question, unusable
from alignzoo_judges.numbers import normalised

# Behind an option: the end, or what begins another word. "10." is 10; "100", "1.5" and "As" are not
# 10, 1 and A.
BOUNDARY = r"(?!\w)(?![.,]\d)"


@dataclass(frozen=True)
class Place:
    """A place of a reply: the token that was written, and the log-probs (nats) of the likeliest."""

    written: str
    tops: dict[str, float]


def tokens_for(options: Sequence[str]) -> int:
    """The most tokens that an option may take: one a byte, and one of space before it."""
    return max(len(option.encode()) for option in options) + 1


def answer_in(reply: Any, question: Question) -> list[float]:
    """The probabilities of the options in a reply; NaN where it is none of them, or no reply.

    From the log-probs if there are any of an option, and else from what was written.
    """
    masses = masses_in(places_in(reply), question.options)
    if any(masses):
        return normalised([math.log(mass) if mass > 0 else -math.inf for mass in masses])
    said = option_in(text_in(reply), question.options)
    if said is None:
        return unusable(question)
    return [float(said == option) for option in question.options]


def masses_in(places: Sequence[Place], options: Sequence[str]) -> list[float]:
    """P(option) for each, not normalised: sums over the likely tokens that stand for it.

    Where several options begin with a token ("1", of "1" and "10"), what follows decides. That is
    known of the token that was written, by the log-probs at the next place; the mass of another
    one is left out, for nobody has seen what would have followed.
    """
    masses = dict.fromkeys(options, 0.0)
    said, p = "", 1.0  # what was written so far, and its probability
    for place in places:
        whole = {(said + token).strip() for token in place.tops}
        goes_on = False
        for token, logprob in place.tops.items():
            option = settled(said, token, options, whole)
            if option is not None:
                masses[option] += p * math.exp(min(logprob, 0.0))
            elif token == place.written:
                text = (said + token).lstrip()
                goes_on = not text or any(each.startswith(text) for each in options)
        if not goes_on:
            return list(masses.values())
        said = (said + place.written).lstrip()
        p *= math.exp(min(place.tops[place.written], 0.0))
    if said in masses:  # the reply ends here
        masses[said] += p
    return list(masses.values())


def settled(said: str, token: str, options: Sequence[str], whole: set[str]) -> str | None:
    """The option that it can only be once `token` follows what was said; None where it is none, or
    may still become another.

    `whole` are the texts that one of the likely tokens would make. A longer option that is among
    them is written in that way, and not by way of a shorter one.
    """
    text = (said + token).lstrip()
    begun = [option for option in options if text and option.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    found = option_in(text, options)
    return found if text != found or not token or whole.issuperset(begun) else None


def option_in(text: str, options: Sequence[str]) -> str | None:
    """The option that a text begins with; of several the longest, so that 10 is not 1."""
    matching = [option for option in options if re.match(re.escape(option) + BOUNDARY, text)]
    return max(matching, key=len, default=None)


def places_in(reply: Any) -> list[Place]:
    """The tokens of a reply; none where it has no log-probs."""
    found = []
    try:
        for each in reply["choices"][0]["logprobs"]["content"]:
            tops = {str(top["token"]): float(top["logprob"]) for top in each["top_logprobs"]}
            if "token" in each:
                tops.setdefault(str(each["token"]), float(each["logprob"]))
            likeliest = max(tops, key=lambda token: tops[token])
            found.append(Place(str(each.get("token", likeliest)), tops))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return []
    return found


def text_in(reply: Any) -> str:
    """The text of a reply; empty where there is none."""
    try:
        return str(reply["choices"][0]["message"].get("content") or "").strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def usage_in(reply: Any) -> tuple[int, int]:
    """The tokens that the server read and wrote, by its own count; 0 where it gives none."""
    try:
        usage = reply["usage"]
        return max(0, int(usage["prompt_tokens"])), max(0, int(usage.get("completion_tokens", 0)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0, 0
