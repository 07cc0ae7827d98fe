"""What surrounds the text of an answer: Markdown, LaTeX, quotation marks, labels and final periods. Pure."""

from __future__ import annotations

import re

from jobs.document import markup

_STOPS = " .。"
_ABBREVIATION = re.compile(r"(?<![A-Za-z])[A-Za-z]\.(?:[A-Za-z]\.){1,8}[ ]*\Z")
_WRAPPINGS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**"))
#: The marks of a quotation, and of a list with one item.
_QUOTED = re.compile(r"^[ \t]*+>[ \t]?", re.MULTILINE)
_BULLET = re.compile(r"\A[-*+•][ \t]++(?=\S)")
#: What some models write after an answer, and before it.
_HOPE = re.compile(r"[ ]?I hope (?:it|this) is correct\b", re.IGNORECASE)
_RESTATED = re.compile(r"\A(?:the |my )?(?:final |correct )?answer is:?[ ]", re.IGNORECASE)
#: Code that is one line and no program.
_PLAIN_CODE = re.compile(
    r"```(?:te?xt|plaintext|markdown|latex|math)?[ \t]*\n(?P<content>[^\n`]+)\n```"
)
#: A label before a result.
_RESULT = re.compile(
    r"\A(?:\*\*)?(?:(?:final )?(?:result|output|solution)|final|(?:最终|最后)?(?:结果|结论))"
    r"(?:\*\*)?[:：](?:\*\*)?[ ]*",  # noqa: RUF001 - a full-width colon
    re.IGNORECASE,
)


def bare(section: str) -> str:
    """Return a section without an explanation, the marks of a quotation, of a list with one item, and of code."""
    text = section
    if (explained := markup.EXPLANATION.search(text)) is not None:
        text = text[: explained.start()]
    if (hope := _HOPE.search(text)) is not None:
        text = _RESTATED.sub("", text[: hope.start()])
    if _QUOTED.match(text):
        text = _QUOTED.sub("", text).strip()
    if "\n" not in text:
        text = _BULLET.sub("", text)
    if (fence := _PLAIN_CODE.fullmatch(text)) is not None:
        text = fence["content"]
    return unwrapped(text) if _single(text) else text


def after_label(paragraph: str) -> str:
    """Return what follows the label of a result, or the paragraph."""
    label = _RESULT.match(paragraph)
    return paragraph if label is None else unwrapped(paragraph[label.end() :])


def _single(text: str) -> bool:
    """Whether a text is one paragraph of one sentence."""
    return "\n\n" not in text and not re.search(r"[.!?。！？]\s", text.rstrip())  # noqa: RUF001 - Chinese punctuation


def unwrapped(text: str) -> str:
    """Return ``text`` without the Markdown and LaTeX around it and without a final period."""
    text = _stopless(text.strip())
    if text.count("**") == 1:  # The opening ones are before the heading: "**Final Answer: 6**".
        text = text.removesuffix("**").removeprefix("**").strip()
    for left, right in _WRAPPINGS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            inner = text[len(left) : -len(right)]
            if left not in inner and right not in inner:
                text = inner.strip()
    return _stopless(text)


def _stopless(text: str) -> str:
    """Return ``text`` without a final period, unless an abbreviation has it: p.m., U.S.A."""
    return text.rstrip() if _ABBREVIATION.search(text) else text.rstrip(_STOPS)
