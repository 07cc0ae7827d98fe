r"""How other projects find the answer in a text: their rules, in our own words. A part of ``answers.py``.

Each function takes the whole output of a model and returns the answer that its project would compare with the truth,
or None. What a project does to the answer afterwards (removing units, rewriting fractions) is left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping

import math_verify

_OPENING = "\\boxed{"
_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_NUMBER = re.compile(r"-?\d*\.?\d+")
_LAST_NUMBER = re.compile(r"\b(\d+(?:\.\d+)?)\b\s*\.?\s*$")
_PUNCTUATION = re.compile(r"[.()\[\],:;!*#{}]")
_ENDS = ",.!?;:'"
#: Words at the end of a text in which VLMEvalKit expects the letter.
_LAST_WORDS = 5


def _closing(text: str, start: int) -> int:
    """Return the index of the brace that closes the one before ``start``; -1 without one."""
    depth = 1
    for index in range(start, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if not depth:
            return index
    return -1


def _boxes(text: str) -> Iterator[str]:
    start = text.find(_OPENING)
    while start >= 0:
        start += len(_OPENING)
        if (end := _closing(text, start)) >= 0:
            yield text[start:end]
        start = text.find(_OPENING, start)


def math_verify_(text: str) -> str | None:
    """Return the text of the last formula or number that math-verify finds (``math_verify.parse``)."""
    found = [part for part in math_verify.parse(text) if isinstance(part, str)]
    return found[-1] if found else None


def qwen_qwq(text: str) -> str | None:
    """Return what the evaluation of QwQ reads (QwenLM/QwQ, ``math_opensource_utils/parser.py``).

    The last box, closed or not; else what follows "the answer is"; else the last number.
    """
    if "boxed" in text:
        tail = text.rpartition("boxed")[2]
        if not tail.startswith("{"):
            return tail.partition("$")[0].strip()
        end = _closing(tail, 1)
        return tail[1:end] if end >= 0 else tail[1:]
    for words in ("he answer is", "final answer is"):
        if words in text:
            return text.rpartition(words)[2].strip()
    numbers = _NUMBER.findall(text.replace(",", ""))
    return numbers[-1] if numbers else None


def vlmevalkit(text: str) -> str | None:
    """Return what VLMEvalKit keeps (``post_process`` of its Qwen2-VL): the last box, closed or not; else all."""
    tail = text.rpartition(_OPENING)[2]
    if tail == text:
        return text
    end = _closing(tail, 0)
    return tail[:end] if end >= 0 else tail


def vlmevalkit_choice(text: str, letters: str) -> str | None:
    """Return the one of ``letters`` that VLMEvalKit infers (``can_infer_option``).

    The only letter that stands alone in the text, if it stands among the last words.
    """
    words = _PUNCTUATION.sub(" ", text).split()
    found = [letter for letter in letters if letter in words]
    if len(found) != 1 or words.index(found[0]) <= len(words) - _LAST_WORDS:
        return None
    return found[0]


def lmms_eval_mmmu(text: str, letters: str) -> str | None:
    """Return the one of ``letters`` that lmms-eval reads for MMMU (``parse_multi_choice_response``).

    The last letter in brackets; else the last before a space; else the last before a period; else one by chance.
    """
    padded = f" {text.strip(_ENDS)} "
    for pattern, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        found = [letter for letter in letters if pattern.format(letter) in padded]
        if found:
            return max(found, key=lambda letter: padded.rfind(place.format(letter)))
    return random.Random(text).choice(letters)


def lmms_eval_reasoning(text: str) -> str | None:
    """Return what lmms-eval reads from reasoning models (``parse_reasoning_model_answer``).

    The first ``<answer>`` element; else the first box, up to the first closing brace; else all.
    """
    if tag := _TAG.search(text):
        return tag[1].strip()
    _, opening, tail = text.partition(_OPENING)
    content, closing, _ = tail.partition("}")
    return content.strip() if opening and closing else text


def lmms_eval_tag(text: str) -> str | None:
    """Return what lmms-eval rewards (``extract_anwser_tag``).

    The first ``<answer>`` element; else the last closed box; else the number at the end of the last line with one.
    """
    if tag := _TAG.search(text):
        return tag[1]
    if boxes := list(_boxes(text)):
        return boxes[-1]
    for line in reversed(text.splitlines()):
        if number := _LAST_NUMBER.search(line):
            return number[1]
    return None


def first_box(text: str) -> str | None:
    """Return the first box, up to the first closing brace of the text (SriramB-98/vlm-cot-faithfulness)."""
    start, end = text.find(_OPENING), text.find("}")
    return text[start + len(_OPENING) : end].strip() or None if start >= 0 and end >= 0 else None


#: The extractors of other projects, by their names in the table.
EXTRACTORS: Mapping[str, Callable[[str], str | None]] = {
    "math verify": math_verify_,
    "Qwen QwQ": qwen_qwq,
    "VLMEval post": vlmevalkit,
    "lmms reason": lmms_eval_reasoning,
    "lmms tag": lmms_eval_tag,
    "first box": first_box,
}
#: Those that choose one of several letters.
CHOICES: Mapping[str, Callable[[str, str], str | None]] = {
    "VLMEval MCQ": vlmevalkit_choice,
    "lmms MMMU": lmms_eval_mmmu,
}
