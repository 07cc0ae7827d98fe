"""What a model is told behind the question about the form of its answer, in the question's language. Pure.

It comes after the question, and so after the pictures: questions about a picture share its prefix, whatever form they
want their answers in.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from core.profiles import ModelProfile
from jobs import scripts

_BOX = r"\boxed{}"
#: In English and in Chinese.
_NUMBER = (
    f"Give the final answer in {_BOX}, as a number and nothing else.",
    f"请把最终答案写在 {_BOX} 中，只写一个数字。",  # noqa: RUF001 - Chinese as written
)
_BOOLEAN = (
    f"Give the final answer in {_BOX}: yes or no.",
    f"请把最终答案写在 {_BOX} 中，只写“是”或“否”。",  # noqa: RUF001 - same
)
_CHOICE = (
    f"Give the final answer in {_BOX}, as the letter of the right option.",
    f"请把最终答案写在 {_BOX} 中，只写正确选项的字母。",  # noqa: RUF001 - same
)
_JSON = (
    "After the final answer, give it once more as JSON of this schema:",
    "在最终答案之后，请再按下面的 JSON Schema 用 JSON 写一遍：",  # noqa: RUF001 - same
)


def behind(question: str, wanted: Mapping[str, Any] | None, profile: ModelProfile) -> str:
    """Return what a model is told behind ``question``, with the white space before it; maybe nothing.

    Args:
        question: decides the language.
        wanted: the job's option ``answer_format``.
        profile: the model; one that has not learned to follow instructions is told nothing.
    """
    if not profile.instructed:
        return ""
    language = int((scripts.cjk_share(question) or 0.0) > 0.5)  # noqa: PLR2004 - more than half
    reported = ""
    match (wanted or {}).get("type"):
        case "number":
            reported = _NUMBER[language]
        case "boolean":
            reported = _BOOLEAN[language]
        case "choice":
            reported = f"{_lettered((wanted or {})['options'])}\n{_CHOICE[language]}"
        case "json_schema":
            reported = f"{_JSON[language]}\n{_plain((wanted or {})['schema'])}"
    return f"\n\n{reported}" if reported else ""


def _lettered(options: Sequence[str]) -> str:
    letters = string.ascii_uppercase
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(letters, options, strict=False)
    )


def _plain(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
