"""The cost of grammars for schemas just below the limits: CPU seconds and memory, by their contents.

It runs xgrammar in the engine's environment (``make engine``), on one thread, with an artificial vocabulary of the
size of Qwen's. The last rows are random schemas close to the limits: a search for one whose cost is underestimated.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import figures
from cli.environments import engine
from core.settings import Settings
from jobs.answers import json_schema, string_formats

Schema = dict[str, Any]

#: The size of Qwen's vocabulary.
TOKENS = 152_064


@dataclass(frozen=True)
class Compiled:
    """The cost of one schema: CPU seconds, and bytes, which are deterministic."""

    seconds: float
    bytes: int


def compiled(wanted: Sequence[Schema], *, tokens: int) -> Iterator[Compiled]:
    """Compile schemas in the engine's environment and yield the cost of each."""
    script = Path(__file__).with_name("grammar_compiler.py")
    with subprocess.Popen(
        [engine.python(Settings.read().home), "-I", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None  # noqa: S101 - for the type checker
        assert child.stdout is not None  # noqa: S101 - same
        child.stdin.write(json.dumps([tokens, wanted]) + "\n")
        child.stdin.close()
        for line in child.stdout:
            yield Compiled(*json.loads(line))
    if child.returncode:
        raise RuntimeError("xgrammar did not run: `make engine` makes its environment.")


def text(least: int, most: int | None) -> Schema:
    """Return a schema of strings with bounds."""
    schema: Schema = {"type": "string"}
    if least:
        schema["minLength"] = least
    return schema if most is None else schema | {"maxLength": most}


def formatted(name: str) -> Schema:
    """Return a schema of strings of a format."""
    return {"type": "string", "format": name}


def whole(*parts: object) -> Schema:
    """Return an object with ``parts`` as its properties."""
    return {"type": "object", "properties": {f"p{n}": part for n, part in enumerate(parts)}}


def families() -> dict[str, Schema]:
    """Return schemas just below the limits, each with one kind of content."""
    longest = json_schema.MAX_LENGTH
    return {
        "one text of up to 2,000 characters": whole(text(0, longest)),
        "8 such texts, no two alike": whole(*(text(0, longest - n) for n in range(8))),
        "100 such texts, all alike": whole(*(text(0, longest) for _ in range(100))),
        "8 texts with a minimum length": whole(*(text(longest - n, None) for n in range(8))),
        "30 short texts, no two alike": whole(*(text(0, 19 + n) for n in range(30))),
        "10 texts of a narrow length": whole(*(text(102 - n, 102) for n in range(10))),
        "16 alternatives of texts": whole(
            {"anyOf": [text(n, 56 + n) for n in range(json_schema.MAX_ALTERNATIVES)]}
        ),
        **{
            f"100 of the format {name}": whole(*(formatted(name) for _ in range(100)))
            for name in string_formats.NAMES
        },
        "90 numbers with bounds": whole(
            *({"type": "integer", "minimum": -(10**15) - n, "maximum": 10**15} for n in range(90))
        ),
        "140 properties": whole(*({"type": "integer"} for _ in range(140))),
        "200 values": whole({"enum": [f"{n:030d}" for n in range(200)]}),
        "lists in lists": whole(
            {"type": "array", "items": {"type": "array", "items": text(0, 9), "maxItems": 100}}
        ),
    }


def at_the_limits(rng: random.Random) -> Schema:
    """Return a random schema that is accepted, but not with one more part of its kind."""
    parts: list[Schema] = []
    while not json_schema.faults(whole(*(more := [*parts, _part(rng, 4)]))):
        parts = more
    return whole(*parts) if parts else at_the_limits(rng)


def _part(rng: random.Random, depth: int) -> Schema:
    kinds: list[Callable[[random.Random, int], Schema]] = [_text, _text, _number, _values, _format]
    if depth:
        kinds += [_list, _object, _alternatives]
    return rng.choice(kinds)(rng, depth)


def _text(rng: random.Random, _: int) -> Schema:
    least = rng.choice((0, 0, 1, rng.randrange(200), rng.randrange(2000)))
    most = rng.choice((None, least + rng.randrange(10), least + rng.randrange(300)))
    return text(least, None if most is None else min(most, json_schema.MAX_LENGTH))


def _format(rng: random.Random, _: int) -> Schema:
    return formatted(rng.choice(string_formats.NAMES))


def _number(rng: random.Random, _: int) -> Schema:
    least = rng.randrange(-(10**15), 10**15)
    return {"type": "integer", "minimum": least, "maximum": least + rng.randrange(10**15)}


def _values(rng: random.Random, _: int) -> Schema:
    return {"enum": [f"{rng.randrange(10**12)}" for _ in range(rng.randrange(1, 9))]}


def _list(rng: random.Random, depth: int) -> Schema:
    most = rng.randrange(1, json_schema.MAX_ITEMS + 1)
    bounds = {"minItems": rng.randrange(most + 1), "maxItems": most}
    return {"type": "array", "items": _part(rng, depth - 1)} | bounds


def _object(rng: random.Random, depth: int) -> Schema:
    made = whole(*(_part(rng, depth - 1) for _ in range(rng.randrange(1, 4))))
    return made | {"required": rng.sample(sorted(made["properties"]), rng.randrange(2))}


def _alternatives(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_part(rng, depth - 1) for _ in range(rng.randrange(2, 7))]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="size of the vocabulary")
    parser.add_argument("--random", type=int, default=5, help="number of schemas at the limits")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    wanted = families() | {
        f"at random, {number + 1}": at_the_limits(rng) for number in range(options.random)
    }
    taken = compiled(list(wanted.values()), tokens=options.tokens)
    figures.show(
        f"grammars with {options.tokens:,} tokens",
        ("schema", "cost", "CPU s", "MB"),
        [
            (name, str(json_schema.cost(schema)), f"{one.seconds:.2f}", f"{one.bytes / 1e6:.1f}")
            for (name, schema), one in zip(wanted.items(), taken, strict=True)
        ],
    )


if __name__ == "__main__":
    main()
