"""Answers in JSON: after its reasoning the model goes on under the engine's grammar, which holds it to a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from jobs import findings
from jobs.answers import extraction, values
from worker.guards import detectors

#: Most tokens of such an answer.
MOST_TOKENS = 1024
#: Of the words after which it comes, at most.
_WORDS_TOKENS = 16


@dataclass(frozen=True)
class JsonFormat:
    """The form of an answer that is asked for as JSON."""

    schema: Mapping[str, Any]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self | None:
        """Return the form that a job's ``options`` ask for, None when it is another one."""
        wanted = options.get("answer_format") or {}
        return cls(wanted["schema"]) if wanted.get("type") == "json_schema" else None

    def read(self, text: str) -> extraction.Answer | None:
        """Return the answer in ``text``, which is to be it and nothing else; None when it has not this form."""
        value = values.structured(text, self.schema)
        if value is None:
            return None
        return extraction.Answer(json.dumps(value, ensure_ascii=False), "json_schema")


def tokens(budget: int) -> int:
    """Return how many of a job's ``budget`` tokens such an answer may have; one at least, for 0 is no limit at all."""
    return max(1, min(MOST_TOKENS, budget // 2))


def rest(budget: int) -> int:
    """Return how many of them are left for the reasoning."""
    return max(1, budget - tokens(budget) - _WORDS_TOKENS)


def ask(trace: str, question: str) -> str:
    """Return the words between a trace and its answer in JSON: a heading, if it has none of its own."""
    if extraction.extract(trace) is not None:
        return "\n\n"
    return detectors.heading(question)


class ReasoningReader:
    """Reads the reasoning before such an answer, for a guard. Another stream goes on from it in any case."""

    more = True

    def __init__(self, watch: detectors.GenerationGuard) -> None:
        self._watch = watch
        self.finish_reason = watch.finish_reason

    @property
    def found(self) -> findings.Finding | None:
        """What the guard has found."""
        return self._watch.found

    def see(self, text: str) -> object:
        """Have the guard take a chunk's text."""
        return self._watch.see(text)

    def end(self, text: str, finish_reason: str) -> object:
        """Have the guard take the whole text."""
        return self._watch.end(text, finish_reason)


class JsonReader:
    """Reads an answer in JSON. The grammar ends it."""

    finish_reason = "stop"
    more = False
    found = None

    def see(self, text: str) -> bool:
        """Want all of it."""
        del text
        return False

    def end(self, text: str, finish_reason: str) -> bool:
        """Want nothing more, whatever was said."""
        del text, finish_reason
        return False
