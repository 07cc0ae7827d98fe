"""Instructions on the answer format that are appended to the question, in the question's language. Pure.

They follow the question and the images, so that questions about the same image share its cached prefix, whatever
their answer formats are.
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


_OBJECT = (
    "After the final answer, give it once more as a JSON object.",
    "在最终答案之后，请再用一个 JSON 对象写一遍。",  # noqa: RUF001 - same
)


def behind(question: str, answer_format: Mapping[str, Any] | None, profile: ModelProfile) -> str:
    """Return the text to append to ``question``, with leading white space; may be empty.

    Args:
        question: decides the language.
        answer_format: the job's option.
        profile: the model; if it cannot follow instructions, the text is empty.
    """
    if not profile.instructed:
        return ""
    language = int((scripts.cjk_share(question) or 0.0) > 0.5)  # noqa: PLR2004 - more than half
    instruction = ""
    match (answer_format or {}).get("type"):
        case "number":
            instruction = _NUMBER[language]
        case "boolean":
            instruction = _BOOLEAN[language]
        case "choice":
            instruction = f"{_lettered((answer_format or {})['options'])}\n{_CHOICE[language]}"
        case "json_object":
            instruction = _OBJECT[language]
        case "json_schema":
            instruction = f"{_JSON[language]}\n{_plain((answer_format or {})['schema'])}"
    return f"\n\n{instruction}" if instruction else ""


def _lettered(options: Sequence[str]) -> str:
    letters = string.ascii_uppercase
    return "\n".join(
        f"{letter}. {option}" for letter, option in zip(letters, options, strict=False)
    )


def _plain(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
