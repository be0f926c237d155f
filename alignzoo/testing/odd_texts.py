"""Completions as no author expects them, and as every model writes some."""

from __future__ import annotations

ODD_TEXTS = {
    "an empty completion": "",
    "blanks": " \n\t ",
    "one character": "?",
    "a very long completion": "and so on, " * 500,
    "odd characters": "\U0001d518\U0001d52b \u202e\u05e2\u05d1\u202c \U0001f469\u200d\U0001f467 "
    "e\u0301 \u0000 \ufeff \ufffd \u00bd \u0663",
    "thousands of digits": f"The answer is {'7' * 5000}.",
    "odd numbers": "#### 1/0 and -0.0, 1e999, nan, -∞",
    "nested brackets": "[" * 500 + "\\boxed{" * 50,
    "JSON": '{"answer": [5, null, {"a": true}]}',
    "code": "```python\nimport os\n\ndef add(a, b):\n    return a + b\n```",
    "markup": "<think><think></answer><|endoftext|></s><script>alert(1)</script>",
}
