r"""Reads a growing text into blocks, headings, formulas, code and the ends of sentences. Pure.

Mathematics (``$…$``, ``$$…$$``, ``\(…\)``, ``\[…\]``, ``\begin{…}…\end{…}``) and code are never split, even if they
contain blank lines. A list, a table, displayed mathematics or a code block belongs to the paragraph before it, and a
title to the paragraph after it.

A delimiter that is not closed within :data:`REACH` characters is ordinary text: a thousand unclosed formulas cost no
more than none, and a missing bracket does not hide the rest of the text.

What an event means depends on a bounded number of characters after its start. The scanner settles an event as soon as
the text has them, and reads the rest again when more text has come.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TypeVar

from jobs.document import markup
from jobs.document.parts import Block, BlockKind, Heading, Parts, Span, SpanKind

_P = TypeVar("_P")

#: Maximum length of a formula or code block, in characters.
REACH = 4000
_INLINE_REACH = 400
_TITLE_REACH = 200
#: Characters after its start that decide what an event is, unless it opens a formula or starts a line.
_LOOKAHEAD = 128

# Each event starts with one of a few characters: ``re`` finds the next of them at once, and what surrounds it decides
# which event it is. A match of a run of characters can start only at the run's first character, and its length is
# bounded.
_EVENT = re.compile(
    r"[\n\\$`*.!?。！？](?:"  # noqa: RUF001 - Chinese punctuation
    rf"(?<=\n)(?P<line>)|(?<=\*)(?P<heading>{markup.INLINE_HEADING})"
    r"|(?<=\\)(?P<escape>[\\$`])"
    r"|(?P<display>(?<=\\)\[|(?<=\$)\$|(?<=\\)begin\{[A-Za-z]{1,20}\*?\})"
    r"|(?P<inline>(?<=\\)\(|(?<=\$)|(?<=`)(?<!``)`{0,39}+(?!`))"
    r"|(?P<stop>(?<=[.!?])(?<![.!?][.!?])[.!?]{0,39}+(?![.!?])[\"')\]*_”\u2019]{0,8}+(?=\s{1,40}+[^a-z\s]|\s{0,40}+\Z)"
    r"|(?<=[。！？])(?<![。！？][。！？])[。！？]{0,39}+(?![。！？])"  # noqa: RUF001 - Chinese punctuation
    rf"(?:{markup.NO_HEADING}[”\u2019」』）*_]){{0,8}}+))",  # noqa: RUF001 - Chinese punctuation
)
_LIST = re.compile(r"[ \t]{0,40}+(?:(?:[-*+•]|\d{1,3}[.)])[ \t]|\d{1,3}、)")
_TABLE = re.compile(r"[ \t]{0,40}+\|")
_FENCE = re.compile(r" {0,3}+(?P<mark>```|~~~)")
_FORMULA = re.compile(r"[ \t]{0,40}+(?:\\\[|\$\$|\\begin\{)")
_RULE = re.compile(
    r"[ \t]{0,3}+(?:-[ \t]*+){3,}+\Z|[ \t]{0,3}+(?:[*][ \t]*+){3,}+\Z|[ \t]{0,3}+(?:_[ \t]*+){3,}+\Z"
)
_BLANK = re.compile(r"\n[ \t\r]{0,40}+\n")
_FENCE_ENDS = {
    "`": re.compile(r"^ {0,3}+```{1,40}+[ \t\r]{0,40}+$", re.MULTILINE),
    "~": re.compile(r"^ {0,3}+~~~{1,40}+[ \t\r]{0,40}+$", re.MULTILINE),
}
_COLONS = (":", "：")  # noqa: RUF001 - a full-width colon


@dataclass
class _State:
    """Where a scan is.

    Attributes:
        position: everything before it has been read.
        line_start: whether a line starts at ``position``.
        kind: the kind of the open block, or None between two blocks.
        start: the open block's start.
        joined: whether it belongs to the same paragraph as the block before it.
        first: the start of its paragraph.
        listing: whether its paragraph has come to a list or table.
        titled: whether its paragraph consists of a title so far.
        last_end: the end of the block before it.
        visible_end: the index after the last visible character before ``settled``.
        settled: where the position was when the text was settled last.
    """

    position: int = 0
    line_start: bool = True
    kind: BlockKind | None = None
    start: int = 0
    joined: bool = False
    first: int = 0
    listing: bool = False
    titled: bool = False
    last_end: int = 0
    visible_end: int = 0
    settled: int = 0
    #: Closing delimiter -> the index up to which it does not occur.
    searched: dict[str, int] = field(default_factory=dict)

    def copy(self) -> _State:
        """Return an independent copy."""
        return dataclasses.replace(self, searched=dict(self.searched))


class BlockScanner:
    """Reads a growing text. :meth:`read` continues from where the text was settled."""

    def __init__(self) -> None:
        self.blocks: Parts[Block] = Parts()
        self.headings: Parts[Heading] = Parts()
        self.spans: Parts[Span] = Parts()
        #: The ends of sentences. A list, a table, a formula and code contain none.
        self.stops: Parts[int] = Parts()
        self._state = _State()

    def copy(self) -> BlockScanner:
        """Return an independent scanner that has read the same text."""
        scanner = BlockScanner()
        scanner.blocks, scanner.headings = self.blocks.copy(), self.headings.copy()
        scanner.spans, scanner.stops = self.spans.copy(), self.stops.copy()
        scanner._state = self._state.copy()
        return scanner

    def read(self, text: str) -> None:
        """Read ``text``, which starts with the text of the call before."""
        state = self._state
        _Scan(self, text, state, settled=True).run()
        state.visible_end = _visible_end(text, state, state.position)
        state.settled = state.position
        for parts in (self.blocks, self.headings, self.spans, self.stops):
            parts.pending.clear()
        _Scan(self, text, state.copy(), settled=False).run()

    @property
    def open_block(self) -> tuple[BlockKind, int, bool] | None:
        """The kind, the start and ``joined`` of the block whose start is settled and whose end is not."""
        state = self._state
        return None if state.kind is None else (state.kind, state.start, state.joined)


class _Scan:
    """One pass over the unread part of a text; with ``settled`` only as far as further text cannot change."""

    def __init__(self, scanner: BlockScanner, text: str, state: _State, *, settled: bool) -> None:
        self._text = text
        self._state = state
        self._settled = settled
        self._end = len(text)

        def of(parts: Parts[_P]) -> list[_P]:
            return parts.settled if settled else parts.pending

        self._blocks = of(scanner.blocks)
        self._headings = of(scanner.headings)
        self._spans = of(scanner.spans)
        self._stops = of(scanner.stops)

    def run(self) -> None:
        """Read to the end, or to the first event that is not settled."""
        state, text = self._state, self._text
        while True:
            while state.line_start:
                if not self._line():
                    return
            event = _EVENT.search(text, state.position)
            if event is None:
                break
            if self._open(event.start() + _LOOKAHEAD):
                break
            if not self._event(event):
                return
        if self._settled:
            state.position = max(state.position, self._end - _LOOKAHEAD)
            return
        state.position = self._end
        if state.kind is not None:
            self._close(self._end, closed=False)

    def _open(self, needed: int) -> bool:
        """Whether a decision that needs the text up to ``needed`` is not settled."""
        return self._settled and needed > self._end

    def _event(self, event: re.Match[str]) -> bool:
        """Read an event; return whether it is settled."""
        state = self._state
        match event.lastgroup:
            case "line":
                state.line_start = True
            case "heading":
                self._begin_final(markup.HeadingMatch(event.end(), 2, 0), event.start())
                self._begin(BlockKind.TEXT, event.end())
            case "display" | "inline":
                return self._span(event)
            case "stop" if not state.listing:
                self._stops.append(event.end())
        state.position = event.end()
        return True

    def _span(self, event: re.Match[str]) -> bool:
        """Read a formula or code in a line; return whether it is settled."""
        mark, after = event[0], event.end()
        if event.lastgroup == "display":
            end, kind = self._display_end(mark, after), SpanKind.DISPLAY
        else:
            end = self._inline_end(mark, after)
            kind = SpanKind.CODE if mark[0] == "`" else SpanKind.INLINE
        if end is None:
            self._state.position = event.start()
            return False
        if end > after:
            self._spans.append(Span(kind, event.start(), end))
        self._state.position = end
        return True

    # Lines.

    def _line(self) -> bool:
        """Read the start of a line; return whether it is settled."""
        state, text = self._state, self._text
        at = state.position
        newline = text.find("\n", at, at + markup.LINE)
        end = newline if newline >= 0 else min(at + markup.LINE, self._end)
        if newline < 0 and self._open(at + markup.LINE + 1):
            return False
        line = text[at:end]
        if not line.strip():
            ends = newline >= 0 or end == self._end
            if state.kind is not None and ends:
                self._close(at, closed=newline >= 0)
            # The line's end is the next event; a long run of white space goes on.
            state.line_start = not ends
            state.position = end
            return True
        fence = _FENCE.match(line)
        after = at + (fence.end() if fence else 0)
        code_end = self._fence_end(fence["mark"], after) if fence else after
        if code_end is None:
            return False
        state.line_start = False
        if code_end > after:
            self._begin(BlockKind.CODE, at)
            self._spans.append(Span(SpanKind.CODE, at, code_end))
            state.position = code_end
            return True
        self._begin_line(line, at, end)
        return True

    def _begin_line(self, line: str, at: int, end: int) -> None:
        """Begin or continue a block with a line that has visible text and is no code."""
        state, text = self._state, self._text
        heading = markup.heading(text, at, end)
        if heading is not None:
            state.position = heading.content
            # White space of all scripts: an ideographic space is no text.
            if all(rest.isspace() or rest in "*_#" for rest in text[heading.content : end]):
                self._begin_final(heading, at, alone=True)
                return
            self._begin_final(heading, at)
            # The rest of the line is a block of its own.
            lead = len(text[heading.content : end]) - len(text[heading.content : end].lstrip())
            self._begin(BlockKind.TEXT, heading.content + lead)
            return
        if _RULE.match(line):
            self._begin(BlockKind.RULE, at)
        elif _LIST.match(line):
            first = state.kind is None
            self._begin(BlockKind.LIST, at)
            # "1. **Forces**" is an item of a list, or the title of what follows.
            state.titled |= first and not state.joined and markup.TITLE.fullmatch(line) is not None
        elif markup.TITLE.fullmatch(line) and (line.lstrip()[:1] == "#" or state.kind is None):
            self._begin(BlockKind.TITLE, at)
        elif _TABLE.match(line):
            self._begin(BlockKind.TABLE, at)
        elif _FORMULA.match(line):
            self._begin(BlockKind.FORMULA, at)
        else:
            self._begin(BlockKind.TEXT, at)

    def _begin_final(self, heading: markup.HeadingMatch, at: int, *, alone: bool = False) -> None:
        """Begin the block of a heading, and end it unless it has the line ``alone``."""
        self._begin(BlockKind.FINAL if heading.rank else BlockKind.TITLE, at)
        self._headings.append(Heading(at, heading.content, heading.rank, heading.level))
        if not alone:
            self._close(heading.content, closed=True)

    def _begin(self, kind: BlockKind, at: int) -> None:
        """Begin a block at the start of a line, unless the line continues the open one."""
        state = self._state
        if state.kind is not None:
            alone = (BlockKind.FINAL, BlockKind.RULE, BlockKind.TITLE)
            if kind not in alone and state.kind not in alone:
                # A list after its introduction, without a blank line: one block.
                state.listing |= kind in (BlockKind.LIST, BlockKind.TABLE)
                state.titled = False
                return
            self._close(at, closed=True)
        joined = self._joins(kind, at)
        state.kind, state.start, state.joined = kind, at, joined
        if not joined:
            state.first, state.listing = at, False
        if kind is not BlockKind.RULE:
            state.titled = kind in (BlockKind.FINAL, BlockKind.TITLE) and (
                not joined or state.titled
            )
        state.listing |= kind in (BlockKind.LIST, BlockKind.TABLE)

    def _joins(self, kind: BlockKind, at: int) -> bool:
        """Whether a block that begins at ``at`` belongs to the paragraph of the block before it."""
        state, text = self._state, self._text
        if not state.last_end or kind is BlockKind.FINAL:
            return False
        if kind in (BlockKind.FORMULA, BlockKind.CODE, BlockKind.TABLE, BlockKind.RULE):
            return True
        if state.titled and at - state.first <= _TITLE_REACH:
            return True
        if kind is not BlockKind.LIST:
            return False
        return state.listing or text[
            max(state.first, state.last_end - 8) : state.last_end
        ].endswith(_COLONS)

    def _close(self, before: int, *, closed: bool) -> None:
        """End the open block before an index."""
        state = self._state
        if state.kind is None:
            raise AssertionError("no block is open")
        end = max(state.start, _visible_end(self._text, state, before))
        self._blocks.append(Block(state.kind, state.start, end, state.joined, closed))
        state.kind, state.last_end = None, end

    # Formulas and code: each returns the end of what is opened, the end of the opening delimiter if that opens
    # nothing, or None if further text decides.

    def _display_end(self, mark: str, after: int) -> int | None:
        closing = {"\\[": "\\]", "$$": "$$"}.get(mark) or mark.replace("begin", "end", 1)
        reach = after + REACH
        searched = self._state.searched
        at = self._text.find(closing, max(after, searched.get(closing, 0)), reach)
        if at >= 0:
            return None if self._open(at + len(closing)) else at + len(closing)
        searched[closing] = max(searched.get(closing, 0), min(reach, self._end) - len(closing))
        return None if self._open(reach) else after

    def _fence_end(self, mark: str, after: int) -> int | None:
        reach = after + REACH
        searched = self._state.searched
        closing = _FENCE_ENDS[mark[0]].search(self._text, max(after, searched.get(mark, 0)), reach)
        if closing is not None:
            return None if self._open(closing.end() + _LOOKAHEAD) else closing.end()
        searched[mark] = max(searched.get(mark, 0), min(reach, self._end) - _LOOKAHEAD)
        return None if self._open(reach + _LOOKAHEAD) else after

    def _inline_end(self, mark: str, after: int) -> int | None:
        """Inline mathematics or code ends in the same paragraph; two prices are not mathematics."""
        text = self._text
        closing = "\\)" if mark == "\\(" else mark
        reach = after + _INLINE_REACH
        at = text.find(closing, after, reach)
        if _BLANK.search(text, after, reach if at < 0 else at):
            return after
        if at < 0:
            return None if self._open(reach) else after
        end = at + len(closing)
        if self._open(end + 1):
            return None
        if mark == "$" and (
            text[after].isspace() or text[at - 1].isspace() or text[end : end + 1].isdigit()
        ):
            return after
        return end


def _visible_end(text: str, state: _State, before: int) -> int:
    """Return the index after the last visible character before an index, in time linear in what is not settled."""
    while before > state.settled and text[before - 1].isspace():
        before -= 1
    return before if before > state.settled else state.visible_end
