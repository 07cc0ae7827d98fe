"""Remarks about an answer, in English and Chinese."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.answers import remarks
from jobs.answers.statements import Remark


@pytest.mark.parametrize(
    "sentence",
    [
        "The answer is correct.",
        "So the answer is correct.",
        "So, my answer stands.",
        "That matches.",
        "That matches my first count.",
        "Confirmed.",
        "The answer is right, because I count six.",
        "My previous answer was correct.",
        "The answer of 6 is correct.",
        "The answer 6 is correct.",
        "Therefore, the initial answer remains unchanged.",
        "**The answer is correct.**",
        "I stand by my answer.",
        "Yes, that's correct.",
        "The count is still accurate.",
        "Everything checks out.",
        "I found no mistakes.",
        "This confirms the answer.",
        "It is indeed right.",
        "The first answer was not wrong.",
        "So the final answer is confirmed.",
        "All the values are consistent with the image.",
        "I have verified that the answer is correct.",
        "Nothing is wrong with it.",
        "My answer doesn't change; it is correct.",
        "答案是正确的。",
        "所以答案是正确的。",
        "所以\uff0c我认为这些答案是正确的。",
        "没错。",
        "答案没错",
        "结果无误。",
        "经核对\uff0c答案无误。",
        "确认无误。",
        "我的答案是对的。",
        "因此答案仍然是正确的。",
        "之前的回答是正确的。",
        "答案正确。",
        "答案不变。",
        "没有遗漏。",
        "The answer remains the same.",
        "My initial answer was right",
        "The result holds.",
        "Correct.",
        "so the original answer of six lamps is correct",
        "So the answer must be correct.",
        "The answer should be right.",
    ],
)
def test_a_remark_affirms_an_answer(sentence: str) -> None:
    assert remarks.remark(sentence) is Remark.AFFIRMS


@pytest.mark.parametrize(
    "sentence",
    [
        "The answer is wrong.",
        "The answer is incorrect, or maybe I'm misreading it.",
        "My first answer was wrong.",
        "That is not right.",
        "That isn't correct.",
        "It does not match.",
        "I made a mistake.",
        "I cannot confirm it.",
        "The answer may be wrong.",
        "这个答案是错误的\uff0c让我再数一遍",
        "答案不正确。",
        "我之前数错了。",
        "结果有误。",
        "The previous count was incorrect.",
        "The answer is no longer valid.",
        "答案是错的",
    ],
)
def test_a_remark_denies_an_answer(sentence: str) -> None:
    assert remarks.remark(sentence) is Remark.DENIES


@pytest.mark.parametrize(
    "sentence",
    [
        "The answer is 6.",
        "The answer is red.",
        "If the answer is correct, there are six.",
        "Let me check whether the answer is correct.",
        "Is the answer correct?",
        "I need to make sure that the answer is right.",
        "The lamp is on the right side.",
        "It is on the right.",
        "The answer is the right one.",
        "答案是6。",
        "答案是红色。",
        "这个答案对吗\uff1f",
        "让我确认答案是否正确。",
        "There are six lamps.",
        "I look at the image once more.",
        "The answer is left.",
        "如果答案是正确的\uff0c那么有六个。",
        "The sign is right next to the lamp.",
        "The third lamp matches the first one.",
        "答案是有六盏灯",
        "The left lamp is fine.",
        "答案为B",
        "This is the same lamp as before",
    ],
)
def test_an_answer_a_condition_and_a_question_are_no_remarks(sentence: str) -> None:
    assert remarks.remark(sentence) is None


def test_a_point_between_digits_ends_no_sentence() -> None:
    text = "I see 6.5 m. So the answer is 3.2. 答案是对的。没错\n\nYes"
    assert remarks.sentences(text) == [
        "I see 6.5 m.",
        "So the answer is 3.2.",
        "答案是对的。",
        "没错",
        "Yes",
    ]


@given(st.text(max_size=300))
def test_sentences_lose_nothing_but_spaces(text: str) -> None:
    assert "".join("".join(remarks.sentences(text)).split()) == "".join(text.split())
    assert remarks.remark(text) in (Remark.AFFIRMS, Remark.DENIES, None)
