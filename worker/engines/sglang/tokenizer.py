"""Which special tokens an engine's tokenizer has: read from the checkpoint's files, or from the engine."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from core import special_tokens

_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.json")
#: Qwen2-VL's ``tokenizer.json`` has 7 MB.
_MOST_BYTES = 64 << 20
#: An added token without the flag of special tokens counts as one if it has the shape of a marker, such as
#: ``<tool_call>``. The others are words and runs of spaces, which are ordinary text.
_MARKER = re.compile(r"[<\[{]\S+[>\]}]")


def of_checkpoint(folder: str) -> frozenset[str] | None:
    """Return the special tokens in a checkpoint's files; None when this machine does not have the files.

    Args:
        folder: an absolute path on the engine's machine, which may be a different one; or a name on the hub.
    """
    path = Path(folder)
    if not path.is_absolute():
        return None
    contents = [content for name in _FILES if (content := _read(path / name)) is not None]
    return frozenset(token for content in contents for token in _named(content)) or None


def question() -> bytes:
    """Return the body of ``POST /v1/tokenize`` that finds the candidates that are one token."""
    return orjson.dumps({"prompt": special_tokens.CANDIDATES, "add_special_tokens": False})


def of_answer(answer: bytes) -> frozenset[str]:
    """Return the candidates that are one token in the engine's answer to :func:`question`.

    A marker that is one ordinary token counts too: a space in it does no harm.

    Raises:
        ValueError, LookupError, TypeError: the answer does not have the shape of SGLang's.
    """
    ids = orjson.loads(answer)["tokens"]
    pairs = zip(special_tokens.CANDIDATES, ids, strict=True)
    return frozenset(token for token, of_token in pairs if len(of_token) == 1)


def _read(path: Path) -> Any | None:  # noqa: ANN401 - JSON
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _named(content: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Yield the special tokens in the content of any of the files."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key in ("added_tokens", "added_tokens_decoder"):
            yield from _added(value.values() if isinstance(value, dict) else value)
        elif key.endswith("_special_tokens"):
            yield from _texts(value if isinstance(value, list) else ())
        elif key.endswith("_token"):
            yield from _texts((value,))
        elif isinstance(value, int) and _MARKER.fullmatch(key):
            yield key


def _added(entries: Iterable[Any]) -> Iterator[str]:
    """Yield the added tokens of a tokenizer that are not ordinary text."""
    for entry in entries:
        if isinstance(entry, dict):
            for text in _texts((entry,)):
                if entry.get("special") or _MARKER.fullmatch(text):
                    yield text


def _texts(values: Iterable[Any]) -> Iterator[str]:
    """Yield the texts of tokens, which are strings or objects with ``content``."""
    for value in values:
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str) and text.strip():
            yield text
