r"""Typed values from the text of an answer: a number, a boolean, one of several options, JSON of a schema. Pure.

Each function returns None unless the text states exactly one such value: an ambiguous answer is not guessed.

The comments at the patterns give examples of what a pattern matches, in **bold** where it matches only a part of the
example. A line of a pattern covers one language or one notation.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NoReturn

from jobs.answers import folding, json_schema, meaning, numbers

#: Characters of a text that a comparison of words reads.
_MAX_TEXT = 200
_MAX_JSON = 100_000
#: Nested objects and arrays. Encoders and the parsers of clients have limits, the lowest of them about 200.
MAX_JSON_DEPTH = 64

# Yes and no.

_YES = ("yes", "true", "是", "是的", "对", "对的", "有", "有的", "正确", "正确的", "没错")
_NO = (
    *("no", "false", "否", "不", "不是", "不是的", "没有", "没有的", "无", "不对", "不正确"),
    *("错", "错的", "错误", "错误的"),
)
#: Characters around a word of an answer.
_AROUND = " .。!\"'“”\u2018\u2019()"
#: The words that introduce a yes, a no or an option.
_INTRODUCTION = re.compile(
    r"\A(?P<before>.{0,80}?)(?:"
    # English: the answer is, the correct option is, answer:
    r"\b(?:answer|option|choice)\s+is\b|\banswer\s*(?=:)"
    # Chinese: 答案是, 答案应选, 答案:
    r"|答案应?(?:[是为选]|(?=:)))\s*:?\s*",
    re.IGNORECASE,
)
#: Words before the introduction that reverse its meaning: the **wrong** answer is.
_NEGATION = re.compile(r"\b(?:not|wrong|incorrect|false)\b|n't\b|[不错非]", re.IGNORECASE)
#: Text that starts with yes or no but states neither.
_NEITHER = re.compile(
    # Yes or no, yes/no.
    r"(?:yes|true|no|false)\s*(?:/|,?\s*\b(?:or|and)\b)\s*(?:yes|true|no|false)\b"
    # Yes, no; no, yes. "Yes, no lamp is lit" says yes.
    r"|(?:yes|true)[\s,.;:]{1,3}(?:no|false)(?=\s*(?:[,.;:!?]|\Z|wait\b))|(?:no|false)[\s,.;:]{1,3}(?:yes|true)\b"
    r"|(?:不是?|否|没有)[,。\uff0c]\s?(?:是的?|对|有)(?=[,。\uff0c]|\Z)"
    # No idea, no clear answer, no one, no. 5.
    r"|no\s+(?:\w+\s+)?(?:idea|answer|information|conclusion|way)\b"
    r"|no\s+(?:one|doubt|problem|matter)\b|no\.?\s?\d"
)

# Options.

#: The letter of an option: B, (b), option B:, 选B, 应选B项.
_LETTER = re.compile(
    r"(?:option|choice|[应故]?选[项择]?)?\s*[(\[【]?\s*([a-z])\s*[)\]】]?(?:[.:)、,\s]|项|\Z)",
    re.IGNORECASE,
)
#: The letter of an option before its text: **B.** a cat, **(B)** a cat.
_EXPLAINED = re.compile(r"[*(\s]*([A-Za-z])(?:\)\s*[.:]?|\s*[.:、])\s*(?=\S)")
#: The reason that follows an option: B**, because it is green**, B**因为它是绿色的**.
_REASON = re.compile(
    r"[\s,;:.]{0,4}(?:\b(?:because|since|as (?:the|it|they))\b|因为|由于).*\Z", re.DOTALL
)
#: The article before an option, and a pronoun after it: **the** red **one**.
_ARTICLE = re.compile(r"\A(?:the|an?)\s+|\s+ones?\Z")
#: The letter of an option after its text: a cat **(b)**.
_LETTER_AFTER = re.compile(r"\s*\(([a-z])\)\Z")


#: A JSON value.
Value = int | float | bool | str | list[Any] | dict[str, Any] | None


def read(text: str, answer_format: Mapping[str, Any] | None, question: str = "") -> Value:
    """Return ``text`` as a value of a job's option ``answer_format``; None without this option.

    Args:
        text: the text of an answer.
        answer_format: the option, or None.
        question: its language decides whether ``3,5`` is a number.
    """
    requested = answer_format or {}
    match requested.get("type"):
        case "number":
            return numbers.read(text, question)
        case "boolean":
            return boolean(text)
        case "choice":
            return choice(text, requested["options"])
        case _:
            schema = json_schema.of(requested)
            return None if schema is None else structured(text, schema)


def boolean(text: str) -> bool | None:
    """Return whether ``text`` says yes or no, by its first word or as a whole, in English or Chinese.

    "The answer is" may precede the word, as it may precede a choice.
    """
    unmarked = folding.unmarked(numbers.BULLET.sub("", text[:_MAX_TEXT]))
    plain = _after_introduction(unmarked).casefold().strip(_AROUND)
    if _NEITHER.match(plain):
        return None
    words = re.split(r"[\s,.;:!、。(\u2013\u2014\"”]+", plain, maxsplit=1)
    if words[0] in _YES:
        return True
    return False if words[0] in _NO else None


def choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option that ``text`` equals, or whose letter (A is the first) it equals or starts with.

    The text of an option takes precedence over letters. A letter and a text that name different options are not a
    choice. If the options are single letters, the text that the question gives for them may follow (``C. a cat``).
    """
    if all(_folded(text) != _folded(option) for option in options):
        text = numbers.BULLET.sub("", text[:_MAX_TEXT])
    plain = _folded(text)
    introduced = _after_introduction(plain)
    short = _REASON.sub("", introduced)
    for reading in (plain, introduced, short):
        if named := _named(reading, options):
            return _only(named)
    for reading in (introduced, short):
        if named := _by_letter(reading, options):
            return _only(named)
    return _only(_lettered(_after_introduction(folding.unmarked(text[:_MAX_TEXT])), options))


def _only(options: set[str]) -> str | None:
    return options.pop() if len(options) == 1 else None


def _by_letter(plain: str, options: Sequence[str]) -> set[str]:
    """Return the option whose letter ``plain`` equals or starts with, if the text after it names no other option."""
    letter = _LETTER.match(plain)
    rest = plain[letter.end() :].strip(" .:),-\u2013\u2014") if letter else ""
    if letter is None and (letter := _LETTER_AFTER.search(plain)):
        rest = plain[: letter.start()]
    index = ord(letter[1]) - ord("a") if letter else len(options)
    if index >= len(options) or (rest and options[index] not in _named(rest, options)):
        return set()
    return {options[index]}


def structured(text: str, schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the JSON object in ``text`` if it is an instance of ``schema``; see :mod:`jobs.answers.json_schema`.

    JSON that is nested more than :data:`MAX_JSON_DEPTH` deep is not read. Integers that not every JSON parser
    represents exactly become floats. Characters that a database cannot store are replaced.
    """
    if len(text) > _MAX_JSON:
        return None
    try:
        # Grammars admit unescaped control characters.
        value = json.loads(
            text, strict=False, parse_int=_integer, parse_float=_finite, parse_constant=_refuse
        )
        value = _storable(value, MAX_JSON_DEPTH)
        return value if isinstance(value, dict) and json_schema.holds(schema, value) else None
    except (ValueError, RecursionError):
        return None


def _integer(digits: str) -> int | float:
    number = _finite(digits)
    return int(number) if abs(number) < 2**53 else number


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("the number is too large")
    return number


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _storable(value: Any, depth: int) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON value without NUL and lone surrogates.

    Raises:
        ValueError: objects and arrays are nested more than ``depth`` deep.
    """
    if isinstance(value, str):
        return (
            value.replace("\x00", "\ufffd")
            .encode("utf-16", "surrogatepass")
            .decode("utf-16", "replace")
        )
    if isinstance(value, list | dict) and not depth:
        raise ValueError("the JSON is nested too deeply")
    if isinstance(value, list):
        return [_storable(part, depth - 1) for part in value]
    if isinstance(value, dict):
        return {_storable(name, depth): _storable(part, depth - 1) for name, part in value.items()}
    return value


def _named(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that ``plain`` names: exactly, without spaces, by their meaning, or as "the … one"."""
    readings: tuple[Callable[[str], Hashable], ...] = (_folded, _bare, _meaning, _thing)
    for reading in readings:
        read_plain = reading(plain)
        if named := {option for option in options if reading(option) == read_plain}:
            return named
    return set()


def _meaning(text: str) -> Hashable:
    return meaning.read(text).key


def _thing(text: str) -> str:
    """Return the words of a text without its article and a pronoun: the red one."""
    return _ARTICLE.sub("", _folded(text))


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", _folded(text)).strip(_AROUND).split())


def _lettered(plain: str, options: Sequence[str]) -> set[str]:
    """Return the options that ``plain`` starts with or mentions, if it explains one and all options are letters."""
    letters = {option.strip(_AROUND).upper(): option for option in options}
    explained = _EXPLAINED.match(plain)
    if (
        explained is None
        or len(letters) < len(options)
        or any(len(letter) != 1 for letter in letters)
    ):
        return set()
    mentioned = {explained[1].upper(), *re.findall(r"\b[A-Z]\b", plain[explained.end() :])}
    return {letters[letter] for letter in mentioned if letter in letters}


def _after_introduction(plain: str) -> str:
    """Return the text after "the answer is"; all of it if it says what the answer is not."""
    introduction = _INTRODUCTION.match(plain)
    if introduction is None or _NEGATION.search(introduction["before"]):
        return plain
    return plain[introduction.end() :]


def _folded(text: str) -> str:
    """Return the start of ``text`` without differences in case, spaces, markup and final periods."""
    return " ".join(folding.unmarked(text[:_MAX_TEXT]).casefold().split()).rstrip(" .。")
