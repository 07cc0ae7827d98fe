"""Data sets for ``longlook eval``: one question per line, as JSON.

A line is an object::

    {"id": "q1", "image": "figures/1.png", "question": "How many circles?", "answer": [6, "half a dozen"]}
    {"id": "q2", "images": ["a.png", "b.png"], "question": "Which is larger?", "answer": "B", "choices": ["a", "b"]}

``image`` or ``images`` are paths relative to the file, or addresses; a question without them is about text alone.
``answer`` is a text, a number or a boolean (of ``choices``: an option or its letter), or a list of several that are
right. ``choices`` is a list, or an object of letters and options. ``id`` and ``kind`` are optional.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from core import errors
from jobs.answers import sections, values

#: The kind of questions without one.
OTHER: Final = "all"
#: Most faults that an error lists.
_FAULTS: Final = 100
_FIELDS: Final = frozenset({"id", "image", "images", "question", "answer", "choices", "kind"})
_LEAST_CHOICES: Final = 2
_MOST_CHOICES: Final = 26
_MAX_ID: Final = 64
#: What addresses of images start with.
_ADDRESSES: Final = ("http://", "https://", "data:")
#: Longest part of a path in a fault: it may be the data of an image by mistake.
_SHOWN_PATH: Final = 200
#: Formats whose answers are objects.
_OBJECTS: Final = frozenset({"json_object", "json_schema"})
_ANY_OBJECT: Final = {"type": "json_object"}
#: A NUL character in JSON, whose backslash no other one escapes.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True)
class Item:
    """A question of a data set.

    Attributes:
        number: the line, from 1.
        images: files, and addresses as texts.
        answers: the answers that are right, as texts; of ``choices``, the options themselves.
    """

    number: int
    id: str
    images: tuple[Path | str, ...]
    question: str
    answers: tuple[str, ...]
    choices: tuple[str, ...] = ()
    kind: str = OTHER
    faults: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Limits:
    """What a service accepts: each of them None where it does not say.

    Attributes:
        images: most images of a question.
        question_chars: most characters of one.
    """

    images: int | None = None
    question_chars: int | None = None


def read(path: Path, *, answer_format: Mapping[str, Any] | None = None) -> list[Item]:
    """Return the questions in ``path``.

    Args:
        path: the file.
        answer_format: the format of questions without choices: their answers must have a value of it.

    Raises:
        core.errors.InvalidRequest: the file cannot be read, or has faulty lines: the error lists them.
    """
    try:
        # Only line feeds end lines: other separators may stand in the texts. Some editors write a byte order mark.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except OSError as error:
        raise errors.InvalidRequest(
            f"{path} cannot be read: {error.strerror}.", param="file"
        ) from error
    except UnicodeDecodeError as error:
        raise errors.InvalidRequest(f"{path} is not UTF-8 text.", param="file") from error
    items = [
        _item(number, line, path.parent, answer_format)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not items:
        raise errors.InvalidRequest(f"{path} has no question.", param="file")
    refuse(path, sorted([*_faults(items), *_twice(items)], key=lambda fault: fault[0]))
    return items


def check(path: Path, items: Iterable[Item], limits: Limits) -> None:
    """Refuse questions that exceed the limits of the service.

    Raises:
        core.errors.InvalidRequest: some do: the error lists their lines.
    """
    refuse(path, [(item.number, fault) for item in items for fault in _excess(item, limits)])


def refuse(path: Path, faults: Sequence[tuple[int, str]]) -> None:
    """Raise :class:`core.errors.InvalidRequest` if there are faults.

    Args:
        path: the data set.
        faults: lines and sentences.
    """
    if not faults:
        return
    more = (
        f" The first {_FAULTS:,} of {len(faults):,} faults follow." if len(faults) > _FAULTS else ""
    )
    listed = (errors.Fault(f"line {number}", fault) for number, fault in faults[:_FAULTS])
    raise errors.InvalidRequest(
        f"{path} is not a valid data set.{more}", faults=tuple(listed), param="file"
    )


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


def _excess(item: Item, limits: Limits) -> Iterator[str]:
    images, chars = len(item.images), len(item.question)
    if limits.images is not None and images > limits.images:
        yield f"The service accepts at most {limits.images} images; there are {images}."
    if limits.question_chars is not None and chars > limits.question_chars:
        yield f"`question` must have at most {limits.question_chars:,} characters; it has {chars:,}."


def _item(number: int, line: str, folder: Path, answer_format: Mapping[str, Any] | None) -> Item:
    try:
        entry = json.loads(line, parse_constant=_refuse)
        # The service accepts no lone surrogates, and the report could not be written.
        json.dumps(entry, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return _faulty(number, "This must be a JSON object on one line.")
    if not isinstance(entry, dict):
        return _faulty(number, "This must be a JSON object.")
    faults: list[str] = []
    unknown = sorted(set(entry) - _FIELDS)
    faults += [f"There is no field `{name}`." for name in unknown]
    if _NUL.search(json.dumps(entry)):
        faults.append("There must be no NUL characters.")
    choices, letters = _choices(entry.get("choices"), faults)
    wanted = {"type": "choice", "options": list(choices)} if choices else answer_format
    return Item(
        number=number,
        id=_text(entry, "id", faults, default=str(number), longest=_MAX_ID),
        images=_images(entry, folder, faults),
        question=_text(entry, "question", faults),
        answers=_answers(entry, wanted, letters, faults),
        choices=choices,
        kind=_text(entry, "kind", faults, default=OTHER),
        faults=tuple(faults),
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _faulty(number: int, fault: str) -> Item:
    return Item(number, f"line {number}", (), "", (), faults=(fault,))


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


def _images(entry: dict[str, Any], folder: Path, faults: list[str]) -> tuple[Path | str, ...]:
    given = [name for name in ("image", "images") if entry.get(name) is not None]
    if not given:
        return ()
    if len(given) > 1:
        faults.append("There must be only one of `image` and `images`.")
        return ()
    name, listed = given[0], entry[given[0]]
    named = [listed] if name == "image" else listed
    if not isinstance(named, list) or not all(isinstance(one, str) and one for one in named):
        what = "a path or an address" if name == "image" else "a list of paths or addresses"
        faults.append(f"`{name}` must be {what}.")
        return ()
    images = tuple(one if one.lower().startswith(_ADDRESSES) else folder / one for one in named)
    faults += [
        f"There is no file {str(one)[:_SHOWN_PATH]}."
        for one in images
        if isinstance(one, Path) and not _is_file(one)
    ]
    return images


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # Its name is too long, for example, or its folder cannot be read.
        return False


def _choices(value: Any, faults: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:  # noqa: ANN401 - JSON
    """Return the options, and those of them that the data set gives letters."""
    if value is None:
        return (), {}
    options = list(value.values()) if isinstance(value, dict) else value
    valid = (
        isinstance(options, list)
        and _LEAST_CHOICES <= len(options) <= _MOST_CHOICES
        and all(_plain(one) for one in options)
    )
    if not valid:
        faults.append(
            f"`choices` must be a list of {_LEAST_CHOICES} to {_MOST_CHOICES} texts, or an object of letters and texts."
        )
        return (), {}
    texts = tuple(_written(one) for one in options)
    if len({text.strip().casefold() for text in texts}) < len(texts):
        faults.append("Two of `choices` are the same.")
    return texts, dict(zip(value, texts, strict=True)) if isinstance(value, dict) else {}


def _answers(
    entry: Mapping[str, Any],
    answer_format: Mapping[str, Any] | None,
    letters: Mapping[str, str],
    faults: list[str],
) -> tuple[str, ...]:
    value, question = entry.get("answer"), str(entry.get("question"))
    listed = value if isinstance(value, list) else [value]
    objects = (answer_format or {}).get("type") in _OBJECTS
    if not listed or not all(_plain(one) or (objects and isinstance(one, dict)) for one in listed):
        faults.append("`answer` must be a text, a number or a boolean, or a list of them.")
        return ()
    texts = []
    for one in listed:
        text = _answer(one, answer_format, letters, question)
        if text is None:
            faults.append(_unfit(one, answer_format or {}))
        else:
            texts.append(text)
    return tuple(dict.fromkeys(texts))


def _answer(
    value: Any,  # noqa: ANN401 - JSON
    answer_format: Mapping[str, Any] | None,
    letters: Mapping[str, str],
    question: str,
) -> str | None:
    """Return an answer as a text, None if it has no value of the format of its question."""
    text = _written(value)
    wanted = answer_format or {}
    match wanted.get("type"):
        case "choice":
            if text in letters or text in wanted["options"]:
                return letters.get(text, text)
            return values.choice(text, wanted["options"])
        case "number" | "boolean":
            return text if sections.read(text, wanted, question) is not None else None
        case "json_object" | "json_schema":
            # The service checks the schema; here it may be any text.
            return text if sections.read(text, _ANY_OBJECT) is not None else None
        case _:
            return text


def _unfit(value: object, answer_format: Mapping[str, Any]) -> str:
    if answer_format["type"] == "choice":
        return f"`answer` must be one of the options, or its letter; it is {value!r}."
    noun = "JSON object" if answer_format["type"] in _OBJECTS else answer_format["type"]
    return f"`answer` must be a {noun}, as the format says; it is {value!r}."


def _plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or (isinstance(value, str) and bool(value.strip()))


def _written(value: Any) -> str:  # noqa: ANN401 - JSON
    """Return a value of a line as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
