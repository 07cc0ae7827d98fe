r"""The regular expressions of headings, boxes and text commands. Pure.

No other module has patterns of these. Each takes linear time for any text: its quantifiers are bounded or possessive.
A match depends on a bounded number of characters, so that a growing text can be read to the end once.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Headings of a final answer.

#: Characters of a line that decide whether it is a heading.
LINE = 240
#: Quotation marks, bullets, numbers: ``> ``, ``- ``, ``1. ``.
_LEAD = r"[ \t>]{0,12}+(?:(?:[-*+•]|\d{1,2}[.)、])(?:[ \t]{1,4}+|(?<=、)))?+"
#: What emphasizes a heading. A line without it is no heading.
_HASH = r"(?P<hash>\#{1,6}+)[ \t]{0,8}+"
_OPEN = r"(?:\*{1,3}+|_{2,3}+|[【〖「\[]|\\(?:textbf|underline|(?:sub){0,2}section\*?|paragraph)\{)"
#: An emoji, a number or "Step 5:" before the words.
_ORNAMENT = (
    r"(?:[^\w\s\x00-\x7f【】〖〗「」]{1,3}+[ \t]{0,4}+)?+"  # noqa: RUF001 - brackets
    r"(?:(?:step[ \t]{1,2}+\d{1,2}|第[\d一二三四五六七八九十]{1,3}步|\d{1,2}(?=[.)、]))[ \t]{0,2}+[.):：、]?[ \t]{0,4}+)?+"  # noqa: RUF001 - full-width
    r"(?:(?:my|the|our|your|so|so[ \t]the)[ \t]{1,4}+)?+"
)
_WORDS = (
    r"(?:(?P<final>final[ \t\xa0]{1,8}+answers?|(?:最终|最後|最后|最終)(?:的)?(?:答案|回答|答复)|正确答案|正確答案)"
    r"|(?P<answer>(?:(?:correct|right|overall)[ \t]{1,4}+)?answers?|答案|回答|答|(?:最终|最後)?(?:结论|結論))"
    r"|(?P<conclusion>(?:final[ \t]{1,4}+)?conclusions?))(?![A-Za-z])"
)
_PARENTHESIS = r"(?:[ \t]{0,4}+[(（][^()（）\n]{1,60}+[)）])?+"  # noqa: RUF001 - full-width
_COLON = r"[ \t]{0,4}+(?P<colon>(?:\bis\b|\bare\b|是|为|為)?[ \t]{0,4}+[:：]|\bis\b|\bare\b|是|为|為)?+[ \t]{0,4}+"  # noqa: RUF001 - full-width
_COLON_INSIDE, _COLON_AFTER = (_COLON.replace("colon", name) for name in ("inside", "after"))
_CLOSE = r"(?P<close>\*{1,3}+|_{2,3}+|[】〗」\]]|\})?+"
_HEADING = re.compile(
    rf"{_LEAD}(?:{_HASH}(?P<both>{_OPEN})?+|(?P<open>{_OPEN}))[ \t]{{0,4}}+{_ORNAMENT}(?P<inner>{_OPEN})?+{_WORDS}"
    rf"{_PARENTHESIS}{_COLON_INSIDE}{_CLOSE}{_PARENTHESIS}(?P<hashes>[ \t]{{0,4}}+\#{{1,6}}+)?+{_COLON_AFTER}",
    re.IGNORECASE,
)
#: What an answer begins with after a heading without a colon: a formula, a number, a letter, bold text.
_VALUE = re.compile(
    r"\\(?:boxed|fbox|\(|\[|text|frac|d?frac)|\$|[-+\u2212]?\d|\*\*|`|[(（][A-Za-z0-9][)）]|[A-Za-z](?![A-Za-z'’])"  # noqa: RUF001 - full-width
)


class HeadingMatch(NamedTuple):
    """A heading at the beginning of a line: see :class:`jobs.document.parts.Heading`."""

    content: int
    rank: int
    level: int


def heading(text: str, at: int, end: int) -> HeadingMatch | None:
    """Return the heading of a final answer that the line from ``at`` is or begins with, or None.

    Args:
        text: contains the line.
        at: the line's start.
        end: the line's end, or ``at + LINE`` for a longer line.
    """
    match = _HEADING.match(text, at, end)
    if match is None:
        return None
    rest = match.end()
    empty = not text[rest:end].strip(" \t\r#*_")
    opened, closed = match["open"] or match["both"] or match["inner"], match["close"]
    introduced = match["after"] or match["inside"]
    if opened and not closed:
        # Markup that goes on: "**Final Answer: 6**". "**Answer the question**" is no heading.
        heads = introduced is not None and (empty or introduced[-1:] in ":：" or not introduced.isascii())  # noqa: RUF001
    elif introduced is not None and introduced[-1:] in ":：":  # noqa: RUF001 - a full-width colon
        heads = True
    elif introduced is not None:
        # "**Final answer** is 6" heads an answer, "**Final answer** is what we need" does not.
        heads = empty or _VALUE.match(text, rest) is not None or not introduced.isascii()
    else:
        heads = empty or (closed is not None and closed in "】〗」") or _VALUE.match(text, rest) is not None
    if not heads:
        return None
    rank = 2 if match["final"] else 1 if match["answer"] else 0
    return HeadingMatch(rest, rank, len(match["hash"] or ""))


#: Another title: a Markdown heading, or a line in bold.
TITLE = re.compile(
    r" {0,3}+\#{1,6}+[ \t][^\n]*+|[ \t]*+(?:\d{1,3}[.)] )?+(?:\*\*[^*\n]++\*\*|__[^_\n]++__)[:：]?[ \t\r]*+"  # noqa: RUF001 - a full-width colon
)
#: A title of what follows an answer: an explanation, a check.
AFTERWORD = re.compile(
    r"[\W_]*+(?:explanations?|reason(?:ing)?|justification|notes?|verification|check(?:ing)?|double[- ]check|summary|why"
    r"|steps?[ \t]by[ \t]step|solution|working|解析|解释|解釋|说明|說明|理由|验证|驗證|检验|检查|注|备注|分析|推理)(?![A-Za-z])",
    re.IGNORECASE,
)
#: The tags of sister models.
THOUGHT_END = "</think>"
ANSWER_TAGS = ("<answer>", "</answer>")

# Boxes.

#: A token of the braces of a text. Escaped characters, including braces, do not count.
BRACES = re.compile(
    r"(?P<box>(?<!\\)\\{1,8}+(?:boxed|fbox|framebox)\s{0,20}+\{)"
    r"|(?P<bare>(?<!\\)\\{1,8}+(?:boxed|fbox)(?:[ \t]{1,4}+|(?=\d))(?P<word>[-+]?\w{1,40}+(?:[.,/:]\d{1,20}+){0,3}+))"
    r"|\\.|(?P<open>\{)|(?P<close>\})",
    re.DOTALL,
)
#: The beginning of a box, closed or not.
BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])")
#: A text that ends inside of the command of a box, or in delimiters that hold nothing.
UNFINISHED = re.compile(r"(?:\\(?:b(?:o(?:x(?:e(?:d(?:[ \t]*+\{?)?)?)?)?)?)?|\\(?:f(?:b(?:o(?:x\{?)?)?)?)?)[^\S\n]*+\Z")
#: What stands around a box in a formula of its own: these delimiters go with the box.
BEFORE_BOX = re.compile(r"(?:\\\(|\\\[|\$\$?|\*\*)\s{0,20}+\Z")
AFTER_BOX = re.compile(r"\s{0,20}+(?P<stop>[.,;]?)\s{0,4}+(?:\\\)|\\\]|\$\$?|\*\*)")

# Text commands.

#: Commands whose argument is text.
TEXT_COMMAND = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|sc|normal|up)?|mathrm|mathbf|mathit|mathsf|mathtt|boldsymbol|operatorname|mbox|emph)\*?"
    r"\s{0,8}+\{(?P<inner>[^{}]{0,2000}+)\}"
)
