"""Where the answer is found in what the model wrote, and that nothing it writes can trouble the search."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.answers import extraction, model_refusals
from jobs.answers.extraction import Answer
from jobs.document import markup

#: A thought before the answer, in which something is counted again.
ENGLISH = "The lamp stands in front. Let me count once more.\n\n"
CHINESE = "灯在前面。我再数一遍。\n\n"


def found(trace: str, *, ended: bool = True) -> tuple[str, extraction.Rule] | None:
    answer = extraction.extract(trace, ended=ended)
    return None if answer is None else (answer.text, answer.rule)


@pytest.mark.parametrize(
    ("trace", "text", "rule"),
    [
        # The cases of the evaluation harnesses.
        ("Thinking.\n\n**Final Answer**\n\n\\[ \\boxed{6} \\]", "6", "heading+boxed"),
        ("看图。\n\n**最终答案**\n\n6", "6", "heading"),
        ("**Final Answer**\n\\[\\boxed{\\frac{1}{2}}\\]", "\\frac{1}{2}", "heading+boxed"),
        ("### Final Answer: B.", "B", "heading"),
        ("The answer is 42.", "42", "phrase"),
        ("所以答案是 C。", "C", "phrase"),
        # Which one of several.
        ("\\boxed{1}\n**Final Answer**\n\\boxed{2} or \\boxed{3}", "2 or 3", "heading+boxed"),
        ("**Final Answer**\n1\n\n**Final Answer**\n2", "2", "heading"),
        ("\\boxed{1} first.\n\nThen \\boxed{2}", "2", "boxed"),
        ("First \\boxed{1}. Then \\boxed{2}", "2", "boxed"),
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
        ("**Final Answer**\n\n---\n\n6", "6", "heading"),
        ("# Final Answer #\n6", "6", "heading"),
        ("> **Final Answer**\n>\n> 6", "6", "heading"),
        ("1. **Final Answer**: 6", "6", "heading"),
        ("\\textbf{Final Answer:} 6", "6", "heading"),
        ("**Step 5: Final Answer**\n\n6", "6", "heading"),
        ("**Final Answer**\n- 6", "6", "heading"),
        ("\\boxed  {6}", "6", "boxed"),
        ("\\\\boxed{6}", "6", "boxed"),
        ("The answer is **6**.", "6", "phrase"),
        ("答案：\\(x = 3\\)", "x = 3", "label"),  # noqa: RUF001 - full-width colon
        # A heading with nothing below it is none.
        ("The answer is 6.\n\n**Final Answer**\n\n", "6", "phrase"),
        # The box was opened again after the answer.
        ("So \\boxed{6}.\n**Final Answer**\n\\boxed{6", "6", "boxed"),
    ],
)
def test_the_first_rule_that_matches_finds_the_answer(
    trace: str, text: str, rule: extraction.Rule
) -> None:
    assert found(trace) == (text, rule)


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (f"{CHINESE}**答案**\n\n6", "6"),
        (f"{CHINESE}**答案：** 6", "6"),  # noqa: RUF001 - a full-width colon
        (f"{CHINESE}【答案】C", "C"),
        (f"{CHINESE}### 答案\n\n6", "6"),
        (f"{CHINESE}**最后答案**\n\n6", "6"),
        (f"{CHINESE}**结论**\n\n左边两盏", "左边两盏"),
        (f"{CHINESE}**正确答案：C**", "C"),  # noqa: RUF001 - same
        ("**最终答案是：6**", "6"),  # noqa: RUF001 - same
        ("**最终答案 (Final Answer)**\n\n6", "6"),
        (f"{ENGLISH}**Answer:** 6", "6"),
        (f"{ENGLISH}**Answer**\n\n6", "6"),
        (f"{ENGLISH}### Answer\n6", "6"),
        ("***Final Answer***\n\n6", "6"),
        ("__Final Answer__\n\n6", "6"),
        ("**Final Answers**\n\n6 and 4", "6 and 4"),
        ("**Final Answer (corrected)**\n\n6", "6"),
        ("**Final Answer** (corrected)\n\n6", "6"),
        ("**Final Answer is:** 6", "6"),
        ("**My Final Answer**: 6", "6"),
        ("**Final Answer** - 6", "6"),
        ("✅ **Final Answer:** 6", "6"),
        ("**Answer: (A)**", "(A)"),
        ("**Final Answer:** (A)", "(A)"),
        # A weaker heading does not replace the final one, unless something was taken back.
        ("**Answer**\n\n5\n\n**Final Answer**\n\n6", "6"),
        ("**Final Answer**\n\n**Answer:** 6", "6"),
        ("**Final Answer**\n\n5\n\nWait, one more behind the rock.\n\n**Answer:** 6", "6"),
    ],
)
def test_a_heading_is_a_line(trace: str, text: str) -> None:
    assert found(trace) == (text, "heading")


@pytest.mark.parametrize(
    "line",
    [
        "So my **final answer** is 6. But let me count once more",
        "**Final Answer** needs another check",
        "**Answer the question**",
        "**Answer choices**",
        "### Answering the question",
        "**答对了**",
        "The words final answer mean nothing here",
    ],
)
def test_a_sentence_with_the_words_of_a_heading_is_none(line: str) -> None:
    assert extraction.heading(f"{ENGLISH}{line}\n\n6") is None


def test_prose_and_lists_after_a_heading_are_the_answer_as_a_whole() -> None:
    steps = "To change the bulb, follow these steps:\n\n1. Switch it off.\n2. Turn the bulb."
    assert found(f"{ENGLISH}**Final Answer**\n\n{steps}") == (steps, "heading")

    rows = "1. 左边两盏\n\n2. 右边四盏"
    trace = f"{CHINESE}所以，我认为这些答案是正确的。\n\n**答案**\n\n{rows}"  # noqa: RUF001 - a full-width comma
    assert found(trace) == (rows, "heading")

    table = "The lamps:\n\n| side | lamps |\n|---|---|\n| left | 2 |\n\nThat is all. Nothing more."
    assert found(f"## Final Answer\n\n{table}\n\n## Notes\n\nNone.") == (table, "heading")


def test_a_section_ends_at_an_explanation_and_at_a_recheck() -> None:
    assert found("**Final Answer**\n\n6\n\n**Explanation:**\n\nThree and three.") == (
        "6",
        "heading",
    )
    assert found("**Final Answer**\n\n6\n\nWait, let me look again. There may be 7.") == (
        "6",
        "heading",
    )


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        (
            "**Final Answer**\n\nThere are \\(\\boxed{9}\\) hens and \\(\\boxed{5}\\) ducks.",
            "There are 9 hens and 5 ducks.",
        ),
        ("**Final Answer**\n\n\\boxed{x=2} or \\boxed{x=-2}", "x=2 or x=-2"),
        ("**Final Answer**\n\n\\[ \\boxed{3} \\]\n\n\\[ \\boxed{4} \\]", "3\n\n4"),
        ("**Final Answer**\n\n1. \\boxed{A}\n2. \\boxed{C}", "1. A\n2. C"),
        # The same box twice is one answer.
        ("**Final Answer**\n\nIt is \\boxed{6}, so \\boxed{6}.", "6"),
        # A check is no answer, and a heading or a re-check makes it one.
        ("**Final Answer**\n\n\\[ \\boxed{6} \\]\n\nTo check: the left alone is \\boxed{4}.", "6"),
        ("**Final Answer**\n\n\\boxed{6}\n\nWait, I see one more: \\boxed{7}", "7"),
        ("**Final Answer**\n\n\\boxed{6}\n\n**Final Answer**\n\n\\boxed{7}", "7"),
    ],
)
def test_several_boxes(trace: str, text: str) -> None:
    assert found(trace) == (text, "heading+boxed")


@pytest.mark.parametrize(
    ("trace", "text", "rule"),
    [
        ("The correct answer is **(C)**.", "(C)", "phrase"),
        ("The correct answer is:\n\nD", "D", "phrase"),
        ("Therefore, the correct answer is:\nC: To the left", "C: To the left", "phrase"),
        ("The answer is\n\n\\[ \\sqrt{2} \\]", "\\sqrt{2}", "phrase"),
        ("so the answer should be 6", "6", "phrase"),
        ("The correct option is B.", "B", "phrase"),
        ("The answer is 3.5.", "3.5", "phrase"),
        ("The answer is on the left.", "on the left", "phrase"),
        ("The answer is **right**.", "right", "phrase"),
        ("故选C", "C", "phrase"),
        ("综上，应选B。", "B", "phrase"),  # noqa: RUF001 - a full-width comma
        ("正确答案应该是6", "6", "phrase"),
        ("所以这道题选B。", "B", "phrase"),
        ("I would choose option B.", "B", "phrase"),
        (f"{ENGLISH}So it ends here. **Final Answer** \\boxed{{6}}", "6", "heading+boxed"),
        ("数好了。**最终答案**\\boxed{六}", "六", "heading+boxed"),
        ("答：6盏。因为左边有两盏。", "6盏", "label"),  # noqa: RUF001 - a full-width colon
        ("答案是B，因为图中有两盏灯。", "B", "phrase"),  # noqa: RUF001 - same
        ("Reasons.\nAnswer: (A)", "(A)", "label"),
        ("Reasons.\n\nFinal answer:\n\n6", "6", "label"),
        ("<think>The cat is \\boxed{4}.</think>\n\n6", "6", "whole"),
        ("Four.\n</think>\n\nThe answer is 6.", "6", "phrase"),
        ("It is <answer> 6 </answer>", "6", "answer_tag"),
        ("<answer>\\boxed{6}</answer>", "6", "answer_tag"),
        ("\\fbox{6}", "6", "boxed"),
        ("So \\boxed 6", "6", "boxed"),
        # An earlier sentence of the closing paragraph counts if the last one is a remark.
        ("The answer is 6. I think the answer is correct.", "6", "phrase"),
    ],
)
def test_the_forms_of_other_models(trace: str, text: str, rule: extraction.Rule) -> None:
    assert found(trace) == (text, rule)


@pytest.mark.parametrize(
    ("ending", "text", "rule"),
    [
        ("**_Final Answer_**\n\n6", "6", "heading"),
        ("_**Final Answer**_: 6", "6", "heading"),
        ("**Final Answer: The final answer is $6$. I hope it is correct.**", "6", "heading"),
        ("Answer:\n\n- left: 2\n- right: 4", "- left: 2\n- right: 4", "label"),
        ("**Final Answer**\n\n```\n6\n```", "6", "heading"),
        ("Hence, **B** is the correct answer.", "B", "phrase"),
        ("Therefore, option B is correct.", "B", "phrase"),
        ("(B) is the correct answer.", "B", "phrase"),
        ("Result: 6", "6", "whole"),
        ("**Result:** 6", "6", "whole"),
        ("【答案】6\n【解析】两组三盏。", "6", "heading"),
        ("最终结果为6。", "6", "phrase"),
        ("最终结果：6", "6", "phrase"),  # noqa: RUF001 - full-width punctuation
        ("<|begin_of_box|>6<|end_of_box|>", "6", "answer_tag"),
        ("<FINAL_ANSWER>6</FINAL_ANSWER>", "6", "answer_tag"),
        ("<CONCLUSION> (A) </CONCLUSION>", "(A)", "answer_tag"),
        ("<answer>6", "6", "answer_tag"),
        ("<answer>6</ans", "6", "answer_tag"),
        ("The answer is 3:45 p.m.", "3:45 p.m.", "phrase"),
        ("The answer is Dr. Smith.", "Dr. Smith", "phrase"),
        ("The answer is St. Louis, Missouri.", "St. Louis, Missouri", "phrase"),
        ("The answer is No. 6.", "No. 6", "phrase"),
        ("The answer is 6 ft. 2 in.", "6 ft. 2 in", "phrase"),
        ("The answer is U.S.A.", "U.S.A.", "phrase"),
        (
            "Therefore, there are **6** lamps.\n\nI hope this helps!",
            "Therefore, there are 6 lamps.",
            "whole",
        ),
        ("So it is:\n\n$$x = 6$$", "x = 6", "whole"),
        ("(B)\n\nLet me know if you need more.", "(B)", "whole"),
        ("**Final Answer:** 6\nExplanation: three and three.", "6", "heading"),
        ("Option A is wrong. Option B is correct.", "B", "phrase"),
        ("The number is:\n\n$$\nx = 6\n$$", "x = 6", "whole"),
    ],
)
def test_what_stands_around_an_answer_is_no_part_of_it(
    ending: str, text: str, rule: extraction.Rule
) -> None:
    assert found(ENGLISH + ending) == (text, rule)


def test_a_long_explanation_is_the_answer_and_a_long_working_is_not() -> None:
    explanation = "An aster is a flower. " + "It grows in the sun. " * 300

    assert found(explanation) == (explanation.strip(), "whole")
    assert found(f"To solve it, I add the lamps. {explanation}") is None
    assert found(f"{explanation}It grows in the") is None


def test_an_answer_may_speak_of_its_tags() -> None:
    output = "The tags `<answer>` and `</answer>` enclose it."

    assert found(output) == ("The tags `<answer>` and `</answer>` enclose it.", "whole")


@pytest.mark.parametrize(
    "sentence",
    [
        "The answer is correct.",
        "So the answer is right.",
        "The answer is wrong in the first row.",
        "The answer is incorrect, or maybe I misread the rows.",
        "The answer is straightforward, and I overthink it.",
        "The answer is supposed to be (B), by the text.",
        "The answer is given as (A) there.",
        "The answer is clear: look at the row.",
        "The answer is marked with a star.",
        "The answer is consistent with the text.",
        "The answer is not 6.",
        "The answer seems right.",
        "The given answer is 6.",
        "答案是显而易见的。",
        "The answer isn't 6.",
        "If the answer is 6, there is one more.",
        "Is it that the answer is 6?",
        "Maybe the answer is 6.",
        "The wrong answer is 6.",
        "The answer is 6, but let me check.",
        "So I confirm that the answer is confirmed.",
        "这个答案是错误的，让我再数一遍",  # noqa: RUF001 - a full-width comma
        "所以，我认为这些答案是正确的。",  # noqa: RUF001 - same
        "所以答案是对的。",
        "如果答案是6，那么还有一盏。",  # noqa: RUF001 - same
        "答案是否正确？",  # noqa: RUF001 - a full-width question mark
        "答案不是6。",
    ],
)
def test_a_sentence_about_an_answer_is_none(sentence: str) -> None:
    assert found(ENGLISH + sentence) is None
    assert found(f"The answer is 5.\n\n{ENGLISH}{sentence}") is None


@pytest.mark.parametrize("output", ["6", "(A)", "The flowers are asters.", "是", "图中有两盏灯。"])
def test_a_short_output_without_a_marker_is_the_answer(output: str) -> None:
    assert found(output) == (output, "whole")


@pytest.mark.parametrize("output", ["6", "B", "(B)", "3.5", "red", "A red lamp", "十二", "是"])
@pytest.mark.parametrize("stop", [".", "。"])
def test_a_period_after_a_few_words_is_no_part_of_the_answer(output: str, stop: str) -> None:
    assert found(output + stop) == (output, "whole")


@pytest.mark.parametrize(
    ("last", "text"),
    [
        *[("(B)", "(B)"), ("B", "B"), ("B.", "B"), ("**(B)**", "(B)"), ("(a)", "(a)")],
        *[("(A) a desk", "(A) a desk"), ("A. a desk.", "A. a desk"), ("B、灯", "B、灯")],
        *[("*(B)* lamp", "(B) lamp"), ("**B. lamp**", "B. lamp"), ("Option B", "Option B")],
        *[("选项B", "选项B"), ("$B$", "B"), ("\\(B\\)", "B"), ("`B`", "B"), ("[B]", "[B]")],
        *[("```python\nB\n```", "B"), ("(B) 30°.", "(B) 30°"), ("6", "6"), ("**Six**", "Six")],
        *[
            ("12 cm", "12 cm"),
            ("$3.50", "$3.50"),
            ("六盏", "六盏"),
            ("The desk is near. (A)", "(A)"),
        ],
        ("The desk is near. (A) desk", "(A) desk"),
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        "Question: which one is near? (A) a desk (B) a lamp\nThe desk stands in front.",
        "Which one is near?\n(A) a desk\n(B) a lamp\n\nThe desk stands in front.\n",
        f"{ENGLISH}The answer is 3, or C.",
        f"{CHINESE}灯在桌子后面。\n",
    ],
)
def test_a_last_line_that_is_an_option_or_a_number_is_the_answer(
    before: str, last: str, text: str
) -> None:
    assert found(f"{before}\n{last}") == (text, "whole")
    assert found(f"{before}\n{last}", ended=False) is None


@pytest.mark.parametrize(
    "output",
    [
        "Which one is near?\n(A) a desk\n(B) a lamp",
        "A: a lamp\nB: a desk",
        "The desk is near.\n(A) is wrong, for the lamp is far.",
        "It stands next to\nA lamp",
        "The lamps:\n\n2\n\n4",
        "It was signed in the\nU.S.A.",
    ],
)
def test_a_last_line_of_a_list_or_of_a_sentence_is_not_the_answer(output: str) -> None:
    assert found(output) == (output, "whole")


def test_an_output_without_a_thought_is_the_answer_as_a_whole() -> None:
    output = "An aster is a flower.\n\nIt has:\n\n- petals\n- a stem\n\n" + "It grows. " * 100
    assert found(output) == (output.strip(), "whole")


def test_after_a_thought_the_last_paragraph_may_state_the_answer() -> None:
    assert found(f"{ENGLISH}(A)") == ("(A)", "whole")
    assert found(f"{ENGLISH}So it looks like this one:\n\nD") == ("D", "whole")
    assert found(f"{ENGLISH}Therefore, there are six lamps.") == (
        "Therefore, there are six lamps.",
        "whole",
    )
    assert found(f"{ENGLISH}Perhaps there is one more in the dark corner") is None
    assert found(f"{ENGLISH}So the best choice is:") is None


@pytest.mark.parametrize(
    "trace",
    [
        f"{ENGLISH}The answer is wrong in the first row. Let me look at the",
        f"{ENGLISH}The answer is 6.",
        f"{ENGLISH}Answer: 6",
        "The flowers are asters.",
        f"{ENGLISH}**Final Answer**\n\n\\[ \\",
        f"{ENGLISH}**Final Answer**\n\nThere are",
        f"{ENGLISH}**Final Answer**\n\n6",
        f"The answer is 4 there. {ENGLISH}**Final Answer**\n\n\\[ \\boxed{{6",
        f"So \\boxed{{4}}. {ENGLISH}**Final Answer**\n\n\\[ \\boxed{{6",
        f"So \\boxed{{4}}.\n\n**Final Answer**\n\n{ENGLISH}",
        "So \\boxed{4}.\n\nWait, there is one more.",
        "**Final Answer**\n\n\\(\\boxed{9}\\) hens and \\(\\boxed{5",
        "**Final Answer**\n\nFollow these steps:\n\n",
        "**Final Answer**\n\nFollow these steps:\n\n1. Switch it off.\n\n2. Turn",
        "<think>So \\boxed{4}.</think>\n\nThere are",
    ],
)
def test_of_a_cut_trace_only_what_is_closed_counts(trace: str) -> None:
    assert found(trace, ended=False) is None


@pytest.mark.parametrize(
    ("trace", "text"),
    [
        ("**Final Answer**\n\n\\[ \\boxed{6}", "6"),
        ("**Final Answer**\n\n\\[ \\boxed{6} \\]\n\nLet me", "6"),
        ("So \\boxed{6}. The", "6"),
        ("**Final Answer**\n\nThere are six.\n\n", "There are six"),
        ("**Final Answer**\n\nThere are six.\n\nThey sta", "There are six"),
    ],
)
def test_a_cut_trace_has_the_answer_that_is_closed(trace: str, text: str) -> None:
    answer = extraction.extract(trace, ended=False)
    assert answer is not None
    assert answer.text == text


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize(
    "ending", ["\\[ \\", "\\[", "$", "$$ \\", "\\(", "\\[ \\box", "\\[ \\boxed{", "-", "\\", "**"]
)
def test_delimiters_are_never_an_answer(ending: str, *, ended: bool) -> None:
    assert found(f"{ENGLISH}**Final Answer**\n\n{ending}", ended=ended) is None


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        ("\\text{A red lamp}", "A red lamp"),
        ("6\\text{ lamps}", "6 lamps"),
        ("90^\\circ", "90°"),
        ("375\\ \\text{kg/h}", "375 kg/h"),
    ],
)
def test_the_original_is_returned_where_the_text_differs(tex: str, text: str) -> None:
    assert extraction.extract(f"\\boxed{{{tex}}}", ended=True) == Answer(text, "boxed", tex)


def test_the_original_is_left_out_where_the_text_is_the_same() -> None:
    answer = extraction.extract("**Final Answer**\n\n$\\frac{1}{2}$", ended=True)
    assert answer == Answer("\\frac{1}{2}", "heading", None)


@pytest.mark.parametrize(
    "output",
    [
        "Sorry, but I can't assist with that.",
        "I'm sorry, but I cannot help with this request.",
        "I cannot provide assistance with that.",
        "As an AI language model, I cannot discuss this topic. Feel free to ask something else.",
        "抱歉，我无法协助处理这个请求。",  # noqa: RUF001 - a full-width comma
        "很抱歉，我不能回答这个问题。",  # noqa: RUF001 - same
        "I'm sorry, but I can't identify the person in this photo.",
    ],
)
def test_a_refusal_is_no_answer(output: str) -> None:
    assert model_refusals.refuses(output)
    assert found(output) is None


@pytest.mark.parametrize(
    "output",
    [
        "As an AI language model, I don't have the capability to perceive images. However, I can assist you.",
        "I'm unable to view images.",
        "I am unable to see or access images directly.",
        "Sorry, I can't see images.",
        "I cannot view the image you uploaded.",
        "Unfortunately, I don't have the ability to process visual content.",
        "I'm sorry, but I can't view or analyze images. Please describe the image.",
        "As a text-based AI, I cannot access attached files.",
        "I don't have access to the image, so I cannot answer.",
        "I'm not able to open the attached photo.",
        "I cannot see any image attached. Please upload it.",
        "No image was provided. Please attach one.",
        "There is no image attached to your message.",
        "I lack the ability to see images.",
        "I do not see an image in your message. Could you upload it?",
        "It seems that no image has been uploaded.",
        "I can't directly view images, but if you describe it, I can help.",
        "抱歉，我无法查看图片。",  # noqa: RUF001 - full-width punctuation
        "我无法直接看到您上传的图片，请描述一下。",  # noqa: RUF001 - full-width punctuation
        "作为一个人工智能语言模型，我不能处理图像。",  # noqa: RUF001 - full-width punctuation
        "对不起，我没有看到任何图片，请重新上传。",  # noqa: RUF001 - full-width punctuation
        "很抱歉，我不具备查看图像的能力。",  # noqa: RUF001 - full-width punctuation
        "您没有上传图片。请上传后再试。",
        "我无法访问您提供的图片。",
        "我看不到图片，请重新上传。",  # noqa: RUF001 - full-width punctuation
        "抱歉，我目前无法识别图片内容。",  # noqa: RUF001 - full-width punctuation
    ],
)
def test_a_model_that_sees_no_image_refuses(output: str) -> None:
    assert model_refusals.refuses(output)
    assert found(output) is None
    assert not model_refusals.refuses(f"{output} The answer is 6.")


@pytest.mark.parametrize(
    "output",
    [
        "I cannot read the plate in the image.",
        "I can't see the image clearly, because it is dark.",
        "I cannot see any lamps in the image.",
        "The image shows no files.",
        "I cannot see the image's lower half.",
        "There is no picture on the wall.",
        "No photo was taken here: the wall is empty.",
        "I can't see any pictures on the wall.",
        "我看不清图片中的车牌。",
        "图中没有图片。",
        "无法从图片中看出有几盏灯。",
        "I cannot see images of dogs on this poster, only cats.",
        "The man cannot see the picture.",
        "There is no image of a cat on the poster.",
        "The sign says: I cannot view images.",
        "墙上没有照片。",
        "I don't see a photo on the desk.",
        "I can't see the photo of the cat on the desk.",
        "No pictures are on the wall.",
        "I see no images on the page.",
    ],
)
def test_what_is_not_seen_in_an_image_is_no_refusal(output: str) -> None:
    assert not model_refusals.refuses(output)


@pytest.mark.parametrize(
    "output",
    [
        "6",
        "Sorry, I cannot read the plate in the image.",
        "I can't tell how many lamps there are, because the photo is dark.",
        "Sorry for the detour. The lamp is red.",
        "As an AI, I have no opinion. However, the lamp is a red one and stands in front.",
        "我看不清图片里的字。",
        "Sorry, but I can't assist with that. \\boxed{6}",
    ],
)
def test_an_answer_is_no_refusal(output: str) -> None:
    assert not model_refusals.refuses(output)


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
        "\\boxed{\\}",
        "}}}{{{",
    ],
)
def test_a_trace_without_an_answer_has_none(trace: str) -> None:
    assert found(trace) is None


PIECES = st.sampled_from(
    [
        *("\\boxed{", "\\boxed", "\\\\", "\\", "{", "}", "\\}", "6", " ", "\n", "\n\n"),
        *("**Final Answer**", "# 最终答案：", "**答案**", "#", "**", "The answer is"),  # noqa: RUF001 - Chinese punctuation
        *("答案是", "$", "。", "text", "Wait, ", "</think>", "<answer>", "</answer>", "- "),
        *("correct", "Answer: ", "故选", "\\text{", "---\n", "\\[", "\\]", ":"),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES).map("".join)), st.booleans())
@example("_", True)
def test_no_text_makes_the_extraction_fail(trace: str, ended: bool) -> None:  # noqa: FBT001 - drawn
    answer = extraction.extract(trace, ended=ended)

    assert answer is None or answer.text.strip() == answer.text != ""
    said = answer is None or any(character.isalnum() for character in answer.text)
    assert said or markup.BOX.search(trace)


@given(st.lists(PIECES).map("".join))
def test_a_cut_trace_has_no_answer_that_the_whole_one_does_not_have(trace: str) -> None:
    assert extraction.extract(trace, ended=False) is None or extraction.extract(trace, ended=True)


@given(before=st.text(alphabet="ab {}\\$\n"), inside=st.text(alphabet="ab 6$"))
def test_an_unterminated_box_is_not_an_answer(before: str, inside: str) -> None:
    before = before.replace("\\", "").replace("}", "")

    assert extraction.extract(f"{before}\\boxed{{{inside}", ended=True) is None


@given(inside=st.text(alphabet="ab6,.=+").filter(lambda text: text.strip(",.=+")))
def test_a_terminated_box_is_the_answer(inside: str) -> None:
    assert found(f"Thinking. \\boxed{{{inside}}} Done") == (inside, "boxed")


@pytest.mark.parametrize(
    "piece",
    [
        *("\\boxed{", "\\boxed", "#", "# \n", "**", "\n", " ", "\\", "{", "the ", "答案"),
        *("The answer is ", "The answer is 6. ", "**Final Answer**\n", "\\boxed{6} ", "Wait, "),
        *(
            "**答案**\n\n",
            "Answer: 6\n",
            "the answer is correct. ",
            "</think>",
            "<answer>",
            "- a\n",
        ),
        *("故选C", "\\boxed{6}\n\n", "a.\n\n", "如果答案是"),
    ],
)
@pytest.mark.parametrize("start", ["", "# ", "the answer is", "**Final Answer**\n\n"])
@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.timeout(60)
def test_extraction_from_a_looping_trace_is_fast(start: str, piece: str, *, ended: bool) -> None:
    # A search that is quadratic in the length takes minutes.
    trace = start + piece * (25_000 // len(piece))

    answer = extraction.extract(trace, ended=ended)

    assert answer is None or answer.text
