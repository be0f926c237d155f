"""A server with the OpenAI chat API as a judge.

https://platform.openai.com/docs/api-reference/chat/create; vLLM, llama.cpp and others offer it too.
The log-probs of the answer's few tokens are requested, and `reply` turns them into probabilities.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from annotated_types import Ge

from alignzoo.data import Message
from alignzoo.remote import ClientOptions, JsonClient, RateLimiter, check_url, find_model
from alignzoo_judges.judge import Answer, Judge, Question, Usage
from alignzoo_judges.reply import max_answer_tokens, parse_answer, parse_text, parse_usage

KEY_VARIABLE = "ALIGNZOO_JUDGE_KEY"  # the only source of the API key
USER = "the judge's server"  # begins every message
EXAMPLE_URL = "http://localhost:8000/v1"
MAX_LOGPROBS = 20  # per token: the API's limit
S = TypeVar("S")
T = TypeVar("T")


@dataclass
class ServerOptions(ClientOptions):
    """The options after the URL of a judge's server."""

    per_minute: Annotated[float, "requests to a server per minute (0: no limit)", Ge(0)] = 0
    price_in: Annotated[float, "price of a million tokens that a server reads", Ge(0)] = 0
    price_out: Annotated[float, "price of a million tokens that a server writes", Ge(0)] = 0


class ServerJudge(Judge):
    """A model on a server, which gets several questions at once and retries of failed requests."""

    def __init__(self, url: str, options: ServerOptions | None = None):
        self.options = options or ServerOptions()
        self.client = JsonClient(
            check_url(url, USER, EXAMPLE_URL, KEY_VARIABLE),
            USER,
            KEY_VARIABLE,
            self.options.timeout,
            self.options.retries,
            hint=hint_for,
            on_retry=self.count_retry,
            limiter=RateLimiter(self.options.per_minute),
        )
        self.lock = threading.Lock()  # of the ledger
        self.model = find_model(self.client, self.options.model)
        # The suffix sets these answers apart from those of versions that read only one token.
        self.identity = f"server {self.client.url} {self.model}, whole options"

    def answers(self, questions: Sequence[Question]) -> Iterator[Answer[list[float]]]:
        """Yield each answer when its reply arrives."""
        return self.map_concurrently(self.answer, questions)

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[Answer[str]]:
        """Yield each next turn when its reply arrives."""

        def write(dialogue: list[Message]) -> tuple[str, Usage]:
            reply, usage = self.chat(dialogue, max_new_tokens)
            return parse_text(reply), usage

        return self.map_concurrently(write, dialogues)

    def map_concurrently(
        self, function: Callable[[S], tuple[T, Usage]], items: Sequence[S]
    ) -> Iterator[Answer[T]]:
        """Yield the answer that `function` gets to each item, `options.requests` at once.

        After an error or Ctrl-C no request is started, but those in flight are waited for and
        yielded, so that their answers are not lost.
        """
        self.client.limiter.reset()
        pool = ThreadPoolExecutor(self.options.requests)
        futures: dict[Future[tuple[T, Usage]], int] = {}
        try:
            for index, item in enumerate(items):
                futures[pool.submit(function, item)] = index
            for future in as_completed(futures):
                yield Answer(futures.pop(future), *future.result())
        except (Exception, KeyboardInterrupt):
            self.client.limiter.stop()
            pool.shutdown(cancel_futures=True)
            for future, index in futures.items():
                if not future.cancelled() and future.exception() is None:
                    yield Answer(index, *future.result())
            raise
        finally:
            self.client.limiter.stop()
            pool.shutdown(cancel_futures=True)

    def answer(self, question: Question) -> tuple[list[float], Usage]:
        """Ask one question."""
        logprobs = {"logprobs": True, "top_logprobs": MAX_LOGPROBS}
        reply, usage = self.chat(question.messages, max_answer_tokens(question.options), **logprobs)
        return parse_answer(reply, question), usage

    def chat(self, messages: list[Message], max_tokens: int, **options: Any) -> tuple[Any, Usage]:
        """Return the reply to one greedy request, and the tokens that the server counted."""
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        reply = self.client.request("chat/completions", {**body, **options})
        return reply, Usage(0.0, *parse_usage(reply))

    def price(self, usage: Usage) -> float:
        """Return the price of tokens by the options of this judge."""
        read, written = usage.read * self.options.price_in, usage.written * self.options.price_out
        return (read + written) / 1e6

    def count_retry(self) -> None:
        """Count a retry in the ledger."""
        with self.lock:
            if self.ledger is not None:
                self.ledger.use_feedback("judge_retries", 1)


def hint_for(status: int | None, path: str) -> str | None:
    """Say what to do about no answer (status None), or a page that does not exist."""
    return "is the server up, and does the URL end in /v1?" if status in (None, 404) else None
