"""Parse a reply of the chat API: probabilities of the options, text, and tokens used."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignzoo_judges.judge import Question, normalise, unusable

# After an option: the end, or the start of another word. "10." is 10; "100", "1.5" and "As" are not
# 10, 1 and A.
BOUNDARY = r"(?!\w)(?![.,]\d)"


@dataclass(frozen=True)
class TokenChoice:
    """One position of a reply: the token written there, and the log-probs of the likely tokens."""

    token: str
    logprobs: dict[str, float]


def max_answer_tokens(options: Sequence[str]) -> int:
    """Return the most tokens that an option can take: one per byte, and one for a space before."""
    return max(len(option.encode()) for option in options) + 1


def parse_answer(reply: Any, question: Question) -> list[float]:
    """Return the probabilities of the options, or NaN if the reply is none of them.

    They come from the log-probs, or from the text if no option has a log-prob.
    """
    masses = option_masses(parse_choices(reply), question.options)
    if any(masses):
        return normalise([math.log(mass) if mass > 0 else -math.inf for mass in masses])
    answer = match_option(parse_text(reply), question.options)
    if answer is None:
        return unusable(question)
    return [float(option == answer) for option in question.options]


def option_masses(choices: Sequence[TokenChoice], options: Sequence[str]) -> list[float]:
    """Return P(option) for each option, not normalised: the sum over the tokens that mean it.

    If several options begin with a token ("1" begins "1" and "10"), the next token decides. Its
    log-probs are known only for the token that was written; the mass of any other such token is
    left out.
    """
    masses = dict.fromkeys(options, 0.0)
    prefix, p = "", 1.0  # the text written so far, and its probability
    for choice in choices:
        candidates = {(prefix + token).strip() for token in choice.logprobs}
        undecided = False
        for token, logprob in choice.logprobs.items():
            option = decide_option(prefix, token, options, candidates)
            if option is not None:
                masses[option] += p * math.exp(min(logprob, 0.0))
            elif token == choice.token:
                text = (prefix + token).lstrip()
                undecided = not text or any(each.startswith(text) for each in options)
        if not undecided:
            return list(masses.values())
        prefix = (prefix + choice.token).lstrip()
        p *= math.exp(min(choice.logprobs[choice.token], 0.0))
    if prefix in masses:  # the reply ends here
        masses[prefix] += p
    return list(masses.values())


def decide_option(
    prefix: str, token: str, options: Sequence[str], candidates: set[str]
) -> str | None:
    """Return the only option possible once `token` follows; None if it is none or still open.

    `candidates` are the texts that the likely tokens would make. If a longer option is one of them,
    the tokenizer writes that option so, and not by way of a shorter one.
    """
    text = (prefix + token).lstrip()
    begun = [option for option in options if text and option.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    option = match_option(text, options)
    return option if text != option or not token or candidates.issuperset(begun) else None


def match_option(text: str, options: Sequence[str]) -> str | None:
    """Return the longest option that the text begins with, so that 10 is not read as 1."""
    matching = [option for option in options if re.match(re.escape(option) + BOUNDARY, text)]
    return max(matching, key=len, default=None)


def parse_choices(reply: Any) -> list[TokenChoice]:
    """Return the tokens of a reply, or nothing if it has no log-probs."""
    choices = []
    try:
        for entry in reply["choices"][0]["logprobs"]["content"]:
            logprobs = {str(top["token"]): float(top["logprob"]) for top in entry["top_logprobs"]}
            if "token" in entry:
                logprobs.setdefault(str(entry["token"]), float(entry["logprob"]))
            most_likely = max(logprobs, key=lambda token: logprobs[token])
            choices.append(TokenChoice(str(entry.get("token", most_likely)), logprobs))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return []
    return choices


def parse_text(reply: Any) -> str:
    """Return the text of a reply, or "" if it has none."""
    try:
        return str(reply["choices"][0]["message"].get("content") or "").strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def parse_usage(reply: Any) -> tuple[int, int]:
    """Return the tokens read and written as the server counts them, or 0 if it does not."""
    try:
        usage = reply["usage"]
        return max(0, int(usage["prompt_tokens"])), max(0, int(usage.get("completion_tokens", 0)))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return 0, 0
