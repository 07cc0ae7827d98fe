r"""Filters for lists of jobs, and the query language for them. Pure.

::

    status:failed error:timeout created:>2h meta.case:42 image:1f2e… pelican "six of them"

Qualifiers, words and phrases are separated by spaces, and all must match; several ``status:`` (or ``error:``) match any
of them. A word or phrase must occur in the question, the answer or the trace. A phrase, a value, or a key after
``meta.`` with spaces, quotes or colons must be in double quotes, in which ``\"`` and ``\\`` mean a quote and a
backslash.

``rerun:none`` matches jobs without a rerun, and ``rerun:any`` the others. ``operation:op_…`` matches the jobs
that an operation has changed or, as reruns, submitted.
``id:`` is an id or its first characters (``id:job_0190ab``). ``account:`` is a name or an id. ``crashes:>0`` is the
number of attempts that were lost with their worker. ``engine:`` and ``worker:`` match jobs with an attempt there.

``created:`` compares a time (``2026-11-23``, ``2026-11-23T10:00:00Z``) with the job's creation, and a duration
(``90s``, ``10m``, ``2h``, ``7d``) with its age: ``created:<2h`` means created within the last two hours,
``created:>2h`` before that.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from core import errors, ids
from jobs import findings
from jobs.lifecycle import Status
from jobs.phrases import Phrase

_Kind = TypeVar("_Kind", bound=enum.StrEnum)

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
_ABOVE = re.compile(r"(?P<sign>>=?)(?P<number>[0-9]{1,6})", re.ASCII)
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
#: Qualifiers, words and phrases of one query.
_MAX_TERMS = 100
#: Metadata pairs of one query, and of one job.
_MAX_PAIRS = 16
#: The values of ``rerun:``.
_RERUN = ("none", "any")
#: Alias of an error code -> the code.
_ERROR_ALIASES = {"timeout": "deadline_exceeded"}


@dataclass(frozen=True)
class Filter:
    """The jobs to list. ``created_after`` is inclusive and ``created_before`` exclusive."""

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
    #: ``none``: jobs that nobody has rerun; ``any``: the others.
    rerun: str | None = None
    #: Jobs that this operation has changed or submitted.
    operation_id: uuid.UUID | None = None
    #: The first and the last possible id.
    first_id: uuid.UUID | None = None
    last_id: uuid.UUID | None = None
    #: Name or id of an account. It narrows ``account_id`` and never widens it.
    account: str | None = None
    #: More crashes than this.
    crashes_above: int | None = None
    #: Address of an engine that ran an attempt.
    engine: str | None = None
    #: ID of a worker that ran an attempt.
    worker: str | None = None
    #: Texts in question, answer or trace; input of :meth:`jobs.phrases.Phrase.of`.
    phrases: Sequence[str] = ()

    @property
    def given(self) -> dict[str, Any]:
        """The conditions by name, without the account."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name != "account_id" and (value or isinstance(value, int))
        }

    @property
    def only_phrases(self) -> bool:
        """Whether it has words and phrases, and no qualifier: a text that a caller may not have meant as a query."""
        return set(self.given) == {"phrases"}


class _InvalidTerm(Exception):
    """A term is invalid; the message is for the client."""


@dataclass(frozen=True)
class _Term:
    """A term of the query: ``name.key:value``, or only a value."""

    #: Position of its first character, from 1.
    position: int
    name: str | None
    key: str | None
    value: str
    whole: bool


def parse(text: str, *, now: datetime) -> Filter:
    """Return the filter of a query, for any account; ages are relative to ``now``.

    Raises:
        core.errors.InvalidRequest: the query is invalid; the error lists all faults with their positions.
    """
    conditions: dict[str, Any] = {}
    faults: list[errors.Fault] = []
    terms = list(_terms(text))
    if len(terms) > _MAX_TERMS:
        message = f"At most {_MAX_TERMS} qualifiers, words and phrases are allowed; there are {len(terms)}."
        raise errors.InvalidRequest(
            f"q: {message}", faults=(errors.Fault("q", message),), param="q"
        )
    for term in terms:
        try:
            _add(conditions, _read(term, now))
        except _InvalidTerm as invalid:
            faults.append(errors.Fault("q", f"Character {term.position}: {invalid}"))
    if len(conditions.get("metadata", ())) > _MAX_PAIRS:
        faults.append(errors.Fault("q", f"At most {_MAX_PAIRS} metadata pairs are allowed."))
    if len(conditions.get("phrases", ())) > _MAX_PHRASES:
        faults.append(errors.Fault("q", f"At most {_MAX_PHRASES} words and phrases are allowed."))
    if faults:
        message = " ".join(fault.detail for fault in faults)
        raise errors.InvalidRequest(f"q: {message}", faults=tuple(faults), param="q")
    return Filter(account_id=None, **conditions)


def parse_for_change(text: str, *, now: datetime) -> Filter:
    """Return the filter of a query whose jobs are to be changed: :func:`parse`, with further checks.

    Raises:
        core.errors.InvalidRequest: as :func:`parse`; the query has no term; or one of its words is a mistyped id, which
            would match all jobs with such a text.
    """
    parsed = parse(text, now=now)
    details = [
        f"{phrase} is an ID, and not a query: name one job by its ID alone, or write id:job_… for one in a query."
        for phrase in parsed.phrases
        if ids.meant(phrase)
    ]
    if not parsed.given:
        details.append("The query must have at least one term.")
    if details:
        raise errors.InvalidRequest(
            f"q: {' '.join(details)}",
            faults=tuple(errors.Fault("q", detail) for detail in details),
            param="q",
        )
    return parsed


def _terms(text: str) -> Iterator[_Term]:
    """Yield the terms of ``text``, including malformed ones."""
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
            whole=not match["rest"] and (match["value"] is not None),
        )
        start = match.end()


def _read(term: _Term, now: datetime) -> dict[str, Any]:
    """Return the conditions of ``term``, by fields of the filter."""
    if not term.whole:
        raise _InvalidTerm("A value is missing, or a quote is not closed or ends inside a word.")
    if term.name is None:
        return _phrase(term.value)
    if (term.name == "meta") != (term.key is not None) or term.name not in _QUALIFIERS:
        shown = "`, `".join(f"{name}:" if name != "meta" else "meta.KEY:" for name in _QUALIFIERS)
        raise _InvalidTerm(f"Unknown qualifier; use one of `{shown}`, or put text in quotes.")
    return _QUALIFIERS[term.name](term, now)


def _add(conditions: dict[str, Any], new: dict[str, Any]) -> None:
    """Add the conditions of one term to those of the terms before it."""
    for name, value in new.items():
        if isinstance(value, tuple):
            conditions[name] = tuple(dict.fromkeys((*conditions.get(name, ()), *value)))
        elif isinstance(value, dict) and not value.keys() & conditions.get(name, {}).keys():
            conditions[name] = conditions.get(name, {}) | value
        elif name in conditions:
            raise _InvalidTerm("This qualifier must occur only once.")
        else:
            conditions[name] = value


def _phrase(text: str) -> dict[str, Any]:
    try:
        Phrase.of(text)
    except ValueError as error:
        raise _InvalidTerm(str(error)) from None
    return {"phrases": (text,)}


def _status(term: _Term, _now: datetime) -> dict[str, Any]:
    return {"statuses": (_member(Status, term),)}


def _error(term: _Term, _now: datetime) -> dict[str, Any]:
    if not _ERROR.fullmatch(term.value):
        raise _InvalidTerm("The error must be an error code, such as engine_fault.")
    return {"error_codes": (_ERROR_ALIASES.get(term.value, term.value),)}


def _finding(term: _Term, _now: datetime) -> dict[str, Any]:
    return {"findings": (_member(findings.FindingKind, term),)}


def _member(kind: type[_Kind], term: _Term) -> _Kind:
    try:
        return kind(term.value)
    except ValueError:
        raise _InvalidTerm(f"The {term.name} must be one of {', '.join(kind)}.") from None


def _meta(term: _Term, _now: datetime) -> dict[str, Any]:
    if not term.key or "\x00" in term.key + term.value:
        raise _InvalidTerm("Metadata must have a key and a value, such as meta.case:42.")
    return {"metadata": {term.key: term.value}}


def _image(term: _Term, _now: datetime) -> dict[str, Any]:
    image_id = ids.parse("img", term.value)
    if image_id is not None:
        return {"image_id": image_id}
    if _SHA256.fullmatch(term.value):
        return {"image_sha256": term.value}
    raise _InvalidTerm("The image must be an image ID, or the SHA-256 of a file in hex.")


def _group(term: _Term, _now: datetime) -> dict[str, Any]:
    group_id = ids.parse("grp", term.value)
    if group_id is None:
        raise _InvalidTerm("The group must be a group ID.")
    return {"group_id": group_id}


def _rerun(term: _Term, _now: datetime) -> dict[str, Any]:
    if term.value not in _RERUN:
        raise _InvalidTerm(f"The rerun must be one of {', '.join(_RERUN)}.")
    return {"rerun": term.value}


def _operation(term: _Term, _now: datetime) -> dict[str, Any]:
    operation_id = ids.parse("op", term.value)
    if operation_id is None:
        raise _InvalidTerm("The operation must be an operation ID.")
    return {"operation_id": operation_id}


def _id(term: _Term, _now: datetime) -> dict[str, Any]:
    bounds = ids.prefix("job", term.value)
    if bounds is None:
        raise _InvalidTerm(
            f"The ID must be that of a job, or at least {ids.MIN_PREFIX} of its first characters after job_."
        )
    return {"first_id": bounds[0], "last_id": bounds[1]}


def _account(term: _Term, _now: datetime) -> dict[str, Any]:
    return {"account": _text(term)}


def _engine(term: _Term, _now: datetime) -> dict[str, Any]:
    return {"engine": _text(term)}


def _worker(term: _Term, _now: datetime) -> dict[str, Any]:
    return {"worker": _text(term)}


def _text(term: _Term) -> str:
    if not term.value or "\x00" in term.value:
        raise _InvalidTerm(f"The {term.name} must not be empty.")
    return term.value


def _crashes(term: _Term, _now: datetime) -> dict[str, Any]:
    match = _ABOVE.fullmatch(term.value)
    if match is None:
        raise _InvalidTerm("The crashes must be a minimum, such as crashes:>0.")
    return {"crashes_above": int(match["number"]) - (match["sign"] == ">=")}


def _created(term: _Term, now: datetime) -> dict[str, Any]:
    match = _COMPARISON.fullmatch(term.value)
    sign, value = (match["sign"] or "", match["value"]) if match else ("", "")
    try:
        return _bounds(sign, value, now)
    except (ValueError, OverflowError):
        raise _InvalidTerm(
            "The creation must be an age or a time with its time zone, after <, <=, > or >= "
            "(<2h, >=2026-11-23T10:00:00Z), or a day (2026-11-23)."
        ) from None


def _bounds(sign: str, value: str, now: datetime) -> dict[str, Any]:
    """Return the bounds of ``created_at``. Raises ValueError or OverflowError for an invalid value."""
    age = _AGE.fullmatch(value)
    if age and sign:
        then = now - int(age["number"]) * _UNITS[age["unit"]]
        # A greater age means an earlier time.
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
    "rerun": _rerun,
    "operation": _operation,
    "id": _id,
    "account": _account,
    "crashes": _crashes,
    "engine": _engine,
    "worker": _worker,
}


def _unquoted(word: str) -> str:
    return _ESCAPED.sub(r"\1", word[1:-1]) if word.startswith('"') else word
