"""Data sets for ``longlook eval``: one question per line, as JSON.

A line is an object::

    {"id": "q1", "image": "figures/1.png", "question": "How many circles?", "answer": 6, "kind": "count"}
    {"id": "q2", "images": ["a.png", "b.png"], "question": "Which is larger?", "answer": "B", "choices": ["a", "b"]}

``image`` or ``images`` are paths relative to the file, ``answer`` is a text, a number or a boolean (of ``choices``: an
option or its letter), ``id`` and ``kind`` are optional.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core import errors

#: The kind of questions without one.
OTHER: Final = "all"
#: Most faults that an error lists.
_FAULTS: Final = 100
_FIELDS: Final = frozenset({"id", "image", "images", "question", "answer", "choices", "kind"})
_LEAST_CHOICES: Final = 2
_MOST_CHOICES: Final = 26
_MAX_ID: Final = 64


@dataclass(frozen=True)
class Item:
    """A question of a data set.

    Attributes:
        number: the line, from 1.
        answer: the expected answer as text; of ``choices``, the option itself.
    """

    number: int
    id: str
    images: tuple[Path, ...]
    question: str
    answer: str
    choices: tuple[str, ...] = ()
    kind: str = OTHER
    faults: tuple[str, ...] = field(default=(), repr=False)


def read(path: Path) -> list[Item]:
    """Return the questions in ``path``.

    Raises:
        core.errors.InvalidRequest: the file cannot be read, or has faulty lines: the error lists them.
    """
    try:
        # Only line feeds end lines: other separators may stand in the texts. Some editors write a byte order mark.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise errors.InvalidRequest(
            f"{path} cannot be read as UTF-8 text.", param="file"
        ) from error
    items = [
        _item(number, line, path.parent) for number, line in enumerate(lines, 1) if line.strip()
    ]
    faults = [
        errors.Fault(f"line {number}", fault) for number, fault in (*_faults(items), *_twice(items))
    ]
    if not items:
        faults.append(errors.Fault(str(path), "The file has no question."))
    if faults:
        rest = len(faults) - _FAULTS
        more = f" The first {_FAULTS:,} of {len(faults):,} faults follow." if rest > 0 else ""
        raise errors.InvalidRequest(
            f"{path} is not a valid data set.{more}", faults=tuple(faults[:_FAULTS]), param="file"
        )
    return items


def _faults(items: Iterable[Item]) -> Iterator[tuple[int, str]]:
    for item in items:
        for fault in item.faults:
            yield item.number, fault


def _twice(items: Iterable[Item]) -> Iterator[tuple[int, str]]:
    seen: dict[str, int] = {}
    for item in items:
        first = seen.setdefault(item.id, item.number)
        if first != item.number:
            yield item.number, f"The id {item.id!r} is that of line {first}, too."


def _item(number: int, line: str, folder: Path) -> Item:
    try:
        entry = json.loads(line)
        # The service accepts no lone surrogates, and the report could not be written.
        json.dumps(entry, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return _faulty(number, "This must be a JSON object on one line.")
    if not isinstance(entry, dict):
        return _faulty(number, "This must be a JSON object.")
    faults: list[str] = []
    unknown = sorted(set(entry) - _FIELDS)
    faults += [f"There is no field `{name}`." for name in unknown]
    choices = _choices(entry.get("choices"), faults)
    return Item(
        number=number,
        id=_text(entry, "id", faults, default=str(number), longest=_MAX_ID),
        images=_images(entry, folder, faults),
        question=_text(entry, "question", faults),
        answer=_answer(entry.get("answer"), choices, faults),
        choices=choices,
        kind=_text(entry, "kind", faults, default=OTHER),
        faults=tuple(faults),
    )


def _faulty(number: int, fault: str) -> Item:
    return Item(number, f"line {number}", (), "", "", faults=(fault,))


def _text(
    entry: dict[str, Any],
    name: str,
    faults: list[str],
    *,
    default: str | None = None,
    longest: int | None = None,
) -> str:
    value = entry.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and name == "id":
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        faults.append(f"`{name}` must be a text.")
        return ""
    if longest is not None and len(value) > longest:
        faults.append(f"`{name}` must have at most {longest} characters; it has {len(value):,}.")
    return value


def _images(entry: dict[str, Any], folder: Path, faults: list[str]) -> tuple[Path, ...]:
    if ("image" in entry) == ("images" in entry):
        faults.append("There must be exactly one of `image` and `images`.")
        return ()
    listed = entry["images"] if "images" in entry else [entry["image"]]
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(one, str) for one in listed)
    ):
        faults.append("`images` must be a list of paths.")
        return ()
    paths = tuple(folder / name for name in listed)
    faults += [f"There is no file {path}." for path in paths if not path.is_file()]
    return paths


def _choices(value: Any, faults: list[str]) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    if value is None:
        return ()
    valid = (
        isinstance(value, list)
        and _LEAST_CHOICES <= len(value) <= _MOST_CHOICES
        and all(isinstance(one, str) and one.strip() for one in value)
    )
    if not valid:
        faults.append(f"`choices` must be a list of {_LEAST_CHOICES} to {_MOST_CHOICES} texts.")
        return ()
    return tuple(value)


def _answer(value: Any, choices: tuple[str, ...], faults: list[str]) -> str:  # noqa: ANN401 - JSON
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return repr(value)
    if not isinstance(value, str) or not value.strip():
        faults.append("`answer` must be a text, a number or a boolean.")
        return ""
    if not choices or value in choices:
        return value
    number = ord(value.strip().upper()) - ord("A") if len(value.strip()) == 1 else -1
    if 0 <= number < len(choices):
        return choices[number]
    faults.append("`answer` must be one of `choices`, or its letter.")
    return value
