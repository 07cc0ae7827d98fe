"""The document of a trace: its parts, that it grows without a difference, and time that is linear."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.document import BlockKind, Document, SpanKind

#: What texts are made of, the awkward things among it.
PIECES = st.sampled_from(
    [
        *(
            "Wait, ",
            "so it is 4. ",
            "因为。",
            "\n",
            "\n\n",
            " \n \n",
            "\\[",
            "\\]",
            "$",
            "$$",
            "\\(",
        ),
        *("\\)", "\\$", "`", "```\n", "~~~", "- a\n", "1. b\n", "| c |\n", "\\begin{align}"),
        *(
            "\\end{align}",
            "**Final Answer**",
            "**Final Answer:** 6",
            ". **Final Answer** ",
            "## T\n",
            "\\boxed{4}",
        ),
        *("\\boxed{", "\\boxed 6", "\\fbox", "}", "{", "**", "...", "3.5", "?!", ":", " ", "#"),
        *("Final", "最终答案", "\u3000", "\x0c", "---\n", "】", "【答案】", "# Answer", "> ", "\\"),
        *("x" * 50, " " * 130, "." * 60, "*" * 9),
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)


def parts(document: Document) -> tuple[Any, ...]:
    return (
        list(document.blocks),
        list(document.headings),
        list(document.spans),
        list(document.stops),
        list(document.boxes),
        document.opened_box,
    )


def kinds(text: str) -> list[BlockKind]:
    return [block.kind for block in Document.of(text).blocks]


def boxed(text: str) -> list[str]:
    return [text[box.inner_start : box.inner_end] for box in Document.of(text).boxes]


def test_a_text_has_blocks_of_all_kinds() -> None:
    text = (
        "There are lamps.\n\n# Lamps\n\n- red\n- blue\n\n| a |\n|---|\n\n\\[\n\nx\n\n\\]\n\n```\na\n\nb\n```\n\n---\n\n"
        "**Final Answer**\n\n6"
    )
    assert kinds(text) == [
        BlockKind.TEXT,
        BlockKind.TITLE,
        BlockKind.LIST,
        BlockKind.TABLE,
        BlockKind.FORMULA,
        BlockKind.CODE,
        BlockKind.RULE,
        BlockKind.FINAL,
        BlockKind.TEXT,
    ]
    assert [span.kind for span in Document.of(text).spans] == [SpanKind.DISPLAY, SpanKind.CODE]


def test_lists_and_formulas_belong_to_the_paragraph_before_them() -> None:
    text = "The lamps are:\n\n- red\n\n- blue\n\nThe area is\n\n\\[ x \\]\n\nThat is all."
    paragraphs = [
        text[paragraph[0].start : paragraph[-1].end] for paragraph in Document.of(text).paragraphs()
    ]
    assert paragraphs == [
        "The lamps are:\n\n- red\n\n- blue",
        "The area is\n\n\\[ x \\]",
        "That is all.",
    ]


def test_a_block_is_closed_by_a_blank_line() -> None:
    assert [block.closed for block in Document.of("One.\n\nTwo.\n").blocks] == [True, False]
    assert [block.closed for block in Document.of("One.\n\nTwo.\n\n").blocks] == [True, True]


def test_a_heading_has_the_place_where_the_answer_begins() -> None:
    text = "Six.\n\n### **Final Answer (corrected):** 6"
    [heading] = Document.of(text).headings
    assert text[heading.content :] == "6"
    assert (heading.rank, heading.level) == (2, 3)
    assert Document.of("So the **Final Answer** is 6").headings[:] == []


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        ("\\boxed{6}", ["6"]),
        ("\\boxed{\\frac{1}{2}} and \\fbox{b}", ["\\frac{1}{2}", "b"]),
        ("\\boxed{outer \\boxed{inner}}", ["inner"]),
        ("\\boxed{outer \\boxed{}}", ["outer \\boxed{}"]),
        ("\\boxed 6", ["6"]),
        ("\\boxed{6", []),
        ("\\boxed{} \\boxed", []),
        ("\\boxed{\\}", []),
    ],
)
def test_boxes_are_closed_and_not_empty(text: str, contents: list[str]) -> None:
    assert boxed(text) == contents


@given(TEXTS, st.data())
def test_a_growing_text_has_the_document_of_the_whole_text(text: str, data: st.DataObject) -> None:
    document, at = Document(), 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        document.append(text[at : at + size])
        at += size
        assert parts(document) == parts(Document.of(text[:at]))
    assert (document.text, len(document)) == (text, len(text))


@given(TEXTS, TEXTS, TEXTS)
def test_a_copy_grows_without_its_original(text: str, more: str, other: str) -> None:
    document = Document.of(text)
    assert len(document.blocks) >= 0
    copy = document.copy()
    copy.append(more)
    document.append(other)
    assert parts(copy) == parts(Document.of(text + more))
    assert parts(document) == parts(Document.of(text + other))


@given(TEXTS, st.sampled_from([1, 4, 17]))
def test_the_size_of_the_chunks_makes_no_difference(text: str, size: int) -> None:
    document = Document()
    for at in range(0, len(text), size):
        document.append(text[at : at + size])
        assert len(document.blocks) >= 0
    assert parts(document) == parts(Document.of(text))


def test_a_long_run_of_white_space_ends_a_line() -> None:
    text = " " * 260 + "Wait," + " " * 130
    document = Document()
    for character in text:
        document.append(character)
        assert document.blocks is not None
    assert parts(document) == parts(Document.of(text))
    assert len(document.blocks) == 1


@given(TEXTS)
def test_settled_parts_never_change(text: str) -> None:
    document = Document()
    blocks: list[Any] = []
    stops: list[int] = []
    for character in text:
        document.append(character)
        assert document.blocks.settled[: len(blocks)] == blocks
        assert document.stops.settled[: len(stops)] == stops
        blocks, stops = list(document.blocks.settled), list(document.stops.settled)


@example("【答案】\u3000")
@given(TEXTS)
def test_only_white_space_is_outside_of_blocks(text: str) -> None:
    at, outside = 0, ""
    for block in Document.of(text).blocks:
        assert at <= block.start < block.end
        outside += text[at : block.start]
        at = block.end
    assert not (outside + text[at:]).strip()


@pytest.mark.parametrize(
    "piece",
    [
        *("\\[", "$", "```a\n", ". ", ".", "\n", " ", "- a\n\n", "a:\n\n- b\n\n", "** ", "# a\n\n"),
        *(
            "\\begin{a}",
            "`",
            "` ",
            "**Final Answer**\n",
            "let me ",
            "。",
            "|\n",
            "\\boxed{",
            "{",
            "}",
        ),
        *("\\", "> ", "**Answer", "\t", "-", "\n \n"),
    ],
)
@pytest.mark.timeout(120)
def test_reading_after_each_chunk_takes_linear_time(piece: str) -> None:
    # A reader that starts again with each chunk takes minutes.
    document = Document()
    text = piece * (40_000 // len(piece))
    for at in range(0, len(text), 64):
        document.append(text[at : at + 64])
        assert document.opened_box < len(document)
