r"""The final answer inside a raw trace. Pure.

QVQ writes one text without think tags, ending in ``**Final Answer**`` (or ``**最终答案**``) and
``\\boxed{…}``. The order of the rules follows the evaluation harnesses of the Qwen family:

1. ``heading+boxed``: the last brace-balanced ``\\boxed`` after the last heading
2. ``heading``: the paragraph after the last heading
3. ``boxed``: the last balanced ``\\boxed`` anywhere
4. ``phrase``: "the answer is …", "答案是…"

An unterminated ``\\boxed{`` is no answer: it is how a trace ends that ran out of tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: The last one is no rule of this module: the answer was asked for as JSON, see :mod:`jobs.answers.values`.
Rule = Literal["heading+boxed", "heading", "boxed", "phrase", "json_schema"]

# A heading stands in one paragraph: so no blank line is in it. A line may be broken once.
_GAP = r"[^\S\n]*+\n?+[^\S\n]*+"
_FINAL = rf"(?:Final(?=\s){_GAP}Answer|最终答案|最終答案)"
# Every pattern is linear in the length of the text, whatever a looping model writes: quantifiers that
# could share a run of characters are possessive (``*+``), and a run is entered at its first character only.
#: The heading of a final answer.
HEADING = re.compile(
    rf"\*\*{_GAP}{_FINAL}\s*[:：]?\s*(?:\*\*)?\s*[:：]?|(?<!#)#++{_GAP}{_FINAL}\s*[:：]?",  # noqa: RUF001 - full-width colons are what the model writes
    re.IGNORECASE,
)
_PHRASE = re.compile(
    r"(?:\bthe\s+(?:final\s+)?answer\s+is|答案(?:是|为|：|:))\s*+[:：]?\s*+([^\n]+)",  # noqa: RUF001 - same
    re.IGNORECASE,
)
#: What the braces of a box are counted by. An escaped character, a brace among them, counts as nothing.
_BRACES = re.compile(r"(?P<box>(?<!\\)\\++boxed\s*+\{)|\\.|(?P<open>\{)|(?P<close>\})", re.DOTALL)
#: What Markdown draws a line with, and closes a heading with.
_RULER = re.compile(r"\A\s*+(?:[-*_]{3,}+|#++)[^\S\n]*+(?:\n|\Z)")
_STOPS = " .。"
_WRAPPINGS = (("\\[", "\\]"), ("\\(", "\\)"), ("$$", "$$"), ("$", "$"), ("**", "**"))


@dataclass(frozen=True)
class Answer:
    """The answer's text and the rule that found it."""

    text: str
    rule: Rule


def extract(trace: str) -> Answer | None:
    """Return the answer in ``trace`` (raw text), or None when it has none."""
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
    r"""Return what the last terminated, non-empty ``\\boxed{…}`` holds; of two in one another the inner one."""
    begun: list[int | None] = []  # Open braces: where a box's content begins, None for any other.
    last, found = -1, None
    for token in _BRACES.finditer(text):
        match token.lastgroup:
            case "box":
                begun.append(token.end())
            case "open":
                begun.append(None)
            case "close" if begun:
                start = begun.pop()
                if (
                    start is not None
                    and start > last
                    and (inner := text[start : token.start()].strip())
                ):
                    last, found = start, inner
    return found


def _unwrap(text: str) -> str:
    """Return ``text`` without the Markdown and LaTeX around it and without a final full stop."""
    text = text.strip().rstrip(_STOPS)
    if text.count("**") == 1:  # The other half was before the heading: "**Final Answer: 6**".
        text = text.removesuffix("**")
    for left, right in _WRAPPINGS:
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) + len(right):
            text = text[len(left) : -len(right)].strip()
    return text.rstrip(_STOPS)


def heading(trace: str) -> int | None:
    """Return where the last heading of a final answer begins in ``trace``, or None when it has none."""
    headings = list(HEADING.finditer(trace))
    return headings[-1].start() if headings else None
