r"""Filters for lists of jobs, and the query language for them. Pure: the API and the command line share it.

::

    status:failed error:timeout created:>2h meta.case:42 image:1f2e… pelican "six of them"

Spaces separate qualifiers, words and phrases, and a job must match all of them; of several ``status:`` (or ``error:``)
it must match one. A word or a phrase must be in the question, the answer or the trace. Phrases, values, and keys after
``meta.`` that contain spaces, quotes or colons must be in double quotes, in which ``\"`` and ``\\`` mean a quote and a
backslash.

``created:`` compares a time (``2026-11-23``, ``2026-11-23T10:00:00Z``) with the time of submission, and a duration
(``90s``, ``10m``, ``2h``, ``7d``) with the age of the job: ``created:<2h`` matches the jobs of the last two hours,
``created:>2h`` older ones.
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
_PLAIN_VALUE = re.compile(r'[^\s":]+')
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
#: The smallest difference between two times.
_TICK = timedelta(microseconds=1)
_MAX_PHRASES = 8
#: Qualifiers, words and phrases of one query; each becomes a condition or a fault.
_MAX_TERMS = 100
#: Pairs of metadata; a job cannot have more.
_MAX_PAIRS = 16
#: Common names of errors, and their codes.
_ERROR_NAMES = {"timeout": "deadline_exceeded"}


@dataclass(frozen=True)
class Filter:
    """Conditions for jobs. The times are bounds of ``created_at``: the lower is inclusive, the upper exclusive."""

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
    #: Texts in question, answer or trace, each a valid argument of :meth:`jobs.phrases.Phrase.of`.
    phrases: Sequence[str] = ()

    @property
    def conditions(self) -> dict[str, Any]:
        """The conditions by name, without the account."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if name != "account_id" and value}


class _TermError(Exception):
    """A fault in a qualifier; the message is for the client."""


@dataclass(frozen=True)
class _Term:
    """A qualifier as written, ``name.key:value``, or a value alone."""

    #: Position of its first character, from 1.
    position: int
    name: str | None
    key: str | None
    value: str
    #: Whether it has a value, and its quotes are closed.
    complete: bool


def parse(text: str, *, now: datetime) -> Filter:
    """Return the filter for the query ``text``, without an account; ages are relative to ``now``.

    Raises:
        core.errors.InvalidRequest: the query has faults; the error lists all of them with their positions.
    """
    requested: dict[str, Any] = {}
    faults: list[errors.Fault] = []
    terms = list(_terms(text))
    if len(terms) > _MAX_TERMS:
        message = f"At most {_MAX_TERMS} qualifiers, words and phrases are allowed; there are {len(terms)}."
        raise errors.InvalidRequest(
            f"q: {message}", faults=(errors.Fault("q", message),), param="q"
        )
    for term in terms:
        try:
            _add(requested, _read(term, now))
        except _TermError as error:
            faults.append(errors.Fault("q", f"Character {term.position}: {error}"))
    for name, limit, label in (
        ("metadata", _MAX_PAIRS, "pairs of metadata"),
        ("phrases", _MAX_PHRASES, "words and phrases"),
    ):
        if (count := len(requested.get(name, ()))) > limit:
            message = f"At most {limit} {label} are allowed; there are {count}."
            faults.append(errors.Fault("q", message))
    if faults:
        message = " ".join(fault.detail for fault in faults)
        raise errors.InvalidRequest(f"q: {message}", faults=tuple(faults), param="q")
    return Filter(account_id=None, **requested)


def render(requested: Filter) -> str:
    """Return the query that :func:`parse` parses to ``requested``, apart from the account."""
    terms = [f"status:{status.value}" for status in requested.statuses]
    terms += [f"error:{code}" for code in requested.error_codes]
    terms += [f"finding:{kind.value}" for kind in requested.findings]
    if requested.created_after is not None:
        terms.append(f"created:>={_timestamp(requested.created_after)}")
    if requested.created_before is not None:
        terms.append(f"created:<{_timestamp(requested.created_before)}")
    terms += [f"meta.{_word(key)}:{_word(value)}" for key, value in requested.metadata.items()]
    if requested.image_id is not None:
        terms.append(f"image:{ids.show('img', requested.image_id)}")
    if requested.image_sha256 is not None:
        terms.append(f"image:{requested.image_sha256}")
    if requested.group_id is not None:
        terms.append(f"group:{ids.show('grp', requested.group_id)}")
    terms += map(_quoted, requested.phrases)
    return " ".join(terms)


def _terms(text: str) -> Iterator[_Term]:
    """Yield the terms of ``text``, including the ones with faulty quotes."""
    start = 0
    while True:
        start += len(text[start:]) - len(text[start:].lstrip())
        if start == len(text):
            return
        match = _TERM.match(text, start)
        assert match is not None  # noqa: S101 - every part of the pattern may be empty
        yield _Term(
            position=start + 1,
            name=match["name"],
            key=None if match["key"] is None else _unquoted(match["key"]),
            value=_unquoted(match["value"] or ""),
            complete=not match["rest"] and (match["value"] is not None),
        )
        start = match.end()


def _read(term: _Term, now: datetime) -> dict[str, Any]:
    """Return the condition of ``term`` as values of the filter's fields."""
    if not term.complete:
        raise _TermError("A value is missing, or a quote is not closed or ends within a word.")
    if term.name is None:
        return _phrase(term.value)
    if (term.name == "meta") != (term.key is not None) or term.name not in _QUALIFIERS:
        shown = "`, `".join(f"{name}:" if name != "meta" else "meta.KEY:" for name in _QUALIFIERS)
        raise _TermError(
            f"This qualifier does not exist. The qualifiers are `{shown}`; put text with a colon in quotes."
        )
    return _QUALIFIERS[term.name](term, now)


def _add(requested: dict[str, Any], new: dict[str, Any]) -> None:
    """Add the condition of one qualifier to the conditions of the qualifiers before it."""
    for name, value in new.items():
        if isinstance(value, tuple):
            requested[name] = tuple(dict.fromkeys((*requested.get(name, ()), *value)))
        elif isinstance(value, dict) and not value.keys() & requested.get(name, {}).keys():
            requested[name] = requested.get(name, {}) | value
        elif name in requested:
            raise _TermError("This qualifier must occur only once.")
        else:
            requested[name] = value


def _phrase(text: str) -> dict[str, Any]:
    try:
        Phrase.of(text)
    except ValueError as error:
        raise _TermError(str(error)) from None
    return {"phrases": (text,)}


def _status(term: _Term, _now: datetime) -> dict[str, Any]:
    try:
        return {"statuses": (Status(term.value),)}
    except ValueError:
        raise _TermError(f"A status must be one of {', '.join(Status)}.") from None


def _error(term: _Term, _now: datetime) -> dict[str, Any]:
    if not _ERROR.fullmatch(term.value):
        raise _TermError("The value must be an error code, such as engine_fault.")
    return {"error_codes": (_ERROR_NAMES.get(term.value, term.value),)}


def _finding(term: _Term, _now: datetime) -> dict[str, Any]:
    try:
        return {"findings": (findings.FindingKind(term.value),)}
    except ValueError:
        raise _TermError(f"A finding must be one of {', '.join(findings.FindingKind)}.") from None


def _meta(term: _Term, _now: datetime) -> dict[str, Any]:
    if not term.key or "\x00" in term.key + term.value:
        raise _TermError("Metadata must be a key and a value, such as meta.case:42.")
    return {"metadata": {term.key: term.value}}


def _image(term: _Term, _now: datetime) -> dict[str, Any]:
    image_id = ids.parse("img", term.value)
    if image_id is not None:
        return {"image_id": image_id}
    if _SHA256.fullmatch(term.value):
        return {"image_sha256": term.value}
    raise _TermError("An image must be an image id or the SHA-256 of a file in lowercase hex.")


def _group(term: _Term, _now: datetime) -> dict[str, Any]:
    group_id = ids.parse("grp", term.value)
    if group_id is None:
        raise _TermError("A group must be the id of a group.")
    return {"group_id": group_id}


def _created(term: _Term, now: datetime) -> dict[str, Any]:
    match = _COMPARISON.fullmatch(term.value)
    sign, value = (match["sign"] or "", match["value"]) if match else ("", "")
    try:
        return _bounds(sign, value, now)
    except (ValueError, OverflowError):
        raise _TermError(
            "The value must be an age or a time with a time zone after <, <=, > or >= "
            "(<2h, >=2026-11-23T10:00:00Z), or a day (2026-11-23)."
        ) from None


def _bounds(sign: str, value: str, now: datetime) -> dict[str, Any]:
    """Return the bounds of ``created_at``. Raises ValueError or OverflowError if the value is invalid."""
    age = _AGE.fullmatch(value)
    if age and sign:
        moment = now - int(age["number"]) * _UNITS[age["unit"]]
        # A greater age means an earlier time.
        sign = {"<": ">", ">": "<"}[sign[0]] + sign[1:]
    elif _DAY.fullmatch(value):
        moment = datetime.fromisoformat(value).replace(tzinfo=UTC)
        if not sign:
            return {"created_after": moment, "created_before": moment + timedelta(days=1)}
    else:
        moment = datetime.fromisoformat(value)
    if moment.tzinfo is None or not sign:
        raise ValueError(value)
    moment = moment.astimezone(UTC)
    match sign:
        case ">=":
            return {"created_after": moment}
        case ">":
            return {"created_after": moment + _TICK}
        case "<":
            return {"created_before": moment}
        case _:
            return {"created_before": moment + _TICK}


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


def _word(text: str) -> str:
    """Return ``text`` for use in a qualifier, in quotes if necessary."""
    return text if _PLAIN_VALUE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
