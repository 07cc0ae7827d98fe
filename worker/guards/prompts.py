"""The words that guards put into a prompt, in the script of the question. Pure."""

from __future__ import annotations

from jobs import scripts
from jobs.answers import extraction

_HEADING = "\n\n**Final Answer**\n\n"
_HEADING_CJK = "\n\n**最终答案**\n\n"
_BOX = "\\[ \\boxed{"

_VERIFY = "Look at the image again and check each visual claim.\n\n{question}"
_VERIFY_TEXT = "Check each step of the answer again.\n\n{question}"
_VERIFY_TEXT_CJK = "请再逐步检查一遍你的回答。\n\n{question}"
_VERIFY_CJK = "请再看一遍图片，逐一核对你的描述。\n\n{question}"  # noqa: RUF001 - Chinese punctuation


def forced_answer(question: str) -> str:
    """Return the words after which the model can only give its answer."""
    return heading(question) + _BOX


def heading(question: str) -> str:
    """Return the heading of a final answer."""
    return _HEADING_CJK if in_cjk(question) else _HEADING


def json_answer(trace: str, question: str, *, ended: bool) -> str:
    """Return the words between a trace and its answer in JSON: a heading, unless the trace already has an answer.

    Args:
        trace: the reasoning.
        question: its script decides the language.
        ended: whether the model has ended the reasoning.
    """
    if extraction.extract(trace, ended=ended) is not None:
        return "\n\n"
    return heading(question)


def verification(question: str, *, images: bool = True) -> str:
    """Return the message that asks the model to check its answer to ``question``, against the ``images`` if any."""
    english, chinese = (_VERIFY, _VERIFY_CJK) if images else (_VERIFY_TEXT, _VERIFY_TEXT_CJK)
    return (chinese if in_cjk(question) else english).replace("{question}", question)


def in_cjk(question: str) -> bool:
    """Return whether more than half of ``question`` is in a CJK script."""
    return (scripts.cjk_share(question) or 0.0) > 0.5  # noqa: PLR2004 - more than half
