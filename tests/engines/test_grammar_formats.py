"""That the real xgrammar enforces each format that is served, as strictly as is known here."""

from __future__ import annotations

import json
import subprocess

import pytest

from bench import grammars
from cli.environments import engine
from core.settings import Settings
from tests.formatted_texts import FORMATTED

pytestmark = pytest.mark.engine

#: Reads pairs of a schema and a text, and writes whether the grammar of the schema allows the text.
PROGRAM = """
import json, sys, xgrammar
from xgrammar.testing import _is_grammar_accept_string as allows
for schema, text in json.load(sys.stdin):
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(schema), any_whitespace=False)
    print(json.dumps(bool(allows(grammar, text))))
"""


def test_a_grammar_allows_texts_of_the_form_and_no_others() -> None:
    expected = [
        (name, text, kind < 2)
        for name, kinds in FORMATTED.items()
        for kind, texts in enumerate(kinds)
        for text in texts
    ]
    pairs = [
        (
            grammars.whole(grammars.formatted(name)) | {"required": ["p0"]},
            json.dumps({"p0": text}, ensure_ascii=False),
        )
        for name, text, _ in expected
    ]

    done = subprocess.run(
        [engine.python(Settings.read().home), "-I", "-c", PROGRAM],
        input=json.dumps(pairs),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )

    allowed = map(json.loads, done.stdout.split())
    found = [(name, text, one) for (name, text, _), one in zip(expected, allowed, strict=True)]
    assert found == expected
