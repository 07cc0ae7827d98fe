"""Compiles schemas like the engine, for :mod:`bench.grammars`: runs alone in the engine's environment.

Reads one line of JSON, ``[tokens, schemas]``, and writes one line for each schema: ``[CPU seconds, bytes]``.
"""

from __future__ import annotations

import json
import random
import sys
import time

import xgrammar


def vocabulary(tokens: int) -> list[bytes]:
    """Return ``count`` tokens like those of a byte-level BPE: every byte, then pieces of words of many lengths."""
    rng = random.Random(1)
    made = {bytes([byte]) for byte in range(256)}
    letters = "etaoinshrdlucmfwypvbgkqjxz" + "ETAOIN0123456789" + "的是不了人我在有他这" + '",:{}[]'
    weights = [40] * 12 + [10] * 14 + [4] * 16 + [8] * 10 + [2] * 7
    while len(made) < tokens:
        length = min(1 + int(rng.expovariate(0.22)), 24)
        word = "".join(rng.choices(letters, weights, k=length))
        made.add((rng.choice(("", " ")) + word).encode())
    return sorted(made)


def main() -> None:
    """Process the line on standard input."""
    tokens, schemas = json.loads(sys.stdin.readline())
    info = xgrammar.TokenizerInfo(
        vocabulary(tokens), xgrammar.VocabType.RAW, vocab_size=tokens, stop_token_ids=[0]
    )
    for schema in schemas:
        compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        began = time.process_time()
        compiled = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
        seconds = time.process_time() - began
        sys.stdout.write(json.dumps([seconds, compiled.memory_size_bytes]) + "\n")
        sys.stdout.flush()


main()
