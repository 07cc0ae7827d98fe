r"""Splits a trace into paragraphs and sentences, without splitting formulas or code. Pure.

Mathematics (``$…$``, ``$$…$$``, ``\(…\)``, ``\[…\]``, ``\begin{…}…\end{…}``) and code are never split, even if they
contain blank lines. A list, a table, displayed mathematics or a code block belongs to the paragraph before it, and a
title to the paragraph after it.

A delimiter that is not closed within :data:`REACH` characters is ordinary text: a thousand unclosed formulas cost no
more than none, and a missing bracket does not hide the rest of the steps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.answers import extraction

#: Maximum length of a formula or code block, in characters.
REACH = 4000
_INLINE_REACH = 400
_TITLE_REACH = 200

# All quantifiers that could match the same run of characters are possessive, and a match of a run can start only at
# its first character: the search takes linear time for any text.
_LIST = r"[ \t]*+(?:(?:[-*+•]|\d{1,3}[.)])[ \t]|\d{1,3}、)"
_TABLE = r"[ \t]*+\|"
_FENCE = r" {0,3}(?:```|~~~)"
_EVENT = re.compile(
    rf"(?P<heading>(?i:{extraction.HEADING.pattern}))"
    r"|(?P<escape>\\[\\$`])"
    r"|(?P<display>\\\[|\$\$|\\begin\{[A-Za-z]{1,20}\*?\})"
    rf"|^(?P<fence>{_FENCE})"
    rf"|^(?P<item>{_LIST}|{_TABLE})"
    r"|(?P<inline>\\\(|\$|(?<!`)`++)"
    r"|(?P<blank>\n(?:[ \t\r]*+\n)++)"
    r"|(?P<stop>(?<![.!?])[.!?]++[\"')\]*_”’]*+(?=\s++[^a-z\s]|\s*+\Z)|(?<![。！？])[。！？]++[”’」』）*_]*+)",  # noqa: RUF001 - Chinese punctuation
    re.MULTILINE,
)
_VISIBLE = re.compile(r"\S")
_BLANK = re.compile(r"\n[ \t\r]*+\n")
_FENCE_ENDS = {
    "`": re.compile(r"^ {0,3}```++[ \t\r]*+$", re.MULTILINE),
    "~": re.compile(r"^ {0,3}~~~++[ \t\r]*+$", re.MULTILINE),
}
_DISPLAY_ENDS = {"\\[": re.compile(r"\\\]"), "$$": re.compile(r"\$\$")}
_BLOCK = re.compile(rf"[ \t]*+(?:\\\[|\$\$|\\begin\{{)|{_FENCE}|{_TABLE}")
_ITEM = re.compile(_LIST)
_TITLE = re.compile(r"\s*+(?:#{1,6}[ \t][^\n]*+|(?:\d{1,3}[.)] )?\*\*[^*\n]++\*\*[:：]?)\s*+\Z")  # noqa: RUF001 - a full-width colon
_COLONS = (":", "：")  # noqa: RUF001 - same


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, including the lists, tables and blocks that belong to it.

    Attributes:
        sentences: (start, end) of each sentence, in characters of the text, without surrounding white space.
        final: whether it starts with the heading of the final answer.
        end: start of the next paragraph.
        settled: whether further text cannot change it.
    """

    sentences: tuple[tuple[int, int], ...]
    final: bool
    end: int
    settled: bool


def paragraphs(text: str, start: int = 0) -> Iterator[Paragraph]:
    """Yield the paragraphs of ``text`` from ``start``, which must be the end of a paragraph."""
    return _Layout(text, start).read()


class _Layout:
    """One pass over a text."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._cuts: list[int] = []
        self._final = False
        self._listing = False
        #: Whether an open delimiter may be closed by further text.
        self._open = False
        #: Closing pattern -> the index up to which it does not occur.
        self._searched: dict[object, int] = {}

    def read(self) -> Iterator[Paragraph]:
        position = self._start
        while (event := _EVENT.search(self._text, position)) is not None:
            position = event.end()
            # The heading's pattern has no groups, so every group is one of this pattern.
            match event.lastgroup:
                case "heading":
                    if _VISIBLE.search(self._text, self._start, event.start()):
                        yield self._paragraph(event.start())
                    self._final = True
                case "display" | "fence" | "inline":
                    position = self._closed(event)
                case "item":
                    self._listing = True
                case "stop" if not self._listing:
                    self._cuts.append(position)
                case "blank" if not self._continues(event):
                    yield self._paragraph(position)
        if _VISIBLE.search(self._text, self._start):
            self._open = True  # Further text may always continue the last paragraph.
            yield self._paragraph(len(self._text))

    def _paragraph(self, end: int) -> Paragraph:
        """Return the paragraph up to ``end``, and start the next one."""
        bounds = [self._start, *self._cuts, end]
        sentences = [
            trimmed
            for left, right in itertools.pairwise(bounds)
            if (trimmed := _trimmed(self._text, left, right)) is not None
        ]
        paragraph = Paragraph(tuple(sentences), self._final, end, settled=not self._open)
        self._start, self._cuts, self._final, self._listing = end, [], False, False
        return paragraph

    def _closed(self, event: re.Match[str]) -> int:
        """Return the end of what ``event`` opens, or the end of ``event`` if it opens nothing."""
        mark, after = event[0].strip(" "), event.end()
        if event.lastgroup == "inline":
            return self._inline_end(mark, after)
        if event.lastgroup == "fence":
            pattern = _FENCE_ENDS[mark[0]]
        elif mark.startswith("\\begin"):
            pattern = re.compile(re.escape(mark.replace("begin", "end", 1)))
        else:
            pattern = _DISPLAY_ENDS[mark]
        reach = after + REACH
        closing = pattern.search(self._text, max(after, self._searched.get(pattern, 0)), reach)
        if closing is not None:
            return closing.end()
        self._searched[pattern] = reach
        self._open |= reach > len(self._text)
        return after

    def _inline_end(self, mark: str, after: int) -> int:
        """Return the end of inline mathematics or code in the same paragraph; two prices are not mathematics."""
        closing = "\\)" if mark == "\\(" else mark
        reach = after + _INLINE_REACH
        at = self._text.find(closing, after, reach)
        if _BLANK.search(self._text, after, reach if at < 0 else at):
            return after
        if at < 0:
            self._open |= reach > len(self._text)
            return after
        end = at + len(closing)
        if mark == "$" and (
            self._text[after].isspace()
            or self._text[at - 1].isspace()
            or self._text[end : end + 1].isdigit()
        ):
            return after
        return end

    def _continues(self, blank: re.Match[str]) -> bool:
        """Whether the paragraph continues after a blank line."""
        text, before, after = self._text, blank.start(), blank.end()
        if _VISIBLE.search(text, self._start, before) is None:
            return False
        if _BLOCK.match(text, after):
            return True
        if before - self._start <= _TITLE_REACH and _TITLE.match(text, self._start, before):
            return True
        if not _ITEM.match(text, after):
            return False
        last = text[max(self._start, before - _TITLE_REACH) : before].rstrip()
        return self._listing or last.endswith(_COLONS)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return the bounds without surrounding white space, or None if there is only white space."""
    stripped = text[start:end].rstrip()
    leading = len(stripped) - len(stripped.lstrip())
    return (start + leading, start + len(stripped)) if leading < len(stripped) else None
