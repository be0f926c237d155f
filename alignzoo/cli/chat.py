"""`alignzoo chat`: a prompt loop, in which a run answers side by side with its base."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Gt, Le
from rich.console import Console

from alignzoo.cli.options import Generation
from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import beside, clean
from alignzoo.cli.terminal import Terminal, console_for
from alignzoo.errors import BadInput


@dataclass(kw_only=True)
class Chat(Generation):
    """Chat with a model, or with a run side by side with its base."""

    model: Annotated[str, "folder of a run, or a model: zoo-tiny, a name on the Hub, a folder"]
    max_new_tokens: Annotated[int, "maximum length of a reply in tokens", Gt(0), Le(10**6)] = 256
    system: Annotated[str | None, "system message"] = None
    prompt: Annotated[str | None, "answer this prompt and exit"] = None
    trust_remote_code: Annotated[bool, "run custom code that the model ships"] = False

    def main(self) -> None:
        """Load the model and answer one prompt, or prompts until the end of the input."""
        with quiet() as log:
            ui = Terminal(log.err if self.prompt is not None else log.out, log)
            with ui.phase(f"loading {self.model}"):
                from alignzoo.cli.chat_model import ChatModel

                model = ChatModel(self.model, trust_remote_code=self.trust_remote_code)
        conversation = Conversation(model, self)
        console = console_for(sys.stdout)
        if self.prompt is not None:
            answer(console, conversation, self.prompt)
        else:
            talk(console, conversation)


class Conversation:
    """A dialogue with one history per side, so that no model sees replies of the other."""

    def __init__(self, model: Any, options: Chat):
        self.options = options
        self.sides = (
            {"base": model.base_reply, "tuned": model.reply}
            if model.has_base
            else {"": model.reply}
        )
        self.reset()

    def reset(self) -> None:
        """Forget the dialogue, apart from the system message."""
        start = [{"role": "system", "content": self.options.system}] if self.options.system else []
        self.histories: dict[str, list[dict[str, str]]] = {side: list(start) for side in self.sides}

    def say(self, text: str) -> dict[str, str]:
        """Return the replies by side. The histories get them once every side has answered."""
        asked = {"role": "user", "content": text}
        replies = {
            side: reply(
                [*self.histories[side], asked],
                max_new_tokens=self.options.max_new_tokens,
                temperature=self.options.temperature,
                seed=self.options.seed,
            )
            for side, reply in self.sides.items()
        }
        for side, reply in replies.items():
            self.histories[side] += [asked, {"role": "assistant", "content": reply}]
        return replies


def talk(console: Console, conversation: Conversation) -> None:
    """Answer prompts until the end of the input. Ctrl-C stops a reply, or exits at the prompt."""
    with suppress(ImportError):
        import readline  # noqa: F401  importing it gives `input` a history and editing keys

    interactive = sys.stdin.isatty()
    if interactive:
        console.print("/reset starts over, Ctrl-D exits", style="dim")
    while True:
        try:
            text = input("you> " if interactive else "").strip()
        except EOFError:
            console.print()
            return
        if text == "/reset":
            conversation.reset()
            console.print("starting over", style="dim")
        elif text:
            try:
                answer(console, conversation, text)
            except KeyboardInterrupt:
                console.print("(stopped)", style="dim")
            except BadInput as error:  # the dialogue is too long, or the template refuses it
                if not interactive:
                    raise
                console.print(clean(error.message), style="dim")


def answer(console: Console, conversation: Conversation, text: str) -> None:
    """Print the reply, or the replies of both sides."""
    with quiet():
        replies = conversation.say(text)
    if len(replies) == 1:
        console.print(clean(replies[""]), soft_wrap=True)
    else:
        console.print(beside(replies, console.width))
