"""The prompt of a teacher that has seen more: a pure function on texts."""

from __future__ import annotations

import re
from typing import Any

from alignzoo.data import Content

PLACES = ("{prompt}", "{privilege}")  # of a template


def text_of(value: Any) -> str:
    """Return the value of a column as text: of messages what they say, "" for a missing one."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(str(each.get("content", "")) for each in value if isinstance(each, dict))
    return str(value).strip()


def privileged_prompt(prompt: Content, privilege: str, template: str) -> Content:
    """Return a prompt with the privileged text: a text, or messages whose last one has it.

    `{prompt}` in the template is the text of the prompt or of its last message, and `{privilege}`
    the privileged text, both as they are, braces included.
    """
    if isinstance(prompt, str):
        return fill(template, prompt, privilege)
    *earlier, last = prompt
    return [*earlier, {**last, "content": fill(template, last["content"], privilege)}]


def fill(template: str, prompt: str, privilege: str) -> str:
    """Return the template with both texts in their places."""
    texts = dict(zip(PLACES, (prompt, privilege), strict=True))
    return re.sub("|".join(map(re.escape, PLACES)), lambda found: texts[found[0]], template)
