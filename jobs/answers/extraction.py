r"""The final answer inside a raw trace. Pure.

QVQ writes one text without think tags, ending in ``**Final Answer**`` (or ``**答案**``) and ``\\boxed{…}``; its sisters
write other forms. The rules, in order:

1. ``answer_tag``: between ``<answer>`` and ``</answer>``, or ``<conclusion>`` and ``</conclusion>``
2. ``heading+boxed``: the boxes in the first paragraph with boxes after the last heading of a final answer
3. ``heading``: all that follows that heading
4. ``boxed``: the boxes of the last paragraph with boxes
5. ``label``: a line "Answer: …"; ``phrase``: a sentence "the answer is …", "答案是…"
6. ``whole``: the last line if it is an option or a number, which precedes rule 5; the whole text, or its last
   paragraph after a thought

Of a text that the model has not ended, only what is closed counts: a box, or the whole paragraphs after a heading. An
unfinished answer after the last heading hides what stands before that heading. The text after ``</think>`` is read
first.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from jobs.answers import model_refusals, statements, wording, wrapping
from jobs.answers.typesetting import plain
from jobs.document import Block, BlockKind, Box, Document, Heading, markup
from jobs.document.model import first_from, paragraphs_of
from jobs.trace.kinds import reopens

#: An answer that was requested as JSON; no rules of this module, see :mod:`jobs.answers.values`.
JsonRule = Literal["json_schema", "json_object"]
Rule = (
    Literal["answer_tag", "heading+boxed", "heading", "boxed", "label", "phrase", "whole"]
    | JsonRule
)

_COLONS = markup.COLONS
_ENDINGS = (*".!?。！？", *_COLONS)  # noqa: RUF001 - Chinese punctuation
#: The most characters of an answer that follows its introduction in a block of its own.
_INTRODUCED = 300
#: The most characters of an output that is an answer as a whole; of a longer one, its conclusion is the answer if it
#: has one.
_WHOLE = 4000
#: The rank of the heading "Final Answer".
_STRONG = 2
#: A number that is a line, in digits or words, with a short unit.
_NUMBER = re.compile(
    r"[-+\u2212]?[$€£¥]?\d[\d,.:/]{0,20}+(?: ?(?:%|°[CF]?|[^\W\d_]{1,12}))?|one|two|three|four|five|six|seven|eight"
    r"|nine|ten|eleven|twelve|zero|none|yes|no|[零一二两三四五六七八九十百]{1,6}[^\W\d_]?|是|否",
    re.IGNORECASE,
)
#: A few words: no sentence, so that a period after them ends none.
_FEW_WORDS = re.compile(
    r"[^\s\u4e00-\u9fff]{1,40}(?: [^\s\u4e00-\u9fff]{1,40}){0,2}|[^\s。]{1,4}。"
)
_VISIBLE = re.compile(r"[^\W_]")


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        text: what a person reads: without typesetting; mathematics is LaTeX.
        rule: the rule that found it.
        tex: the original, where it differs from ``text``, or None.
    """

    text: str
    rule: Rule
    tex: str | None = None


def extract(source: str | Document, *, ended: bool) -> Answer | None:
    """Return the answer in a trace, or None if it has none.

    Args:
        source: the raw text, or its document.
        ended: whether the model has ended the text. If not, it was cut at its limit of tokens or by a guard.
    """
    document = source if isinstance(source, Document) else Document.of(source)
    if ended and model_refusals.refuses(document.text):
        return None
    thought = document.text.rfind(markup.THOUGHT_END)
    if thought >= 0:
        after = Document.of(document.text[thought + len(markup.THOUGHT_END) :])
        answer = _Reading(after, ended=ended).answer()
        if answer is not None or not ended:
            return answer
    return _Reading(document, ended=ended).answer()


def heading(source: str | Document) -> int | None:
    """Return the start of the last heading of a final answer in a trace, or None if it has none."""
    document = source if isinstance(source, Document) else Document.of(source)
    chosen = _headings(document)
    return chosen[-1].start if chosen else None


def _headings(document: Document) -> list[Heading]:
    """Return the headings that announce an answer, in order: the ones of the highest rank, and those after them."""
    ranked = [heading for heading in document.headings if heading.rank]
    strong = [heading for heading in ranked if heading.rank >= _STRONG]
    if not strong:
        return ranked
    return [*strong, *(weak for weak in ranked if weak.start > strong[-1].start)]


class _Reading:
    """Reads one document."""

    def __init__(self, document: Document, *, ended: bool) -> None:
        self._document = document
        self._text = document.text
        self._ended = ended
        self._boxes = list(document.boxes)

    def answer(self) -> Answer | None:
        """Return the answer by the first rule that finds one."""
        if (answer := self._tagged()) is not None:
            return answer
        headings = self._candidates()
        for heading in headings:
            answer = self._section(heading)
            if answer is not None or not self._ended:
                return answer
        if (answer := self._boxed()) is not None or not self._ended:
            return answer
        return (
            self._last_line()
            or self._stated()
            or self._concluded()
            or (None if headings else self._whole())
        )

    # Tags.

    def _tagged(self) -> Answer | None:
        bounds = self._tags()
        if bounds is None:
            return None
        start, end = bounds
        boxes = [box for box in self._boxes if start <= box.start < end]
        if boxes:
            return self._of_boxes(boxes, "answer_tag")
        return self._of(wrapping.unwrapped(self._text[start:end]), "answer_tag")

    def _tags(self) -> tuple[int, int] | None:
        """Return the bounds of the text between the last tags; the model may have ended the text inside of them."""
        opened: re.Match[str] | None = None
        bounds: tuple[int, int] | None = None
        for tag in markup.ANSWER_TAG.finditer(self._text):
            if self._text[tag.start() - 1 : tag.start()] == "`" == self._text[tag.end() :][:1]:
                continue  # The text speaks of the tag.
            if not (tag["closing"] or tag["end"]):
                opened = tag
            elif (
                opened is not None
                and (opened["name"] or "").casefold() == (tag["name"] or "").casefold()
            ):
                bounds, opened = (opened.end(), tag.start()), None
        if opened is not None and self._ended and self._has_text(opened.end(), len(self._text)):
            end = markup.OPEN_TAG.search(self._text, opened.end())
            bounds = (opened.end(), end.start() if end else len(self._text))
        return bounds

    # Headings.

    def _candidates(self) -> list[Heading]:
        """Return the headings whose section may be the answer, the best one first."""
        headings = _headings(self._document)
        strong = [heading for heading in headings if heading.rank >= _STRONG]
        if not strong:
            return headings[::-1]
        weak = headings[len(strong) :]
        if weak and (
            self._reopened(strong[-1].content, weak[-1].start)
            or not self._has_text(strong[-1].content, weak[0].start)
        ):
            return [*weak[::-1], *strong[::-1]]
        return [*strong[::-1], *weak[::-1]]

    def _has_text(self, start: int, end: int) -> bool:
        return _VISIBLE.search(self._text, start, end) is not None

    def _reopened(self, start: int, end: int) -> bool:
        """Whether a paragraph between two places takes back what was said before."""
        return any(
            reopens(self._text[paragraph[0].start : paragraph[0].end][:400])
            for paragraph in self._document.paragraphs(start)
            if paragraph[0].start < end
        )

    def _section(self, heading: Heading) -> Answer | None:
        """Return the answer after a heading."""
        paragraphs = list(self._section_paragraphs(heading))
        boxes: list[Box] = []
        reopened = False
        for paragraph in paragraphs:
            reopened |= self._reopens(paragraph)
            within = self._boxes_in(paragraph)
            if within and (not boxes or reopened):
                boxes, reopened, boxed = within, False, paragraph
        if boxes:
            if (
                not self._ended
                and self._document.opened_box > boxes[-1].start
                and self._document.opened_box < boxed[-1].end
            ):
                return None
            return self._of_boxes(boxes, "heading+boxed", boxed)
        return self._of_prose(heading, paragraphs)

    def _section_paragraphs(self, heading: Heading) -> Iterator[list[Block]]:
        """Return the paragraphs of the answer after a heading, without Markdown rules."""
        return paragraphs_of(
            block for block in self._section_blocks(heading) if block.kind is not BlockKind.RULE
        )

    def _section_blocks(self, heading: Heading) -> Iterator[Block]:
        blocks = self._document.blocks
        for index in range(first_from(blocks, heading.start) + 1, len(blocks)):
            block = blocks[index]
            if block.kind is BlockKind.FINAL or self._ends_section(heading, block):
                return
            yield block

    def _ends_section(self, heading: Heading, block: Block) -> bool:
        line = self._text[block.start : min(block.end, block.start + markup.LINE)]
        if block.kind is not BlockKind.TITLE:
            return (
                line.startswith("**")
                and markup.AFTERWORD.match(line) is not None
                and ":" in line[:40]
            )
        if markup.AFTERWORD.match(line):
            return True
        level = len(line.lstrip()) - len(line.lstrip().lstrip("#"))
        return bool(heading.level) and 0 < level <= heading.level

    def _reopens(self, paragraph: Sequence[Block]) -> bool:
        return reopens(self._text[paragraph[0].start : paragraph[0].end][:400])

    def _of_prose(self, heading: Heading, paragraphs: Sequence[list[Block]]) -> Answer | None:
        """Return the answer of a section without boxes: all of it, up to a re-check."""
        blocks = self._document.blocks
        taken: list[list[Block]] = []
        for paragraph in paragraphs:
            if self._reopens(paragraph):
                break
            closed = paragraph[-1].closed and (
                paragraph[-1].end < blocks[-1].start or not blocks[-1].end > paragraph[-1].end
            )
            if self._ended or closed:
                taken.append(paragraph)
        while taken and self._text[taken[-1][0].start : taken[-1][-1].end].rstrip(" *_").endswith(
            _COLONS
        ):
            taken.pop()
        if not taken:
            return None
        text = self._text[taken[0][0].start : taken[-1][-1].end]
        if not self._ended and (
            heading.rank < _STRONG or wording.announces(text) or wording.thinks(text)
        ):
            return None
        copula = self._text[heading.start : heading.content].rstrip(" *_")
        if (
            not copula.endswith(_COLONS)
            and copula.endswith(("is", "are", "是", "为", "為"))
            and statements.about(text)
        ):
            return None
        return self._of(wrapping.bare(text), "heading")

    # Boxes.

    def _boxes_in(self, paragraph: Sequence[Block]) -> list[Box]:
        first, last = (
            bisect.bisect_left(self._boxes, at, key=lambda box: box.start)
            for at in (paragraph[0].start, paragraph[-1].end)
        )
        return self._boxes[first:last]

    def _boxed(self) -> Answer | None:
        """Return the boxes of the last paragraph with boxes."""
        if not self._boxes:
            return None
        last = self._boxes[-1]
        if not self._ended and (
            self._document.opened_box > last.start or self._reopened(last.end, len(self._text))
        ):
            return None
        paragraph = next(
            (blocks for blocks in self._document.paragraphs() if blocks[-1].end > last.start), None
        )
        if paragraph is None:
            return self._of_boxes([last], "boxed")
        boxes = self._boxes_in(paragraph) or [last]
        # Boxes in several sentences are results on the way.
        start, end = self._sentence(boxes[0].start, boxes[-1].end)
        if any(start < stop < boxes[-1].start for stop in self._document.stops):
            boxes = [last]
        return self._of_boxes(boxes, "boxed", paragraph, (start, end))

    def _sentence(self, start: int, end: int) -> tuple[int, int]:
        """Return the bounds of the sentences around two places."""
        stops = list(self._document.stops)
        before = [stop for stop in stops if stop <= start]
        after = [stop for stop in stops if stop >= end]
        return (before[-1] if before else 0, after[0] if after else len(self._text))

    def _of_boxes(
        self,
        boxes: Sequence[Box],
        rule: Rule,
        paragraph: Sequence[Block] = (),
        within: tuple[int, int] | None = None,
    ) -> Answer | None:
        """Return the content of the only box, or the paragraph with several boxes as a whole."""
        contents = [self._text[box.inner_start : box.inner_end].strip() for box in boxes]
        texts = [plain(content, formula=True) for content in contents]
        if len(set(texts)) == 1 or not paragraph:
            return _answer(contents[-1], texts[-1], rule)
        start, end = paragraph[0].start, paragraph[-1].end
        if within is not None:
            start, end = max(start, within[0]), min(end, within[1])
        if self._text[start:end].count("**") % 2:
            # The opening ones are before the heading: "**Final Answer: …**".
            end = start + len(self._text[start:end].rstrip().removesuffix("**"))
        return self._of(self._text[start:end], rule, boxed=True)

    # Options and numbers.

    def _last_line(self) -> Answer | None:
        """Return the last line if it is an option, or a number after a sentence, and not the end of a list."""
        lines = [line.strip() for line in self._text.splitlines() if line.strip()][-5:]
        while len(lines) > 1 and wording.offers(lines[-1]):
            lines.pop()
        if lines[-1:] == ["```"] and lines[-3:-2] and lines[-3].startswith("```"):
            lines = [*lines[:-3], lines[-2]]  # Code that is this line.
        line, before = ("", *lines)[-1], ("", "", *lines)[-2]
        if before.rstrip("*_ ").endswith(_COLONS) and (stated := self._stated()) is not None:
            return stated
        if (named := markup.OPTION_AFTER.search(line)) is not None:
            line = named["option"]
        option = markup.OPTION.fullmatch(line)
        if option is not None and named is None:
            previous = markup.OPTION.fullmatch(before)
            if previous and previous["letter"].upper() < option["letter"].upper():
                return None
        if option is None and not (
            _NUMBER.fullmatch(wrapping.unwrapped(line))
            and (not before or before.rstrip("*_ ").endswith(_ENDINGS))
        ):
            return None
        return self._of(wrapping.unwrapped(line), "whole")

    # Sentences.

    def _stated(self) -> Answer | None:
        """Return what the last statement states, or an earlier one of its paragraph if that is a remark."""
        stated = statements.statements(self._text, self._document.stops)
        if not stated:
            return None
        last = stated[-1]
        start = self._paragraph_start(last.at)
        for statement in reversed(stated):
            if statement.at < start:
                return None
            if statement.remark is None:
                if self._reopened(statement.at + 1, len(self._text)):
                    return None
                text = self._text[statement.start : statement.end]
                if not _VISIBLE.search(text):
                    text = self._following(statement.end)
                return self._of(wrapping.unwrapped(text), "label" if statement.label else "phrase")
        return None

    def _paragraph_start(self, at: int) -> int:
        start = 0
        for paragraph in self._document.paragraphs():
            if paragraph[0].start > at:
                break
            start = paragraph[0].start
        return start

    def _following(self, at: int) -> str:
        """Return the answer in the lines after its introduction: a line, or a formula."""
        rest = self._text[at:].lstrip(" \t*_:：\n")  # noqa: RUF001 - a full-width colon
        start = len(self._text) - len(rest)
        for block in self._document.blocks:
            if block.end <= start:
                continue
            text = self._text[start : block.end]
            if block.kind not in (
                BlockKind.FORMULA,
                BlockKind.LIST,
                BlockKind.TABLE,
            ) and not text.startswith(("\\[", "$$")):
                text = text.split("\n", 1)[0]
            return text if len(text) <= _INTRODUCED else ""
        return ""

    def _concluded(self) -> Answer | None:
        """Return the section of the last conclusion."""
        conclusions = [heading for heading in self._document.headings if not heading.rank]
        return self._section(conclusions[-1]) if conclusions else None

    # Without a marker.

    def _whole(self) -> Answer | None:
        """Return the whole text, or its last paragraph if that alone states something after a thought."""
        text = self._text.strip()
        paragraphs = list(self._document.paragraphs())
        while len(paragraphs) > 1 and self._offers(paragraphs[-1]):
            paragraphs.pop()
        if not paragraphs or markup.BOX.search(text) or text.endswith(_COLONS):
            return None
        block = paragraphs[-1][-1]
        last = self._text[block.start : block.end]
        if len(self._document.blocks) > 1 and self._introduced(block, last):
            return self._of(wrapping.unwrapped(last), "whole")
        paragraph = self._text[paragraphs[-1][0].start : block.end]
        stated = statements.statements(self._text, self._document.stops)
        if wording.judges(paragraph):
            whole = ""
        elif len(text) <= _WHOLE and not stated and not self._thinks():
            whole = wrapping.unwrapped(text) if _FEW_WORDS.fullmatch(text) else text
        elif stated and stated[-1].at >= paragraphs[-1][0].start:
            whole = ""
        elif wording.concludes(paragraph):
            whole = wrapping.after_label(paragraph)
        else:
            whole = text if not stated and not self._thinks() and wording.explains(text) else ""
        return self._of(whole, "whole")

    def _offers(self, paragraph: Sequence[Block]) -> bool:
        text = self._text[paragraph[0].start : paragraph[-1].end]
        return wording.offers(text)

    def _introduced(self, block: Block, last: str) -> bool:
        """Whether the last block is a formula or a short line after a colon."""
        formula = block.kind is BlockKind.FORMULA
        if not (formula or (block.kind is BlockKind.TEXT and "\n" not in last)):
            return False
        if len(last) > (wording.CONCLUDING if formula else wording.SHORT):
            return False
        before = self._text[: block.start].rstrip(" \n\t*_")
        return before.endswith(_COLONS)

    def _thinks(self) -> bool:
        """Whether the text has words of a thought, or takes something back."""
        return wording.thinks(self._text) or self._reopened(0, len(self._text))

    def _of(self, text: str, rule: Rule, *, boxed: bool = False) -> Answer | None:
        """Return ``text`` as an answer, unless it says nothing or has not ended."""
        text = text.strip()
        if not boxed and markup.BOX.search(text):
            return None
        if not _VISIBLE.search(text) or markup.UNFINISHED.search(text):
            return None
        return _answer(text, plain(text), rule)


def _answer(tex: str, text: str, rule: Rule) -> Answer | None:
    if not text.strip():
        return None
    return Answer(text, rule, tex if tex != text else None)
