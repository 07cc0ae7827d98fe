"""The final answers in a growing text: where each one ends, and whether one repeats the one before it. Pure."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from jobs.document import Document
from jobs.trace.kinds import StepKind, kind_of

#: Characters after a heading within which its answer must end.
_REACH = 6000
#: Characters of the next paragraph that show whether it is a re-check.
_START = 64
#: Characters of the next paragraph that show how it starts.
_WORDS = 12
#: Headings of an answer of prose that is there twice: a third one ends the second copy.
_COPIES = 3
#: Characters of a third copy that show that the second one was no draft of a last answer.
_THIRD = 40
#: Answers to several questions may be the same.
_PART = re.compile(
    r"^\W*+(?:question|part|problem|task|exercise|item|image|figure|case)\s*+[^\w\n]?\s*+\w{1,4}\b"
    r"|^\W*+\(?[a-z0-9]{1,2}\)\s|第.{1,3}[题问部图]",
    re.IGNORECASE | re.MULTILINE,
)


def answer_end(document: Document, body: int, start: int) -> tuple[int | None, int]:
    """Return the end of the final answer at ``body``, None if it is not known to be whole, and where to read on.

    It is whole once text follows the paragraph with its box, or a paragraph before a re-check.

    Args:
        document: the text.
        body: where the answer begins.
        start: the start of the first paragraph that has not been read, at first the heading's.
    """
    for paragraph, following in itertools.pairwise(document.paragraphs(start)):
        end, after = paragraph[-1].end, following[0].start
        if len(document) - after <= _WORDS:
            break
        recheck = kind_of(document.text[after : after + _START]) is StepKind.RECHECK
        if recheck or _has_box(document, body, end):
            return end, start
        start = after
    return None, start


def _has_box(document: Document, start: int, end: int) -> bool:
    """Return whether a box begins in a part of the text."""
    boxes = document.boxes
    for index in range(len(boxes) - 1, -1, -1):
        if boxes[index].start < start:
            return False
        if boxes[index].start < end:
            return True
    return False


@dataclass
class _Section:
    """A final answer.

    Attributes:
        start: the start of its heading.
        body: where its answer begins.
        answer: its text without white space; None while it is not whole.
        end: the end of that text.
        read: the start of its first paragraph that is not read, at first ``start``.
    """

    start: int
    body: int
    answer: str | None = None
    end: int = 0
    read: int = 0


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
        #: The headings that were read.
        self._headings = 0
        #: The last three.
        self._sections: list[_Section] = []

    @property
    def begun(self) -> bool:
        """Whether the text has a final answer, so that a second one can follow."""
        return bool(self._sections)

    def see(self, document: Document) -> RepeatedAnswer | None:
        """Read the new end of a text; return the final answer that the one after it repeats."""
        headings = document.headings.settled
        for heading in headings[self._headings :]:
            self._headings += 1
            if heading.rank:
                # The text since the last call can have several answers.
                if repeated := self._repeated(document):
                    return repeated
                self._sections = [
                    *self._sections[-2:],
                    _Section(heading.start, heading.content, read=heading.start),
                ]
        return self._repeated(document)

    def _repeated(self, document: Document) -> RepeatedAnswer | None:
        """Return the last answer but one or two if it is there again."""
        if not self._sections or self._sections[-1].start < len(document) - 2 * _REACH:
            return None
        return self._boxed_again(document) or self._prose_again(document.text)

    def _boxed_again(self, document: Document) -> RepeatedAnswer | None:
        """Return the last answer but one if the last one has become whole and is the same."""
        last = self._sections[-1]
        if last.answer is not None:
            return None
        for section in self._sections:
            if section.answer is None and section.start >= len(document) - _REACH:
                _read_answer(section, document)
        if last.answer is None or len(self._sections) == 1:
            return None
        first = self._sections[-2]
        between = document.text[first.end : last.start]
        if first.answer != last.answer or first.end > last.start or _PART.search(between):
            return None
        return RepeatedAnswer(first.start, first.end, last.start - first.start)

    def _prose_again(self, text: str) -> RepeatedAnswer | None:
        """Return the last answer but two if its text up to the next heading is there again, and a third time begins."""
        if len(self._sections) < _COPIES:
            return None
        first, second, third = (section.start for section in self._sections)
        if second - first != third - second or len(text) - third < _THIRD:
            return None
        copy = text[first:second]
        if copy != text[second:third] or not (copy * 2).startswith(text[third : third + _THIRD]):
            return None
        return RepeatedAnswer(first, second, second - first)


def _read_answer(section: _Section, document: Document) -> None:
    """Take the text of a final answer that has become whole."""
    end, section.read = answer_end(document, section.body, section.read)
    if end is not None:
        section.answer, section.end = "".join(document.text[section.body : end].split()), end


def answer_before(text: str, at: int, until: int) -> int | None:
    """Return the end of the last final answer that begins before ``at`` and is whole, or None without one.

    Args:
        text: a text that repeats itself.
        at: the end of its first copy.
        until: the end of its second copy, up to which an answer that the first one's end cuts is read.
    """
    document = Document.of(text[:until])
    headings = [heading for heading in document.headings if heading.rank]
    before = [heading for heading in headings if heading.start < at]
    if not before:
        return None
    following = next((later.start for later in headings if later.start >= at), until)
    end, _ = answer_end(document, before[-1].content, before[-1].start)
    if end is not None:
        return min(end, following)
    # An answer of prose is everything up to the next heading.
    return following if following < until else None
