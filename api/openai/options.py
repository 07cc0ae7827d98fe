"""The options of a job from the fields of OpenAI's requests, for Responses and for chat completions.

A client sends the options that OpenAI has no name for in the body field ``options`` (``extra_body`` in the official
clients): :data:`EXTRA`. All others have OpenAI's own names. :func:`job_options` validates both together and returns
each fault with the place in the client's request.
"""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, ValidationError

from api import errors as problems
from api import framework
from api.openai import dialects
from api.schemas import requests
from core import errors
from core.profiles import ModelProfile

ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

#: The names of native options that may be in ``options``.
EXTRA: Final = frozenset(
    {
        "samples",
        "guards",
        "answer_format",
        "priority",
        "deadline_seconds",
        "max_attempts",
        "seed",
        "webhook",
        "detail",
    }
)
_UNSUPPORTED: Final = "unsupported_parameter"
#: What 0 means as ``top_p``, which OpenAI accepts and engines refuse: the most likely token alone.
_LEAST_TOP_P: Final = 1e-6


#: Below this, a float is the number that was sent.
_EXACT: Final = 2**53


def _whole(value: object) -> object:
    """Return 100.0 as 100: JSON does not tell them apart, and some clients compute their limits."""
    exact = isinstance(value, float) and abs(value) < _EXACT and value.is_integer()
    return int(typing.cast("float", value)) if exact else value


#: An integer of OpenAI's own fields; 100.0 is one.
Whole = Annotated[int, BeforeValidator(_whole)]


def effort_tokens(effort: Effort | None, profile: ModelProfile) -> int | None:
    """Return the token budget of a reasoning effort, None for the default.

    ``medium`` is the model's default; ``low``, ``minimal`` and ``none`` are a half, a quarter and an eighth of it;
    ``high`` is halfway to the model's maximum, and ``xhigh`` and ``max`` are the maximum.
    """
    default, most = profile.default_output_tokens, profile.max_output_tokens
    budgets: dict[str, int] = {
        "none": default // 8,
        "minimal": default // 4,
        "low": default // 2,
        "medium": default,
        "high": (default + most) // 2,
        "xhigh": most,
        "max": most,
    }
    return None if effort is None else budgets[effort]


def output_tokens(
    requested: int | None, effort: Effort | None, profile: ModelProfile
) -> int | None:
    """Return the token budget: the lower one of the requested and that of the effort, at most the model's maximum.

    A request for more than the model's maximum gets the maximum: clients send limits that are made for other models.
    """
    limits = [limit for limit in (requested, effort_tokens(effort, profile)) if limit is not None]
    return min([*limits, profile.max_output_tokens]) if limits else None


def split(
    body: Mapping[str, Any], *, ignored: Collection[str], refused: Mapping[str, str]
) -> tuple[dict[str, Any], list[errors.Fault]]:
    """Return the fields of ``body`` that are read, and the faults of those that are refused.

    Args:
        body: the JSON of the request.
        ignored: the names of fields that are accepted and have no effect.
        refused: the sentence for each field that is refused unless it is null, false or empty.
    """
    faults = [
        errors.Fault(f"#/{name}", refused[name], _UNSUPPORTED)
        for name in body
        if name in refused and body[name] not in (None, False, [], {}, "")
    ]
    read = {name: body[name] for name in body if name not in ignored and name not in refused}
    return read, faults


def without_faults(read: Mapping[str, Any], error: ValidationError) -> dict[str, Any]:
    """Return the fields without faults in ``error``: they may have other faults, which the caller names too."""
    faulty = {detail["loc"][0] for detail in error.errors() if detail["loc"]}
    return {name: value for name, value in read.items() if name not in faulty}


def implied(extra: object, given: Mapping[str, Any]) -> object:
    """Return the body field ``options`` with what other fields imply; its own values win."""
    if extra is None:
        return dict(given)
    return {**given, **extra} if isinstance(extra, dict) else extra


def unknown(place: tuple[str | int, ...]) -> tuple[str, str]:
    """Return the message and the code for an unknown field of a request."""
    if len(place) == 1 and place[0] in EXTRA:
        return f"`{place[0]}` belongs inside `options`.", errors.Fault.code
    return "There is no such field.", "unknown_parameter"


def job_options(
    own: Mapping[str, Any],
    places: Mapping[str, str],
    extra: object,
    *,
    limits: requests.RequestLimits,
    faults: list[errors.Fault],
) -> requests.JobOptions | None:
    """Return the options of a job; append the faults to ``faults``, with which the result may be None.

    Args:
        own: native options from OpenAI's own fields, without None.
        places: the JSON pointer in the request for each name in ``own``.
        extra: the body field ``options``, None without it.
        limits: of the installation.
        faults: gets the faults.
    """
    valid = extra is None or isinstance(extra, dict)
    if not valid:
        faults.append(errors.Fault("#/options", "This must be an object."))
    extra = extra if isinstance(extra, dict) else {}
    for name in extra:
        if name not in EXTRA:
            known = name in requests.JobOptions.model_fields
            sentence = (
                "This has a name of its own in this request, next to `options`."
                if known
                else "There is no such option."
            )
            faults.append(errors.Fault(problems.pointer("options", name), sentence))
        elif name in own:
            sentence = f"This is given twice, here and as `{problems.name_of(places[name])}`."
            faults.append(errors.Fault(f"#/options/{name}", sentence))
    together = {name: value for name, value in extra.items() if name in EXTRA} | dict(own)
    if own.get("top_p") == 0 and not isinstance(own["top_p"], bool):
        together["top_p"] = _LEAST_TOP_P
    try:
        options = requests.JobOptions.model_validate(together, context=limits)
    except ValidationError as error:
        invalid = framework.faults_of(error, unknown=requests.unknown)
        faults += (_placed(fault, own, places) for fault in invalid)
        return None
    return options if valid else None


def shown_top_p(top_p: float | None) -> float | None:
    """Return the ``top_p`` of a job as its client sent it."""
    return 0.0 if top_p == _LEAST_TOP_P else top_p


def answer_format(
    kind: str, schema: dict[str, Any] | None, place: str, faults: list[errors.Fault]
) -> dict[str, Any] | None:
    """Return the native answer format of a text or response format; append a fault for one that is not supported.

    Args:
        kind: ``text``, ``json_schema`` or ``json_object``.
        schema: the JSON Schema, for ``json_schema``.
        place: the JSON pointer of the format.
        faults: gets the fault.
    """
    if kind == "json_object":
        return {"type": "json_object"}
    if kind != "json_schema":
        return None
    if schema is None:
        faults.append(errors.Fault(f"{place}/schema", "This must be a JSON Schema."))
        return None
    dialect = schema.get("$schema", "")
    if not isinstance(dialect, str) or "\x00" in dialect:
        # It is shown again, and PostgreSQL cannot store NUL.
        sentence = "This must be text without NUL characters."
        faults.append(errors.Fault(f"{place}/schema/$schema", sentence))
        return None
    return {"type": "json_schema", "schema": dialects.in_2020_12(schema)}


def _placed(fault: errors.Fault, own: Mapping[str, Any], places: Mapping[str, str]) -> errors.Fault:
    """Return a fault of the native options with its place in the client's request."""
    name, _, rest = fault.pointer.removeprefix("#/").partition("/")
    if name not in own:
        return errors.Fault(
            f"#/options/{fault.pointer.removeprefix('#/')}", fault.detail, fault.code
        )
    below = f"/{rest}" if rest and not places[name].endswith(f"/{rest}") else ""
    return errors.Fault(places[name] + below, fault.detail, fault.code)
