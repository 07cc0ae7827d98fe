"""Answers in JSON: after its reasoning the model answers under the engine's grammar: of a schema, or any object."""

from __future__ import annotations

import dataclasses
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from jobs import engine
from jobs.answers import extraction, json_schema, values
from worker.guards import prompts
from worker.guards.protocol import (
    GREEDY,
    AttemptStep,
    GenerationResult,
    GuardedGeneration,
    StandingAnswer,
    TraceGuard,
)
from worker.guards.trace import GuardedTrace

#: The most tokens of an answer in JSON.
MOST_TOKENS = 1024
#: The most tokens of the words before it.
_WORDS_TOKENS = 16


@dataclass(frozen=True)
class JsonFormat:
    """The format of an answer in JSON.

    Attributes:
        schema: the JSON Schema that the grammar enforces.
        rule: the type of the format, which is the rule of its answers.
    """

    schema: Mapping[str, Any]
    rule: extraction.JsonRule = "json_schema"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self | None:
        """Return the format that a job's ``options`` ask for, or None if that is not JSON."""
        answer_format = options.get("answer_format") or {}
        schema = json_schema.of(answer_format)
        return None if schema is None else cls(schema, answer_format["type"])

    def read(self, text: str) -> extraction.Answer | None:
        """Return the answer if the whole of ``text`` is JSON of the schema, or None."""
        value = values.structured(text, self.schema)
        if value is None:
            return None
        return extraction.Answer(json.dumps(value, ensure_ascii=False), self.rule)


def tokens(budget: int) -> int:
    """Return the most tokens of an answer in JSON, of a job's ``budget``; at least 1, because 0 means no limit."""
    return max(1, min(MOST_TOKENS, budget // 2))


def rest(budget: int) -> int:
    """Return how many of a job's ``budget`` tokens the reasoning gets."""
    return max(1, budget - tokens(budget) - _WORDS_TOKENS)


class JsonAnswerGuard(TraceGuard):
    """Adds the answer in JSON after the reasoning, which it follows in any case.

    Args:
        request: the request of the reasoning.
        form: the format of the answer.
    """

    def __init__(self, request: engine.GenerationRequest, form: JsonFormat) -> None:
        self._request = request
        self._form = form
        self._tokens = 0
        self._added = False

    def reserve(self, budget: int) -> int:
        """Keep the tokens of the answer and of the words before it."""
        self._tokens = tokens(budget)
        return budget - rest(budget)

    def pending(self, trace: GuardedTrace) -> bool:
        """Return whether the answer is to come."""
        del trace
        return not self._added

    def next(self, trace: GuardedTrace, step: AttemptStep) -> JsonAnswer | None:
        """Return the generation that continues from the whole reasoning, or from before the cut."""
        if self._added:
            return None
        self._added = True
        verdict = trace.verdict
        return JsonAnswer(
            self._request,
            self._form,
            reasoning=step.end.output.rstrip()
            if verdict is None
            else step.end.output[: verdict.stored],
            ended=step.end.finish_reason == "stop",
            forced=verdict is not None and bool(verdict.inserted),
            tokens=self._tokens,
        )


class JsonAnswer(GuardedGeneration):
    """Reads an answer in JSON, which its grammar ends.

    Args:
        request: the request of the reasoning.
        form: the format of the answer.
        reasoning: the text that the answer continues from.
        ended: whether the model has ended the reasoning.
        forced: whether the reasoning was cut.
        tokens: the most tokens of the answer.
    """

    def __init__(
        self,
        request: engine.GenerationRequest,
        form: JsonFormat,
        *,
        reasoning: str,
        ended: bool,
        forced: bool,
        tokens: int,
    ) -> None:
        inserted = prompts.json_answer(reasoning, request.question, ended=ended)
        super().__init__(
            dataclasses.replace(
                request,
                rid=uuid.uuid4().hex,
                sampling=GREEDY,
                max_output_tokens=tokens,
                continuation=reasoning + inserted,
                schema=form.schema,
            ),
            stored=len(reasoning),
            inserted=inserted,
        )
        self._form = form
        self._forced = forced

    def close(self, result: GenerationResult) -> AttemptStep:
        """Return the answer, or none if the text is not JSON of the schema."""
        end = result.end
        answer = self._form.read(end.output)
        standing = StandingAnswer(end.output, end, answer, forced=self._forced)
        return AttemptStep(end, standing, result.fault)
