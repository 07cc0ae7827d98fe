r"""Reads a growing text into its boxes. Pure."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from jobs.document import markup
from jobs.document.parts import Box, Parts

#: Characters after its start that decide what a token is.
_LOOKAHEAD = 160


class _Brace(NamedTuple):
    """An open brace, with those around it.

    Attributes:
        box: start of the box's command, or -1 for another brace.
        inner: start of what it contains.
        outer: the brace around it.
    """

    box: int
    inner: int
    outer: _Brace | None


@dataclass
class _State:
    """Where a scan is: its position, the open braces, and the start of the last box."""

    position: int = 0
    brace: _Brace | None = None
    last: int = -1
    #: Start of the last box that was opened.
    opened: int = -1


class BoxScanner:
    """Reads a growing text. :meth:`read` continues from where the text was settled."""

    def __init__(self) -> None:
        self.boxes: Parts[Box] = Parts()
        #: Start of the last box that was opened with a brace, or -1.
        self.opened = -1
        self._state = _State()

    def copy(self) -> BoxScanner:
        """Return an independent scanner that has read the same text."""
        scanner = BoxScanner()
        scanner.boxes, scanner.opened = self.boxes.copy(), self.opened
        scanner._state = dataclasses.replace(self._state)
        return scanner

    def read(self, text: str) -> None:
        """Read ``text``, which starts with the text of the call before."""
        self.boxes.pending.clear()
        end = len(text)
        _scan(text, self._state, self.boxes.settled, until=end - _LOOKAHEAD)
        self._state.position = max(self._state.position, end - _LOOKAHEAD)
        rest = dataclasses.replace(self._state)
        _scan(text, rest, self.boxes.pending, until=end)
        self.opened = rest.opened


def _scan(text: str, state: _State, boxes: list[Box], *, until: int) -> None:
    """Read the tokens that start before ``until``."""
    for token in markup.BRACES.finditer(text, state.position):
        if token.start() >= until:
            return
        state.position = token.end()
        match token.lastgroup:
            case "box":
                state.brace = _Brace(token.start(), token.end(), state.brace)
                state.opened = token.start()
            case "open":
                state.brace = _Brace(-1, token.end(), state.brace)
            case "bare" | "word":
                start, end = token.span("word")
                boxes.append(Box(token.start(), token.end(), start, end))
                state.last = start
            case "close" if state.brace is not None:
                brace, state.brace = state.brace, state.brace.outer
                if (
                    brace.box >= 0
                    and brace.inner > state.last
                    and text[brace.inner : token.start()].strip()
                ):
                    boxes.append(Box(brace.box, token.end(), brace.inner, token.start()))
                    state.last = brace.inner
            case _:
                pass
