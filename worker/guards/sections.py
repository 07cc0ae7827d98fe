"""The final answers in a growing text: where each one ends, and whether one repeats the one before it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.answers import extraction
from jobs.trace.kinds import StepKind, kind_of

#: Characters after a heading within which its answer must end.
_REACH = 6000
#: The most characters of a heading that may be incomplete.
_HEADING = 64
#: Characters of the next paragraph that show how it starts.
_WORDS = 12
#: Headings of an answer of prose that is there twice: a third one ends the second copy.
_COPIES = 3
#: Characters of a third copy that show that the second one was no draft of a last answer.
_THIRD = 40
#: Without one of these signs there is no heading; most text has none.
_MARKUP = re.compile(r"[*#]")
_BLANK = re.compile(r"\n[^\S\n]*+\n\s*+")
#: Answers to several questions may be the same.
_PART = re.compile(
    r"^\W*+(?:question|part|problem|task|exercise|item|image|figure|case)\s*+[^\w\n]?\s*+\w{1,4}\b"
    r"|^\W*+\(?[a-z0-9]{1,2}\)\s|第.{1,3}[题问部图]",
    re.IGNORECASE | re.MULTILINE,
)


def headings(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the end of each heading of a final answer in ``text`` from ``start``."""
    for match in extraction.HEADING.finditer(text, start):
        yield match.span()


def answer_end(text: str, body: int, start: int | None = None) -> tuple[int | None, int]:
    """Return the end of the final answer at ``body``, None if it is not known to be whole, and where to read on.

    It is whole once text follows the paragraph with its box, or a paragraph before a re-check.

    Args:
        text: the text.
        body: the end of the answer's heading.
        start: the start of the first paragraph that has not been read.
    """
    start = _visible(text, body) if start is None else start
    while (blank := _BLANK.search(text, start)) is not None and len(text) - blank.end() > _WORDS:
        paragraph = text[start : blank.start()]
        # Without the word the search for a box would only cost time.
        if "boxed" in paragraph:
            answer = extraction.extract(paragraph)
            if answer is not None and answer.rule == "boxed":
                return blank.start(), start
        if kind_of(text[blank.end() : blank.end() + _HEADING]) is StepKind.RECHECK:
            return blank.start(), start
        start = blank.end()
    return None, start


def _visible(text: str, start: int) -> int:
    """Return the position of the first character from ``start`` that is no white space."""
    return len(text) - len(text[start:].lstrip())


@dataclass
class _Section:
    """A final answer.

    Attributes:
        start: the start of its heading.
        answer: its text without white space; None while it is not whole.
        end: the end of that text.
        read: the start of its first paragraph that is not read.
    """

    start: int
    answer: str | None = None
    end: int = 0
    read: int | None = None


@dataclass(frozen=True)
class RepeatedAnswer:
    """A final answer that repeats the one before it.

    Attributes:
        start: the start of the first one.
        end: the end of the first one.
        period: characters from the first one's start to the second one's.
    """

    start: int
    end: int
    period: int


class FinalAnswers:
    """Follows the final answers of a growing text, in time linear in its length."""

    def __init__(self) -> None:
        self._read = 0
        #: The last three.
        self._sections: list[_Section] = []

    def see(self, tail: str, base: int) -> RepeatedAnswer | None:
        """Read the new end of a text; return the final answer that the last one repeats.

        Args:
            tail: the end of the text.
            base: the position of its first character.
        """
        known = self._sections[-1].start if self._sections else -1
        recent = max(0, self._read - base - _HEADING)
        if _MARKUP.search(tail, recent):
            for start, _ in headings(tail, recent):
                if start + base > known:
                    self._sections = [*self._sections[-2:], _Section(start + base)]
        self._read = base + len(tail)
        if not self._sections or self._sections[-1].start < base:
            return None
        return self._boxed_again(tail, base) or self._prose_again(tail, base)

    def _boxed_again(self, tail: str, base: int) -> RepeatedAnswer | None:
        """Return the last answer but one if the last one has become whole and is the same."""
        last = self._sections[-1]
        if last.answer is not None:
            return None
        for section in self._sections:
            if section.answer is None and section.start >= base + max(0, len(tail) - _REACH):
                _read_answer(section, tail, base)
        if last.answer is None or len(self._sections) == 1:
            return None
        first = self._sections[-2]
        between = tail[max(0, first.end - base) : last.start - base]
        if first.answer != last.answer or first.end > last.start or _PART.search(between):
            return None
        return RepeatedAnswer(first.start, first.end, last.start - first.start)

    def _prose_again(self, tail: str, base: int) -> RepeatedAnswer | None:
        """Return the last answer but two if its text up to the next heading is there again, and a third time begins."""
        if len(self._sections) < _COPIES:
            return None
        first, second, third = (section.start - base for section in self._sections)
        if first < 0 or second - first != third - second or len(tail) - third < _THIRD:
            return None
        text = tail[first:second]
        if text != tail[second:third] or not (text * 2).startswith(tail[third : third + _THIRD]):
            return None
        return RepeatedAnswer(first + base, second + base, second - first)


def _read_answer(section: _Section, tail: str, base: int) -> None:
    """Take the text of a final answer that has become whole."""
    at = section.start - base
    body = next((end for start, end in headings(tail, at)), None)
    if body is None:
        return
    read = None if section.read is None else max(body, section.read - base)
    end, read = answer_end(tail, body, read)
    section.read = read + base
    if end is not None:
        section.answer, section.end = "".join(tail[body:end].split()), end + base


def answer_before(text: str, at: int, until: int) -> int | None:
    """Return the end of the last final answer that begins before ``at`` and is whole, or None without one.

    Args:
        text: a text that repeats itself.
        at: the end of its first copy.
        until: the end of its second copy, up to which an answer that the first one's end cuts is read.
    """
    before = list(headings(text[:at], 0))
    if not before:
        return None
    heading, body = before[-1]
    following = next((start for start, _ in headings(text[:until], body) if start > heading), until)
    end, _ = answer_end(text[:until], body)
    if end is not None:
        return min(end, following)
    # An answer of prose is everything up to the next heading.
    return following if following < until else None
