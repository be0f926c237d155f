"""A server that speaks the OpenAI chat interface as a judge.

https://platform.openai.com/docs/api-reference/chat/create, as vLLM, llama.cpp and others have it
too. The few tokens of an answer are asked for with the log-probs of the most likely ones; `reading`
makes probabilities of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt

from alignzoo.data.dialogue import Message
from alignzoo.errors import BadInput
from alignzoo.ledger import Cost
from alignzoo.remote import Pace, Refused, Remote, Unanswered, address
from alignzoo_judges.judge import Judge, Question
from alignzoo_judges.reading import answer_in, text_in, tokens_for, usage_in

KEY = "ALIGNZOO_JUDGE_KEY"  # the only place that a key is taken from
WHO = "the judge's server"
EXAMPLE = "http://localhost:8000/v1"
HINT = "is it there, and is it /v1?"
MOST = 20  # log-probs that the interface gives of a token, at most
S = TypeVar("S")
T = TypeVar("T")


@dataclass
class ServerOptions:
    """What can be said of a server behind its address: `URL,model=NAME,requests=4`."""

    model: Annotated[str | None, "which model of a server [default: its only one]"] = None
    timeout: Annotated[float, "seconds that a server may take for an answer", Gt(0)] = 60.0
    retries: Annotated[int, "attempts of a server's request after the first", Ge(0)] = 4
    requests: Annotated[int, "requests that a server has at once, at most", Ge(1)] = 16
    per_minute: Annotated[float, "requests that a server gets in a minute (0: no limit)", Ge(0)] = 0
    price_in: Annotated[float, "price of a million tokens that a server reads", Ge(0)] = 0
    price_out: Annotated[float, "price of a million tokens that a server writes", Ge(0)] = 0


class Server(Judge):
    """One model of a server, several questions at once, each again where it fails in passing."""

    def __init__(self, url: str, options: ServerOptions | None = None):
        self.options = options or ServerOptions()
        url = address(url, WHO, EXAMPLE)
        self.remote = Remote(
            url,
            WHO,
            KEY,
            self.options.timeout,
            self.options.retries,
            HINT,
            refusal=lambda status, path: HINT if status == 404 else None,
            again=self.count_retry,
            pace=Pace(self.options.per_minute),
        )
        self.lock = threading.Lock()  # of the ledger
        self.model = self.served()
        # What was kept before options of several tokens were read is not of use.
        self.identity = f"server {url} {self.model}, whole options"

    def served(self) -> str:
        """The model that is named, else the one that the server has; `BadInput` where nobody
        answers. A server need not have a list of its models where one is named."""
        names = []
        try:
            reply = self.remote.ask("models", attempts=1)
            names = [str(model["id"]) for model in reply["data"]]
        except Refused as error:
            if self.options.model is None or error.status not in (404, 405):
                raise BadInput(error.problem, hint=error.hint) from error
        except Unanswered as error:
            raise BadInput(error.problem, hint=error.hint) from error
        except (KeyError, TypeError):
            pass
        if self.options.model is not None:
            return self.options.model
        if len(names) != 1:
            raise BadInput(
                f"the judge's server has {len(names)} models, not one",
                where=self.remote.url,
                hint=f"name it: {self.remote.url},model={names[0] if names else 'NAME'}",
            )
        return names[0]

    def answers(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[float]]]:
        return self.several(self.answer, questions)

    def texts(
        self, dialogues: Sequence[list[Message]], max_new_tokens: int
    ) -> Iterator[tuple[int, str]]:
        return self.several(lambda each: text_in(self.ask_for(each, max_new_tokens)), dialogues)

    def several(self, one: Callable[[S], T], asked: Sequence[S]) -> Iterator[tuple[int, T]]:
        """`one` of each, as many at once as the server is to have at once.

        Where one fails for good, or the user interrupts, what is under way is waited for, so that
        its answers are not lost, and nothing is asked anew.
        """
        self.remote.pace.go()
        pool = ThreadPoolExecutor(self.options.requests)
        futures: dict[Future[T], int] = {}
        try:
            for number, each in enumerate(asked):
                futures[pool.submit(one, each)] = number
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except (Exception, KeyboardInterrupt):
            self.remote.pace.stop()
            pool.shutdown(cancel_futures=True)
            for future, number in futures.items():
                if not future.cancelled() and future.exception() is None:
                    yield number, future.result()
            raise
        finally:
            self.remote.pace.stop()
            pool.shutdown(cancel_futures=True)

    def answer(self, question: Question) -> list[float]:
        logprobs = {"logprobs": True, "top_logprobs": MOST}
        reply = self.ask_for(question.messages, tokens_for(question.options), **logprobs)
        return answer_in(reply, question)

    def ask_for(self, messages: list[Message], tokens: int, **more: Any) -> Any:
        body = {"model": self.model, "messages": messages, "max_tokens": tokens, "temperature": 0}
        reply = self.remote.ask("chat/completions", {**body, **more})
        self.charge(*usage_in(reply))
        return reply

    def charge(self, read: int, written: int) -> None:
        """Tokens that the server counted, and their price."""
        money = (read * self.options.price_in + written * self.options.price_out) / 1e6
        with self.lock:
            if self.ledger is not None:
                self.ledger.charge("judge", Cost(tokens=read + written))
                self.ledger.pay(money)

    def count_retry(self) -> None:
        with self.lock:
            if self.ledger is not None:
                self.ledger.use_feedback("judge_retries", 1)
