"""Several vLLM servers as one: rows are dealt round robin, and again if a server is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from alignzoo import BadInput
from alignzoo.remote import NoAnswer, Refused
from alignzoo.rollout import Completion, Sampling
from alignzoo_vllm.server import USER, Server

T = TypeVar("T")


class Servers:
    """Servers with the same weights, each of which gets up to `requests` requests at once.

    A server is lost when a request has failed in all of its attempts. The others then do its work,
    and it takes part again from the next step in which it answers. If none is left, `NoAnswer` is
    raised.
    """

    def __init__(self, servers: Sequence[Server], requests: int):
        if len({server.url for server in servers}) < len(servers):
            raise BadInput(f"{USER}: the option url names a server twice", hint="name each once")
        self.servers, self.requests = list(servers), requests
        self.lost: dict[Server, NoAnswer] = {}
        self.first = 0  # the number of the server that gets the first row
        self.note: Callable[[str], None] = lambda text: None  # shows a line to the user

    def check(self) -> None:
        """Raise `BadInput` if a server does not answer or serves another base."""
        for server in self.servers:
            server.check()

    def load(self, name: str, folder: Path) -> None:
        """Draw from these weights from now on, on every server that answers."""
        self.recover()
        self.run([(server, lambda server: server.load(name, folder)) for server in self.living()])
        self.living()

    def adopt(self, name: str) -> None:
        """Draw from the weights that another process has had loaded under this name."""
        self.recover()
        for server in self.servers:
            server.adopt(name)

    def draw(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling
    ) -> list[Completion]:
        """Draw one completion per prompt and seed.

        What a lost server has not answered is dealt to the others. Only a loss makes rows be dealt
        again, so that happens less often than there are servers.
        """

        def request(i: int) -> Callable[[Server], Completion]:
            return lambda server: server.complete(prompts[i], seeds[i], sampling)

        drawn: list[Completion | None] = [None] * len(prompts)
        while missing := [i for i, completion in enumerate(drawn) if completion is None]:
            servers = self.deal([prompts[i] for i in missing])
            found = self.run([(s, request(i)) for s, i in zip(servers, missing, strict=True)])
            for i, completion in zip(missing, found, strict=True):
                drawn[i] = completion
        return [completion for completion in drawn if completion is not None]

    def deal(self, prompts: Sequence[list[int]]) -> list[Server]:
        """Return the server of each prompt. Rows take turns.

        Neighbours with the same prompt are one row: its server computes that prompt once.
        """
        living, dealt = self.living(), []
        for row, (_, group) in enumerate(groupby(prompts), start=self.first):
            dealt += [living[row % len(living)] for _ in group]
        return dealt

    def run(self, tasks: Sequence[tuple[Server, Callable[[Server], T]]]) -> list[T | None]:
        """Return the result of each task on its server, None if that server is lost.

        Any other error than `NoAnswer` is raised, and the tasks that have not begun are left out.
        """
        known = {*self.lost}
        with ExitStack() as stack:
            pools = {
                server: stack.enter_context(ThreadPoolExecutor(self.requests))
                for server in {server for server, _ in tasks}
            }
            futures = [pools[server].submit(self.attempt, server, task) for server, task in tasks]
            try:
                results = [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()
        for server in self.lost.keys() - known:
            self.note(f"{self.lost[server].problem}; the servers that are left do its work")
        return results

    def attempt(self, server: Server, task: Callable[[Server], T]) -> T | None:
        """Return the result of a task on a server, or None if it is lost, then or before."""
        if server in self.lost:
            return None
        try:
            return task(server)
        except NoAnswer as error:
            self.lost[server] = error
            return None
        except Refused as error:
            error.where = server.url
            raise

    def living(self) -> list[Server]:
        """Return the servers that are not lost; raise `NoAnswer` if there are none."""
        living = [server for server in self.servers if server not in self.lost]
        if living:
            return living
        *_, last = self.lost.values()
        if len(self.servers) == 1:
            raise last
        reason = last.problem.removeprefix(f"{USER}: ")
        raise NoAnswer(
            f"{USER}: all {len(self.servers)} servers are lost, the last because of {reason}",
            hint=last.hint,
        )

    def recover(self) -> None:
        """Have the lost servers that answer again take part again."""
        for server in [*self.lost]:
            if server.answers():
                del self.lost[server]
                self.note(f"{USER}: {server.url} answers again")
