"""The typed value of an answer of several paragraphs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobs.answers import json_schema, values

_BLANK = re.compile(r"\n[^\S\n]*+\n\s*+")


def read(text: str, answer_format: Mapping[str, Any] | None, question: str = "") -> values.Value:
    """Return ``text`` as a value of a job's option ``answer_format``.

    If the whole text has no such value, its first or its last paragraph may have one. If both have one, it must be the
    same.
    """
    value = values.read(text, answer_format, question)
    if value is not None or json_schema.of(answer_format) is not None:
        return value
    paragraphs = [paragraph for paragraph in _BLANK.split(text.strip()) if paragraph]
    if len(paragraphs) < 2:  # noqa: PLR2004 - one paragraph has been read
        return None
    first = values.read(paragraphs[0], answer_format, question)
    last = values.read(paragraphs[-1], answer_format, question)
    if first is None or last is None:
        return last if first is None else first
    return first if first == last and type(first) is type(last) else None
