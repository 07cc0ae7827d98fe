"""Where the answer is found in what the model wrote, and that nothing it writes can trouble the search."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import extraction
from jobs.answers.extraction import Answer


@pytest.mark.parametrize(
    ("trace", "text", "rule"),
    [
        # The cases of the evaluation harnesses.
        ("Thinking.\n\n**Final Answer**\n\n\\[ \\boxed{6} \\]", "6", "heading+boxed"),
        ("看图。\n\n**最终答案**\n\n6", "6", "heading"),
        (
            "**Final Answer**\n\\[\\boxed{\\frac{1}{2}}\\]",
            "\\frac{1}{2}",
            "heading+boxed",
        ),
        ("### Final Answer: B.", "B", "heading"),
        ("It is \\boxed{\\{1, 2\\}}.", "\\{1, 2\\}", "boxed"),
        ("The answer is 42.", "42", "phrase"),
        ("所以答案是 C。", "C", "phrase"),
        # Which one of several.
        ("\\boxed{1}\n**Final Answer**\n\\boxed{2} or \\boxed{3}", "3", "heading+boxed"),
        ("**Final Answer**\n1\n\n**Final Answer**\n2", "2", "heading"),
        ("\\boxed{1} then \\boxed{2}", "2", "boxed"),
        ("The answer is 1.\nNo: the final answer is 2", "2", "phrase"),
        ("\\boxed{outer \\boxed{inner}}", "inner", "boxed"),
        ("\\boxed{7} and then \\boxed{}", "7", "boxed"),
        # How it is written.
        ("**Final Answer:** The sky is blue.", "The sky is blue", "heading"),
        ("**最終答案**：十二", "十二", "heading"),  # noqa: RUF001 - full-width, as written
        ("## FINAL  answer\n\n**six**", "six", "heading"),
        ("**Final Answer: 6**", "6", "heading"),
        ("**Final Answer**\n\n**six**", "six", "heading"),
        ("### **Final Answer**\n\n6", "6", "heading"),
        ("**Final Answer**\n$6$.", "6", "heading"),
        ("**Final Answer**\n$$x^2$$\n\nBecause it is.", "x^2", "heading"),
        ("**Final Answer**\n\n---\n\n6", "6", "heading"),
        ("# Final Answer #\n6", "6", "heading"),
        ("**Final Answer**\n\n***six***", "*six*", "heading"),
        ("\\boxed  {6}", "6", "boxed"),
        ("\\\\boxed{6}", "6", "boxed"),
        ("\\boxed{\\text{a {nested} set}}", "\\text{a {nested} set}", "boxed"),
        ("The answer is **6**.", "6", "phrase"),
        ("答案：\\(x = 3\\)", "x = 3", "phrase"),  # noqa: RUF001 - full-width colon
        # A heading with nothing below it is none.
        ("The answer is 6.\n\n**Final Answer**\n\n", "6", "phrase"),
        # The box was opened again after the answer, and the tokens ran out.
        ("So \\boxed{6}.\n**Final Answer**\n\\boxed{6", "6", "boxed"),
    ],
)
def test_the_first_rule_that_matches_finds_the_answer(
    trace: str, text: str, rule: extraction.Rule
) -> None:
    assert extraction.extract(trace) == Answer(text, rule)


@pytest.mark.parametrize(
    "trace",
    [
        "",
        "Let me count the circles again. One, two, three",
        "**Final Answer**",
        "**Final Answer**\n\\[\\boxed{6",
        "So the result is \\boxed{\\frac{1}{2}",
        "So the answer is \\boxed{6",
        "The answer is\n\n",
        "\\boxed{}",
        "\\boxed 6",
        "\\boxed{\\}",
        "}}}{{{",
    ],
)
def test_a_trace_without_an_answer_has_none(trace: str) -> None:
    assert extraction.extract(trace) is None


PIECES = st.sampled_from(
    [
        "\\boxed{",
        "\\boxed",
        "\\\\",
        "\\",
        "{",
        "}",
        "\\}",
        "6",
        " ",
        "\n\n",
        "**Final Answer**",
        "# 最终答案：",  # noqa: RUF001 - full-width colon
        "#",
        "**",
        "The answer is",
        "答案是",
        "$",
        "。",
        "text",
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_no_text_makes_the_extraction_fail(trace: str) -> None:
    answer = extraction.extract(trace)

    assert answer is None or (answer.text.strip() == answer.text != "")


@given(st.lists(PIECES).map("".join))
def test_an_answer_is_part_of_the_trace(trace: str) -> None:
    answer = extraction.extract(trace)

    assert answer is None or answer.text in trace


@given(before=st.text(alphabet="ab {}\\$\n"), inside=st.text(alphabet="ab 6$"))
def test_an_unterminated_box_is_not_an_answer(before: str, inside: str) -> None:
    before = before.replace("\\", "").replace("}", "")

    assert extraction.extract(f"{before}\\boxed{{{inside}") is None


@given(inside=st.text(alphabet="ab6 ,.=+").filter(lambda text: text.strip()))
def test_a_terminated_box_is_the_answer(inside: str) -> None:
    assert extraction.extract(f"Thinking. \\boxed{{{inside}}} Done") == Answer(
        inside.strip(), "boxed"
    )


@pytest.mark.parametrize(
    "piece",
    [
        "\\boxed{",
        "\\boxed",
        "#",
        "# \n",
        "**",
        "\n",
        " ",
        "\\",
        "{",
        "the ",
        "The answer is ",
        "答案",
    ],
)
@pytest.mark.parametrize("start", ["", "# ", "the answer is"])
@pytest.mark.timeout(60)
def test_extraction_from_a_looping_trace_is_fast(start: str, piece: str) -> None:
    # A search that is quadratic in the length takes minutes.
    trace = start + piece * (50_000 // len(piece))

    answer = extraction.extract(trace)

    assert answer is None or answer.text in trace
