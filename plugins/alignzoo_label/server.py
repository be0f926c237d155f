"""The page: one pair or one completion at a time, made on the server, and forms for the answers."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from urllib.parse import parse_qs

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from alignzoo import BadInput
from alignzoo.cli.render import clean
from alignzoo.data import Content
from alignzoo.errors import first_line
from alignzoo_label.guard import Guard, name_in
from alignzoo_label.session import Session
from alignzoo_label.summary import describe, summarise

PATIENCE = 2.0  # seconds that a page waits for a pair to be drawn before it says so
LONGEST_NOTE = 10_000  # characters
NOTICES = {
    "answered": "That pair was answered already, in another tab.",
    "nothing": "There is nothing to undo.",
    "undone": "Your last answer was taken back.",
}
# What the buttons say, the keys that press them, and how the keys are shown.
BUTTONS = {
    "pairs": (
        ("left", "Left is better", "ArrowLeft 1", "←"),
        ("tie", "Tie", "t", "T"),
        ("both-bad", "Both bad", "b", "B"),
        ("skip", "Skip", "s", "S"),
        ("right", "Right is better", "ArrowRight 2", "→"),
    ),
    "ratings": (
        ("bad", "Bad", "ArrowLeft 1", "←"),
        ("skip", "Skip", "s", "S"),
        ("good", "Good", "ArrowRight 2", "→"),
    ),
}


class Page:
    """The routes of the page, for a session. `who` is the name of a person who gives no other."""

    def __init__(self, session: Session, *, who: str, commands: Callable[[], list[str]], host: str):
        self.session, self.who, self.commands = session, who, commands
        self.host = host
        self.token = secrets.token_urlsafe(24)
        self.finish: Callable[[], None] = lambda: None  # ends the server
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("alignzoo_label"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["visible"] = clean
        self.template = environment.get_template("page.html")

    def app(self, port: int) -> ASGIApp:
        """Return the application, for the port that it will listen on."""
        # Cookies do not know ports: two servers on one machine need two names.
        self.cookie = f"alignzoo-label-{port}"
        routes = Starlette(
            routes=[
                Route("/", self.show),
                Route("/answer", self.answer, methods=["POST"]),
                Route("/undo", self.undo, methods=["POST"]),
                Route("/finish", self.end, methods=["POST"]),
                Route("/page.css", asset("page.css", "text/css")),
                Route("/page.js", asset("page.js", "text/javascript")),
            ]
        )
        return Guard(routes, token=self.token, host=self.host, cookie=self.cookie)

    def name_of(self, request: Request) -> str:
        """Return who makes a request."""
        return name_in(request, self.cookie) or self.who

    def may_finish(self, request: Request) -> bool:
        """Return whether a person may end the server: of several people, the one without a name."""
        return not name_in(request, self.cookie)

    def show(self, request: Request) -> Response:
        """Show what the person has to answer, or that there is nothing yet or nothing left."""
        session, source, who = self.session, self.session.source, self.name_of(request)
        showing = session.current(who)
        if showing is None and not source.done:
            source.wait_for(session.total() + 1, PATIENCE)
            showing = session.current(who)
        state = "answer" if showing else "end" if source.done else "wait"
        rows = [row for row in session.answers.rows() if row["who"] == who]
        summary = summarise(rows)
        text = self.template.render(
            state=state,
            mode=session.mode,
            showing=showing,
            messages=as_dialogue(showing.prompt) if showing else [],
            buttons=BUTTONS[session.mode],
            who=who,
            may_finish=self.may_finish(request),
            own=sum(summary.verdicts.values()),
            answered=session.answered(),
            total=session.total(),
            drawing=not source.done,
            consistency=summary.consistency,
            notice=NOTICES.get(request.query_params.get("notice", ""), ""),
            problem=first_line(source.error) if source.error else "",
            lines=describe(summary),
            commands=self.commands() if state == "end" else [],
            path=str(session.answers.path),
        )
        return HTMLResponse(text)

    async def answer(self, request: Request) -> Response:
        """Write an answer to the disk, and go on."""
        fields = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
        verdict, id, note = (fields.get(name, [""])[-1] for name in ("verdict", "id", "note"))
        note = note.replace("\r\n", "\n").strip()[:LONGEST_NOTE]
        who = self.name_of(request)
        try:
            fresh = await run_in_threadpool(self.session.answer, who, id, verdict, note)
        except ValueError:
            return PlainTextResponse("no such answer", 400)
        except OSError as error:
            return PlainTextResponse(f"Your answer was not saved: {error.strerror}", 500)
        return back("" if fresh else "answered")

    def undo(self, request: Request) -> Response:
        """Take the person's last answer back."""
        return back("undone" if self.session.undo(self.name_of(request)) else "nothing")

    def end(self, request: Request) -> Response:
        """End the server."""
        if not self.may_finish(request):
            return PlainTextResponse("the page is ended by who began it", 403)
        self.finish()
        return HTMLResponse(
            '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">'
            "<title>alignzoo label</title><p>All answers are saved. The terminal says how to go on."
        )


def asset(name: str, kind: str) -> Callable[[Request], Response]:
    """Return a route for a file of this package."""
    text = files("alignzoo_label").joinpath("templates", name).read_text(encoding="utf-8")
    return lambda request: Response(text, media_type=kind)


def back(notice: str) -> Response:
    """Return the way to the page, with a notice on it."""
    return RedirectResponse(f"/?notice={notice}" if notice else "/", 303)


def as_dialogue(prompt: Content) -> list[tuple[str, str]]:
    """Return a prompt as the roles and texts of its messages; a text has the role `prompt`."""
    if isinstance(prompt, str):
        return [("prompt", prompt)]
    return [(str(message["role"]), text_in(message.get("content"))) for message in prompt]


def text_in(content: object) -> str:
    """Return the content of a message as text; other contents than text as Python writes them."""
    return content if isinstance(content, str) else "" if content is None else repr(content)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raise `BadInput` if that is not possible."""
    try:
        (family, kind, number, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
        return listening
    except OSError as error:
        raise BadInput(
            f"cannot listen there: {error.strerror}",
            where=f"{host}:{port}",
            hint="choose another --port, or none for one that is free",
        ) from None


def url_of(page: Page, port: int) -> str:
    """Return the address of the page, with its token."""
    host = f"[{page.host}]" if ":" in page.host else page.host
    return f"http://{host}:{port}/?token={page.token}"


def make_server(page: Page, port: int) -> uvicorn.Server:
    """Return a server of the page, which runs until it is finished or a signal comes."""
    config = uvicorn.Config(
        page.app(port),
        lifespan="off",
        log_config=None,
        access_log=False,  # its lines would hold the token
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)

    def finish() -> None:
        server.should_exit = True

    page.finish = finish
    return server
