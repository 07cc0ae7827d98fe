"""That no schema which is taken costs the engine's grammar more than it is counted, by the real xgrammar."""

from __future__ import annotations

import random

import pytest

from bench import grammars
from jobs.answers import json_schema

pytestmark = pytest.mark.engine

#: As many as tiny-qvq has; the states are the same with any vocabulary, and each is as large as the vocabulary.
TOKENS = 600
#: Of a grammar's size by then, for one character of cost, and for what is not counted at all.
BYTES_A_CHARACTER, BYTES_APART = 5_000, 2_000_000


def sizes(wanted: list[grammars.Schema]) -> list[int]:
    return [one.bytes for one in grammars.compiled(wanted, tokens=TOKENS)]


def test_schemas_at_the_limits_make_grammars_no_larger_than_is_counted() -> None:
    rng = random.Random(20)
    wanted = [*grammars.families().values(), *(grammars.at_the_limits(rng) for _ in range(30))]
    assert not any(json_schema.faults(schema) for schema in wanted)

    for schema, size in zip(wanted, sizes(wanted), strict=True):
        assert size <= BYTES_A_CHARACTER * json_schema.cost(schema) + BYTES_APART, schema


def test_what_is_refused_for_its_cost_would_be_larger() -> None:
    refused = grammars.whole({"anyOf": [grammars.text(n, n + 100) for n in range(80)]})
    assert json_schema.faults(refused)

    assert min(sizes([refused])) > BYTES_A_CHARACTER * json_schema.MAX_COST + BYTES_APART


def test_a_pattern_next_to_a_format_costs_nothing() -> None:
    part = grammars.formatted("date")
    plain, with_pattern = sizes(
        [grammars.whole(part), grammars.whole(part | {"pattern": "^[a-z]{400}$"})]
    )

    assert with_pattern == plain
