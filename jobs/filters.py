r"""Which jobs to list, and the words in which people ask for them. Pure: the API, the command line and others share it.

::

    status:failed error:timeout created:>2h meta.case:42 image:1f2e… pelican "six of them"

Qualifiers, words and phrases are separated by spaces and all have to hold; several ``status:`` (or ``error:``) mean
one of them. A word or a phrase has to be in the question, the answer or the trace. A phrase, a value, or the key after
``meta.``, that has spaces, quotes or colons in it stands in double quotes, in which ``\"`` and ``\\`` mean a quote and
a backslash.

Of ``created:`` a time (``2026-11-23``, ``2026-11-23T10:00:00Z``) is compared as it is and a duration (``90s``, ``10m``,
``2h``, ``7d``) as the job's age: ``created:<2h`` came in within the last two hours, ``created:>2h`` before that.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from core import errors, ids
from jobs import findings
from jobs.lifecycle import Status
from jobs.phrases import Phrase

_QUOTED = r'"(?:[^"\\]|\\.)*"'
_TERM = re.compile(
    rf'(?:(?P<name>[^\s":.]+)(?:\.(?P<key>{_QUOTED}|[^\s":]+))?:)?(?P<value>{_QUOTED}|[^\s"]+)?(?P<rest>\S*)',
    re.DOTALL,
)
_ESCAPED = re.compile(r'\\(["\\])')
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ERROR = re.compile(r"[a-z][a-z_]{0,63}")
_COMPARISON = re.compile(r"(?P<sign>[<>]=?)?(?P<value>.+)", re.DOTALL)
_AGE = re.compile(r"(?P<number>[0-9]{1,6})(?P<unit>[smhd])", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
#: The least difference between two times.
_TICK = timedelta(microseconds=1)
_MOST_PHRASES = 8
#: Qualifiers, words and phrases of one query: each is a condition, or a fault.
_MOST_TERMS = 100
#: Pairs of metadata: no job has more.
_MOST_PAIRS = 16
#: What people call an error, and its code.
_ERROR_NAMES = {"timeout": "deadline_exceeded"}


@dataclass(frozen=True)
class Filter:
    """Which jobs to list. Times are bounds of ``created_at``, the first included, the second not."""

    account_id: uuid.UUID | None
    statuses: Sequence[Status] = ()
    error_codes: Sequence[str] = ()
    findings: Sequence[findings.FindingKind] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    image_id: uuid.UUID | None = None
    image_sha256: str | None = None
    group_id: uuid.UUID | None = None
    #: Texts in question, answer or trace, each as :meth:`jobs.phrases.Phrase.of` takes it.
    phrases: Sequence[str] = ()

    @property
    def given(self) -> dict[str, Any]:
        """What is asked for, by name; not whose jobs."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if name != "account_id" and value}


class _Wrong(Exception):
    """A fault in a qualifier; the text is for the caller."""


@dataclass(frozen=True)
class _Term:
    """A qualifier as it was written: ``name.key:value``, or a value alone."""

    #: Of its first character, from 1.
    position: int
    name: str | None
    key: str | None
    value: str
    whole: bool


def parse(text: str, *, now: datetime) -> Filter:
    """Return the filter that ``text`` asks for, of any account; ages are counted from ``now``.

    Raises:
        core.errors.InvalidRequest: with every fault and the position of each.
    """
    requested: dict[str, Any] = {}
    faults: list[errors.Fault] = []
    terms = list(_terms(text))
    if len(terms) > _MOST_TERMS:
        reported = f"There may be at most {_MOST_TERMS} qualifiers, words and phrases; there are {len(terms)}."
        raise errors.InvalidRequest(
            f"q: {reported}", faults=(errors.Fault("q", reported),), param="q"
        )
    for term in terms:
        try:
            _add(requested, _read(term, now))
        except _Wrong as wrong:
            faults.append(errors.Fault("q", f"Character {term.position}: {wrong}"))
    if len(requested.get("metadata", ())) > _MOST_PAIRS:
        faults.append(errors.Fault("q", f"There may be at most {_MOST_PAIRS} pairs of metadata."))
    if len(requested.get("phrases", ())) > _MOST_PHRASES:
        faults.append(errors.Fault("q", f"There may be at most {_MOST_PHRASES} words and phrases."))
    if faults:
        reported = " ".join(fault.detail for fault in faults)
        raise errors.InvalidRequest(f"q: {reported}", faults=tuple(faults), param="q")
    return Filter(account_id=None, **requested)


def _terms(text: str) -> Iterator[_Term]:
    """Yield the qualifiers of ``text``, those that are badly quoted as well."""
    start = 0
    while True:
        start += len(text[start:]) - len(text[start:].lstrip())
        if start == len(text):
            return
        found = _TERM.match(text, start)
        assert found is not None  # noqa: S101 - every part of the pattern may be empty
        yield _Term(
            position=start + 1,
            name=found["name"],
            key=None if found["key"] is None else _unquoted(found["key"]),
            value=_unquoted(found["value"] or ""),
            whole=not found["rest"] and (found["value"] is not None),
        )
        start = found.end()


def _read(term: _Term, now: datetime) -> dict[str, Any]:
    """Return what ``term`` asks for, by the names of the filter's fields."""
    if not term.whole:
        raise _Wrong("Here a value is missing, or a quote is not closed or ends inside of a word.")
    if term.name is None:
        return _phrase(term.value)
    if (term.name == "meta") != (term.key is not None) or term.name not in _QUALIFIERS:
        shown = "`, `".join(f"{name}:" if name != "meta" else "meta.KEY:" for name in _QUALIFIERS)
        raise _Wrong(f"There is no such qualifier. There are `{shown}`; text stands in quotes.")
    return _QUALIFIERS[term.name](term, now)


def _add(requested: dict[str, Any], new: dict[str, Any]) -> None:
    """Put what one qualifier asks for beside what those before it did."""
    for name, value in new.items():
        if isinstance(value, tuple):
            requested[name] = tuple(dict.fromkeys((*requested.get(name, ()), *value)))
        elif isinstance(value, dict) and not value.keys() & requested.get(name, {}).keys():
            requested[name] = requested.get(name, {}) | value
        elif name in requested:
            raise _Wrong("This was asked for before; it can be given only once.")
        else:
            requested[name] = value


def _phrase(text: str) -> dict[str, Any]:
    try:
        Phrase.of(text)
    except ValueError as wrong:
        raise _Wrong(str(wrong)) from None
    return {"phrases": (text,)}


def _status(term: _Term, _now: datetime) -> dict[str, Any]:
    try:
        return {"statuses": (Status(term.value),)}
    except ValueError:
        raise _Wrong(f"A status is one of {', '.join(Status)}.") from None


def _error(term: _Term, _now: datetime) -> dict[str, Any]:
    if not _ERROR.fullmatch(term.value):
        raise _Wrong("This has to be an error's code, such as engine_fault.")
    return {"error_codes": (_ERROR_NAMES.get(term.value, term.value),)}


def _finding(term: _Term, _now: datetime) -> dict[str, Any]:
    try:
        return {"findings": (findings.FindingKind(term.value),)}
    except ValueError:
        raise _Wrong(f"A finding is one of {', '.join(findings.FindingKind)}.") from None


def _meta(term: _Term, _now: datetime) -> dict[str, Any]:
    if not term.key or "\x00" in term.key + term.value:
        raise _Wrong("This has to be a key and a value, such as meta.case:42.")
    return {"metadata": {term.key: term.value}}


def _image(term: _Term, _now: datetime) -> dict[str, Any]:
    image_id = ids.parse("img", term.value)
    if image_id is not None:
        return {"image_id": image_id}
    if _SHA256.fullmatch(term.value):
        return {"image_sha256": term.value}
    raise _Wrong("This has to be an image id or the sha256 of a file in hex.")


def _group(term: _Term, _now: datetime) -> dict[str, Any]:
    group_id = ids.parse("grp", term.value)
    if group_id is None:
        raise _Wrong("This has to be the id of a group.")
    return {"group_id": group_id}


def _created(term: _Term, now: datetime) -> dict[str, Any]:
    found = _COMPARISON.fullmatch(term.value)
    sign, value = (found["sign"] or "", found["value"]) if found else ("", "")
    try:
        return _bounds(sign, value, now)
    except (ValueError, OverflowError):
        raise _Wrong(
            "This has to be an age or a time with its zone, compared by <, <=, > or >= "
            "(<2h, >=2026-11-23T10:00:00Z), or a day (2026-11-23)."
        ) from None


def _bounds(sign: str, value: str, now: datetime) -> dict[str, Any]:
    """Return the bounds of ``created_at``. Raises ValueError or OverflowError for what is none."""
    age = _AGE.fullmatch(value)
    if age and sign:
        then = now - int(age["number"]) * _UNITS[age["unit"]]
        # Who is older than that came in before it.
        sign = {"<": ">", ">": "<"}[sign[0]] + sign[1:]
    elif _DAY.fullmatch(value):
        then = datetime.fromisoformat(value).replace(tzinfo=UTC)
        if not sign:
            return {"created_after": then, "created_before": then + timedelta(days=1)}
    else:
        then = datetime.fromisoformat(value)
    if then.tzinfo is None or not sign:
        raise ValueError(value)
    then = then.astimezone(UTC)
    match sign:
        case ">=":
            return {"created_after": then}
        case ">":
            return {"created_after": then + _TICK}
        case "<":
            return {"created_before": then}
        case _:
            return {"created_before": then + _TICK}


_QUALIFIERS: dict[str, Callable[[_Term, datetime], dict[str, Any]]] = {
    "status": _status,
    "error": _error,
    "finding": _finding,
    "created": _created,
    "meta": _meta,
    "image": _image,
    "group": _group,
}


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word
