"""Reads the query, headers and bodies into pydantic models, and translates pydantic's errors into faults."""

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
#: Returns the message and the code of the fault for an unknown field at this place.
Unknown = Callable[[Place], tuple[str, str]]

#: The message for each type of pydantic error, with placeholders for the values of its context.
_SENTENCES = {
    "missing": "This is required.",
    "extra_forbidden": "There is no such field.",
    "string_type": "This must be a string.",
    "string_too_short": "This must have at least {min_length:,} character(s); it has {actual_length:,}.",
    "string_too_long": "This must have at most {max_length:,} characters; it has {actual_length:,}.",
    "int_type": "This must be an integer.",
    "int_parsing": "This must be an integer.",
    "int_parsing_size": "This number is too large.",
    "int_from_float": "This must be an integer.",
    "bool_type": "This must be true or false.",
    "bool_parsing": "This must be true or false.",
    "float_type": "This must be a number.",
    "float_parsing": "This must be a number.",
    "greater_than": "This must be more than {gt}.",
    "greater_than_equal": "This must be at least {ge}.",
    "less_than": "This must be less than {lt}.",
    "less_than_equal": "This must be at most {le}.",
    "literal_error": "This must be {expected}.",
    "list_type": "This must be a list.",
    "dict_type": "This must be an object.",
    "model_type": "This must be an object.",
    "too_short": "This must have at least {min_length} item(s).",
    "too_long": "This must have at most {max_length} items; it has {actual_length}.",
}
_OF_STRINGS = {"too_short": "string_too_short", "too_long": "string_too_long"}
#: Maximum number of parameters of one request.
MAX_PARAMETERS = 100
#: ``metadata[case]=42``, OpenAPI's ``deepObject``.
_MEMBER = re.compile(r"^([a-z_]+)\[(.*)\]$", re.DOTALL)


def parse(model: type[Model], values: object) -> Model:
    """Return ``values`` (of the query or headers) as ``model``.

    Raises:
        core.errors.InvalidRequest: lists every fault by the name of its parameter.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise problems.refused(faults_of(error, base=None)) from None


def of_query(model: type[BaseModel], arguments: MultiDict[str, str]) -> dict[str, Any]:
    """Return the query's values by name: lists where ``model`` has lists, objects where it has objects.

    Raises:
        core.errors.InvalidRequest: there are too many parameters, or one that is not a list occurs twice.
    """
    count = sum(len(texts) for _, texts in arguments.lists())
    if count > MAX_PARAMETERS:
        sentence = (
            f"A request must have at most {MAX_PARAMETERS} parameters; this one has {count:,}."
        )
        raise problems.refused([errors.Fault("query", sentence)])
    kinds = _kinds(model)
    repeated = [
        errors.Fault(problems.shortened(name), "This must be given only once.")
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
    """Return the headers that ``model`` has as fields, by their aliases."""
    names = [field.alias or name for name, field in model.model_fields.items()]
    return {name: headers[name] for name in names if name in headers}


def faults_of(
    error: ValidationError, *, base: str | None = "#", unknown: Unknown | None = None
) -> list[errors.Fault]:
    """Return the faults in a pydantic error.

    Args:
        error: pydantic's error.
        base: the JSON pointer of the value that was checked; None for parameters, which have names instead.
        unknown: returns the message and the code for an unknown field.
    """
    details = error.errors(include_url=False)
    return [_fault(detail, base, unknown) for detail in details]


def _fault(detail: ErrorDetails, base: str | None, unknown: Unknown | None) -> errors.Fault:
    place = detail["loc"]
    if place and place[-1] == "[key]":
        place = place[:-1]
    context = detail.get("ctx", {})
    kind, code = detail["type"], errors.Fault.code
    if kind == "value_error":
        # Raised by our own validators, which may set a code.
        raised = context["error"]
        sentence, code = str(raised), getattr(raised, "code", code)
    elif kind == "extra_forbidden" and base is None:
        sentence = "There is no such parameter."
    elif kind == "extra_forbidden" and unknown is not None:
        sentence, code = unknown(place)
    else:
        values = {name: _plain(value) for name, value in context.items()}
        if isinstance(detail["input"], str):
            # Nothing of the input but its length is disclosed.
            values["actual_length"] = len(detail["input"])
            # Behind a validator of ours, pydantic does not know that the value is a string.
            kind = _OF_STRINGS.get(kind, kind)
        sentence = _SENTENCES.get(kind, "This is not valid.").format(**values)
    if base is None:
        return errors.Fault(problems.shortened(str(place[0])) if place else "query", sentence, code)
    return errors.Fault(base + problems.pointer(*place)[1:], sentence, code)


def _plain(value: object) -> object:
    """Return 2.0 as 2, and an unknown count as ``more``."""
    if value is None:
        return "more"
    return int(value) if isinstance(value, float) and value.is_integer() else value


@functools.cache
def _kinds(model: type[BaseModel]) -> dict[str, type]:
    """Return the kind of each parameter of ``model``: list, dict or str."""
    return {
        field.alias or name: _kind(field.annotation) for name, field in model.model_fields.items()
    }


def _kind(annotation: Any) -> type:  # noqa: ANN401 - any type's own annotation
    origin = typing.get_origin(annotation)
    if origin in (list, dict):
        return typing.cast("type", origin)
    inner = [_kind(part) for part in typing.get_args(annotation)]
    return next((kind for kind in inner if kind in (list, dict)), str)
