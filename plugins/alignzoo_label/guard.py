"""Who may ask for the page: holders of the token, from this page, by the name of this machine."""

from __future__ import annotations

import ipaddress
import secrets
from urllib.parse import quote, unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LONGEST_BODY = 2**20  # bytes of a request: a note, and little else
LONGEST_NAME = 80  # characters of a person's name
HEADERS = {
    # Nothing runs or is loaded but the script and the style of this server.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # with no-referrer, forms would have the origin null
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Refuse, with 403, what is not from the page of this server; add its headers to all answers.

    - The Host must be a name of this machine: another site may point its own name at 127.0.0.1
      (DNS rebinding), but its requests carry that name.
    - The Origin, which a browser sends with every form, must be this server.
    - A request needs the cookie, which is given for the token in the URL that the terminal shows.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str, cookie: str):
        self.app, self.token, self.host, self.cookie = app, token, host, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        request = HTTPConnection(scope)
        problem = self.refusal(scope["method"], request.headers)
        answer: ASGIApp
        if problem is None and self.opens(request):
            answer = self.welcome(request)
        elif problem is None and self.knows(request):
            answer = self.app
        else:
            answer = PlainTextResponse(problem or "open the address that the terminal shows", 403)
        await answer(scope, receive, send_with_headers)

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Return why a request is refused whoever makes it, or None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        name = name.strip("[]").lower()
        if name != self.host.lower() and not (is_loopback(self.host) and is_loopback(name)):
            return "this server has another name"
        if origin is None and method not in ("GET", "HEAD"):
            return "a form of this server names its origin"
        if origin is not None and origin != f"http://{host}":
            return "the request comes from another site"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LONGEST_BODY or "transfer-encoding" in headers:
            return "the request is too long"
        return None

    def opens(self, request: HTTPConnection) -> bool:
        """Return True for the URL with the token."""
        return request.url.path == "/" and self.is_token(request.query_params.get("token", ""))

    def knows(self, request: HTTPConnection) -> bool:
        """Return True for a request with the cookie."""
        return self.is_token(request.cookies.get(self.cookie, ""))

    def is_token(self, text: str) -> bool:
        """Compare a text with the token, in a time that tells nothing."""
        return secrets.compare_digest(text.encode(), self.token.encode())

    def welcome(self, request: HTTPConnection) -> Response:
        """Return a page that gives the cookies and leads on.

        A redirect would not do: a browser that came from elsewhere, such as a mail, would follow it
        without the strict cookie.
        """
        response = Response(
            '<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url=/">'
            '<title>alignzoo label</title><a href="/">Start</a>',
            media_type="text/html",
        )
        cookies = {self.cookie: self.token}
        if who := request.query_params.get("who", "").strip()[:LONGEST_NAME]:
            cookies[f"{self.cookie}-who"] = quote(who)
        for name, value in cookies.items():
            response.set_cookie(name, value, httponly=True, samesite="strict")
        return response


def name_in(request: HTTPConnection, cookie: str) -> str:
    """Return the name that a person gave in the URL, empty without one."""
    return unquote(request.cookies.get(f"{cookie}-who", ""))


def is_loopback(name: str) -> bool:
    """Return True for a name or an address of this machine alone."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
