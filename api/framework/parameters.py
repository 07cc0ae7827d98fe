"""Path, query, headers and bodies into pydantic models, and pydantic's faults into ours."""

from __future__ import annotations

import functools
import re
import typing
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from werkzeug.datastructures import Headers, MultiDict

from api import errors as problems
from core import errors

Model = TypeVar("Model", bound=BaseModel)
Place = tuple[str | int, ...]
#: Says of an unknown field, by its place, what is wrong with it and under which code.
Unknown = Callable[[Place], tuple[str, str]]

#: What pydantic finds, in our words. In braces: the values of the finding.
_SENTENCES = {
    "missing": "This is required.",
    "extra_forbidden": "There is no such field.",
    "string_type": "This has to be text.",
    "string_too_short": "This has to have at least {min_length} character(s).",
    "string_too_long": "This has to have at most {max_length} characters.",
    "int_type": "This has to be a whole number.",
    "int_parsing": "This has to be a whole number.",
    "int_parsing_size": "This number is too large.",
    "int_from_float": "This has to be a whole number.",
    "float_type": "This has to be a number.",
    "float_parsing": "This has to be a number.",
    "greater_than": "This has to be more than {gt}.",
    "greater_than_equal": "This has to be at least {ge}.",
    "less_than": "This has to be less than {lt}.",
    "less_than_equal": "This has to be at most {le}.",
    "literal_error": "This has to be {expected}.",
    "list_type": "This has to be a list.",
    "dict_type": "This has to be an object.",
    "model_type": "This has to be an object.",
    "too_short": "There has to be at least {min_length}.",
    "too_long": "There may be at most {max_length}; there are {actual_length}.",
}
#: Parameters of one request, at most.
MAX_PARAMETERS = 100
#: ``metadata[case]=42``, OpenAPI's ``deepObject``.
_MEMBER = re.compile(r"^([a-z_]+)\[(.*)\]$", re.DOTALL)


def parse(model: type[Model], values: object) -> Model:
    """Return ``values`` (of the path, query or headers) as ``model``.

    Raises:
        core.errors.InvalidRequest: with every fault, by the names of the parameters.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise problems.refused(faults_of(error, base=None)) from None


def of_query(model: type[BaseModel], arguments: MultiDict[str, str]) -> dict[str, Any]:
    """Return the query's values by name: lists where ``model`` has lists, objects where it has objects.

    Raises:
        core.errors.InvalidRequest: there are too many, or one that is no list is given more than once.
    """
    given = sum(len(texts) for _, texts in arguments.lists())
    if given > MAX_PARAMETERS:
        sentence = f"There may be at most {MAX_PARAMETERS} parameters; there are {given:,}."
        raise problems.refused([errors.Fault("query", sentence)])
    kinds = _kinds(model)
    repeated = [
        errors.Fault(problems.shown(name), "This may be given only once.")
        for name, texts in arguments.lists()
        if len(texts) > 1 and kinds.get(name) is not list
    ]
    if repeated:
        raise problems.refused(repeated)
    values: dict[str, Any] = {}
    for name in arguments:
        member = _MEMBER.match(name)
        if kinds.get(name) is list:
            values[name] = arguments.getlist(name)
        elif member is not None and kinds.get(member[1]) is dict:
            values.setdefault(member[1], {})[member[2]] = arguments[name]
        else:
            values[name] = arguments[name]
    return values


def of_headers(model: type[BaseModel], headers: Headers) -> dict[str, str]:
    """Return those headers that ``model`` names, by its aliases."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: headers[name] for name in names if name in headers}


def faults_of(
    error: ValidationError, *, base: str | None = "#", unknown: Unknown | None = None
) -> list[errors.Fault]:
    """Return what pydantic found as faults.

    Args:
        error: pydantic's finding.
        base: the JSON pointer of what was checked, None for parameters, which go by their name.
        unknown: says what is wrong with a field that is not known, for more than a bare no.
    """
    found = error.errors(include_url=False, include_input=False)
    return [_fault(detail, base, unknown) for detail in found]


def _fault(detail: ErrorDetails, base: str | None, unknown: Unknown | None) -> errors.Fault:
    place = detail["loc"]
    if place and place[-1] == "[key]":
        place = place[:-1]
    context = detail.get("ctx", {})
    kind, code = detail["type"], errors.Fault.code
    if kind == "value_error":
        # Raised by our own validators, which may name a code.
        raised = context["error"]
        sentence, code = str(raised), getattr(raised, "code", code)
    elif kind == "extra_forbidden" and base is None:
        sentence = "There is no such parameter."
    elif kind == "extra_forbidden" and unknown is not None:
        sentence, code = unknown(place)
    else:
        values = {name: _plain(value) for name, value in context.items()}
        sentence = _SENTENCES.get(kind, "This is not valid.").format(**values)
    if base is None:
        return errors.Fault(problems.shown(str(place[0])) if place else "query", sentence, code)
    return errors.Fault(base + problems.pointer(*place)[1:], sentence, code)


def _plain(value: object) -> object:
    """Return 2.0 as 2, and a count that is not known as ``more``."""
    if value is None:
        return "more"
    return int(value) if isinstance(value, float) and value.is_integer() else value


@functools.cache
def _kinds(model: type[BaseModel]) -> dict[str, type]:
    """Return which parameters of ``model`` are lists or objects."""
    return {name: _kind(field.annotation) for name, field in model.model_fields.items()}


def _kind(annotation: Any) -> type:  # noqa: ANN401 - any type's own annotation
    origin = typing.get_origin(annotation)
    if origin in (list, dict):
        return typing.cast("type", origin)
    inner = [_kind(part) for part in typing.get_args(annotation)]
    return next((kind for kind in inner if kind in (list, dict)), str)
