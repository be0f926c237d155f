"""`alignzoo chat`: a plain prompt loop; a run answers beside its base."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console

from alignzoo.cli.quiet import quiet
from alignzoo.cli.render import beside, clean
from alignzoo.cli.terminal import Terminal, console_for

if TYPE_CHECKING:
    from alignzoo.cli.app import Chat


class Conversation:
    """One history for each side: a model is never shown what the other one said."""

    def __init__(self, speaker: Any, options: Chat):
        self.speaker, self.options = speaker, options
        self.sides = (
            {"base": speaker.base_reply, "tuned": speaker.reply}
            if speaker.has_base
            else {"": speaker.reply}
        )
        self.reset()

    def reset(self) -> None:
        start = [{"role": "system", "content": self.options.system}] if self.options.system else []
        self.histories: dict[str, list[dict[str, str]]] = {side: list(start) for side in self.sides}

    def say(self, text: str) -> dict[str, str]:
        """The replies by side. They join the histories only when all of them are there."""
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


def chat_command(model: str, options: Chat, *, trust_remote_code: bool) -> None:
    with quiet() as log:
        ui = Terminal(log.err if options.prompt is not None else log.out)
        with ui.phase(f"loading {model}"):
            from alignzoo.cli.chat_model import Speaker

            speaker = Speaker(model, trust_remote_code=trust_remote_code)
    conversation = Conversation(speaker, options)
    console = console_for(sys.stdout)
    if options.prompt is not None:
        answer(console, conversation, options.prompt)
    else:
        talk(console, conversation)


def talk(console: Console, conversation: Conversation) -> None:
    """Until the end of the input. Ctrl-C stops a reply, and at the prompt leaves."""
    with suppress(ImportError):
        import readline  # noqa: F401  importing it gives `input` a history and editing keys

    asking = sys.stdin.isatty()
    if asking:
        console.print("/reset starts afresh, Ctrl-D quits", style="dim")
    while True:
        try:
            text = input("you> " if asking else "").strip()
        except EOFError:
            console.print()
            return
        if text == "/reset":
            conversation.reset()
            console.print("the conversation starts afresh", style="dim")
        elif text:
            try:
                answer(console, conversation, text)
            except KeyboardInterrupt:
                console.print("(stopped)", style="dim")


def answer(console: Console, conversation: Conversation, text: str) -> None:
    with quiet():
        replies = conversation.say(text)
    if len(replies) == 1:
        console.print(clean(replies[""]), soft_wrap=True)
    else:
        console.print(beside(replies, console.width))
