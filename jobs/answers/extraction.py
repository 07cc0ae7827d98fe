r"""The final answer inside a raw trace. Pure.

QVQ writes one text without think tags, ending in ``**Final Answer**`` (or ``**最终答案**``) and
``\\boxed{…}``. The order of the rules follows the evaluation harnesses of the Qwen family:

1. ``heading+boxed``: the last brace-balanced ``\\boxed`` after the last heading
2. ``heading``: the paragraph after the last heading
3. ``boxed``: the last balanced ``\\boxed`` anywhere
4. ``phrase``: "the answer is …", "答案是…"

An unterminated ``\\boxed{`` is not an answer: a trace that runs out of tokens ends in this way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: The last one is not a rule of this module: the answer was requested as JSON, see :mod:`jobs.answers.values`.
Rule = Literal["heading+boxed", "heading", "boxed", "phrase", "json_schema"]

# A heading is part of one paragraph, so it contains no blank line and at most one line break.
_GAP = r"[^\S\n]*+\n?+[^\S\n]*+"
_FINAL = rf"(?:Final(?=\s){_GAP}Answer|最终答案|最終答案)"
# Every pattern takes linear time for any text: quantifiers that could match the same run of characters are possessive
# (``*+``), and a match of a run can start only at its first character.
#: The heading of a final answer.
HEADING = re.compile(
    rf"\*\*{_GAP}{_FINAL}\s*[:：]?\s*(?:\*\*)?\s*[:：]?|(?<!#)#++{_GAP}{_FINAL}\s*[:：]?",  # noqa: RUF001 - full-width colons are what the model writes
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:\bthe\s+(?:final\s+)?answer\s+is|答案(?:是|为|：|:))\s*+[:：]?\s*+([^\n]+)",  # noqa: RUF001 - same
    re.IGNORECASE,
)
#: Tokens to count the braces of a box. Escaped characters, including braces, do not count.
_BRACES = re.compile(r"(?P<box>(?<!\\)\\++boxed\s*+\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
#: A Markdown rule, or the closing characters of a heading.
_RULER = re.compile(r"\A\s*+(?:[-*_]{3,}+|#++)[^\S\n]*+(?:\n|\Z)")
_STOPS = " .。"
_WRAPPINGS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**"))


@dataclass(frozen=True)
class Answer:
    """The answer's text and the rule that found it."""

    text: str
    rule: Rule


def extract(trace: str) -> Answer | None:
    """Return the answer in ``trace`` (raw text), or None if it has none."""
    headings = list(HEADING.finditer(trace))
    if headings:
        tail = trace[headings[-1].end() :]
        if (boxed := _last_boxed(tail)) is not None:
            return Answer(boxed, "heading+boxed")
        text = _unwrap(_RULER.sub("", tail, count=1).strip().split("\n\n")[0])
        if text and "\\boxed" not in text:
            return Answer(text, "heading")
    if (boxed := _last_boxed(trace)) is not None:
        return Answer(boxed, "boxed")
    phrases = _PHRASE.findall(trace)
    if phrases and (text := _unwrap(phrases[-1])) and "\\boxed" not in text:
        return Answer(text, "phrase")
    return None


def _last_boxed(text: str) -> str | None:
    r"""Return the content of the last terminated, non-empty ``\\boxed{…}``; of nested ones, the inner one."""
    open_: list[
        int | None
    ] = []  # Open braces: the start of a box's content, or None for other braces.
    last, content = -1, None
    for token in _BRACES.finditer(text):
        match token.lastgroup:
            case "box":
                open_.append(token.end())
            case "open":
                open_.append(None)
            case "close" if open_:
                start = open_.pop()
                if (
                    start is not None
                    and start > last
                    and (inner := text[start : token.start()].strip())
                ):
                    last, content = start, inner
    return content


def _unwrap(text: str) -> str:
    """Return ``text`` without the Markdown and LaTeX around it and without a final period."""
    text = text.strip().rstrip(_STOPS)
    if text.count("**") == 1:  # The opening ones are before the heading: "**Final Answer: 6**".
        text = text.removesuffix("**")
    for left, right in _WRAPPINGS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            text = text[len(left) : -len(right)].strip()
    return text.rstrip(_STOPS)


def heading(trace: str) -> int | None:
    """Return the start of the last heading of a final answer in ``trace``, or None if it has none."""
    headings = list(HEADING.finditer(trace))
    return headings[-1].start() if headings else None
