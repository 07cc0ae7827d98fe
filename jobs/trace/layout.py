r"""Where a trace may be cut: paragraphs, and in them sentences; never inside of what belongs together. Pure.

Kept whole are mathematics (``$…$``, ``$$…$$``, ``\(…\)``, ``\[…\]``, ``\begin{…}…\end{…}``) and code, with blank
lines in it or not. A list, a table, displayed mathematics or a block of code belongs to the paragraph before it,
a title to the one after it.

What is opened and not closed within :data:`REACH` characters is ordinary text: so a model that opens a thousand
formulas costs no more than one that opens none, and one that forgets a bracket does not lose the rest of its steps.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.answers import extraction

#: Longest formula, or block of code, that is kept whole, in characters.
REACH = 4000
_INLINE_REACH = 400
_TITLE_REACH = 200

# All quantifiers that could share a run of characters are possessive, and a run is entered at its first
# character only: the search is linear in the text's length, whatever it holds.
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
    """A paragraph with all that belongs to it.

    Attributes:
        sentences: (start, end) of each, in characters of the text, without the white space between them.
        final: whether it begins with the heading of the final answer.
        end: where the next paragraph may begin.
        settled: whether more text cannot change it.
    """

    sentences: tuple[tuple[int, int], ...]
    final: bool
    end: int
    settled: bool


def paragraphs(text: str, start: int = 0) -> Iterator[Paragraph]:
    """Yield the paragraphs of ``text`` from ``start`` on, which has to be the end of one."""
    return _Layout(text, start).read()


class _Layout:
    """One reading of a text."""

    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._start = start
        self._cuts: list[int] = []
        self._final = False
        self._listing = False
        #: Whether something is open whose end may be still to come.
        self._open = False
        #: Up to where nothing was found that closes what such a mark opens.
        self._barren: dict[object, int] = {}

    def read(self) -> Iterator[Paragraph]:
        position = self._start
        while (event := _EVENT.search(self._text, position)) is not None:
            position = event.end()
            # The groups are ours, but for those inside the heading's pattern, which has none.
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
                case "blank" if not self._goes_on(event):
                    yield self._paragraph(position)
        if _VISIBLE.search(self._text, self._start):
            self._open = True  # More text may always go on with the last one.
            yield self._paragraph(len(self._text))

    def _paragraph(self, end: int) -> Paragraph:
        """Return what is between the last paragraph's end and ``end``, and begin the next one."""
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
        """Return where what ``event`` opens is closed; its own end when it opens nothing."""
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
        found = pattern.search(self._text, max(after, self._barren.get(pattern, 0)), reach)
        if found is not None:
            return found.end()
        self._barren[pattern] = reach
        self._open |= reach > len(self._text)
        return after

    def _inline_end(self, mark: str, after: int) -> int:
        """Return where a short piece of mathematics or code ends: in its own paragraph, and not as two prices do."""
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

    def _goes_on(self, blank: re.Match[str]) -> bool:
        """Whether the paragraph goes on after a blank line."""
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
    """Return the bounds without white space around, None when there is nothing else."""
    stripped = text[start:end].rstrip()
    begun = len(stripped) - len(stripped.lstrip())
    return (start + begun, start + len(stripped)) if begun < len(stripped) else None
