"""Text that a model or a file wrote, made safe to print."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional overrides among them), surrogates, and the separators that some
# terminals take for line ends.
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# Line ends and tabs are layout; the joiners hold emoji and some scripts together.
SAFE = frozenset("\n\t\u200c\u200d")


def clean(text: str) -> str:
    r"""The text with everything that could steer a terminal spelled out, as in `\x1b[31m`.

    Spelled out and not dropped, so that a reader sees what the model really wrote.
    """
    return "".join(
        char if char in SAFE or unicodedata.category(char) not in UNSAFE else _spelled(char)
        for char in text
    )


def _spelled(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def shorten(text: str, limit: int = 600) -> str:
    """The beginning of a long text, with a mark that there was more."""
    return text if len(text) <= limit else text[:limit].rstrip() + " …"
