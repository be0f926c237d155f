"""A server that speaks the OpenAI chat interface as a judge.

https://platform.openai.com/docs/api-reference/chat/create, as vLLM, llama.cpp and others have it
too. One token is asked for with the log-probs of the most likely ones; where the server gives none,
what it wrote is the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from alignzoo.data.dialogue import Message
from alignzoo.errors import BadInput, RunFailed
from alignzoo.judges.judge import Judge
from alignzoo.judges.numbers import normalised
from alignzoo.judges.question import Question, unusable
from alignzoo.remote import Remote, address

KEY = "ALIGNZOO_JUDGE_KEY"  # the only place that a key is taken from
MOST = 20  # log-probs that the interface gives of a token, at most
TIMEOUT, RETRIES, REQUESTS = 60.0, 4, 16
S = TypeVar("S")
T = TypeVar("T")


class Server(Judge):
    """One model of a server, several questions at once, each again where it fails in passing."""

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        requests: int = REQUESTS,
    ):
        who = "the judge's server"
        url = address(url, who, "http://localhost:8000/v1")
        self.remote = Remote(url, who, KEY, timeout, retries, "is it there, and is it /v1?")
        self.requests = requests
        self.model = model or self.served()
        self.identity = f"server {url} {self.model}"

    def served(self) -> str:
        """The one model that the server has."""
        try:
            names = [str(model["id"]) for model in self.remote.ask("models", attempts=1)["data"]]
        except RunFailed as error:
            raise BadInput(error.problem, where=error.where, hint=error.hint) from error
        except (KeyError, TypeError):
            names = []
        if len(names) != 1:
            raise BadInput(
                f"the judge's server has {len(names)} models, not one",
                where=self.remote.url,
                hint=f"name it: {self.remote.url},model={names[0] if names else 'NAME'}",
            )
        return names[0]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        return self.several(self.one, questions)

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        return self.several(lambda dialogue: self.text(dialogue, max_new_tokens), dialogues)

    def several(self, one: Callable[[S], T], asked: Sequence[S]) -> Iterator[tuple[int, T]]:
        """`one` of each, as many at once as the server is asked at once."""
        pool = ThreadPoolExecutor(self.requests)
        failed: BaseException | None = None
        try:
            futures = {pool.submit(one, each): number for number, each in enumerate(asked)}
            for future in as_completed(futures):
                if future.cancelled():
                    continue
                error = future.exception()
                if error is None:
                    yield futures[future], future.result()
                elif failed is None:
                    # What is under way is waited for, so that its answers are not lost.
                    failed = error
                    for other in futures:
                        other.cancel()
        finally:
            pool.shutdown(cancel_futures=True)
        if failed is not None:
            raise failed

    def text(self, dialogue: list[Message], max_new_tokens: int) -> str:
        body = {
            "model": self.model,
            "messages": dialogue,
            "max_tokens": max_new_tokens,
            "temperature": 0,
        }
        return said_in(self.remote.ask("chat/completions", body))

    def one(self, question: Question) -> list[float]:
        body = {
            "model": self.model,
            "messages": question.messages,
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": MOST,
        }
        return answer_in(self.remote.ask("chat/completions", body), question)


def answer_in(reply: Any, question: Question) -> list[float]:
    """The probabilities of the options in a reply; NaN where it is none of them, or no reply.

    Tokens that differ in space alone are one option. A rating of two digits that the server's
    tokenizer takes apart counts as its first digit: only one token is read.
    """
    text = said_in(reply)
    try:
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        known = [(str(each["token"]).strip(), float(each["logprob"])) for each in top]
    except (KeyError, IndexError, TypeError, ValueError):
        known = []
    masses = [
        math.fsum(math.exp(min(x, 0.0)) for token, x in known if token == option)
        for option in question.options
    ]
    if any(masses):
        return normalised([math.log(mass) if mass > 0 else -math.inf for mass in masses])
    said = text.rstrip(".):")
    if said not in question.options:
        return unusable(question)
    return [float(said == option) for option in question.options]


def said_in(reply: Any) -> str:
    """The text of a reply; empty where there is none."""
    try:
        return str(reply["choices"][0]["message"].get("content") or "").strip()
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""
