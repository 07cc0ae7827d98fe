"""Parameters of a path: the types that handlers annotate them with convert their text."""

import re
import typing
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from api import errors as problems
from core import ids, logs

#: A parameter in a rule; one with ``path:`` may contain slashes, which the caller encodes as ``%2F``.
_NAMES = re.compile(r"<(?:path:)?(\w+)>")


@dataclass(frozen=True)
class PathId:
    """An id: the handler gets its UUID, and the lines that the request logs carry its text.

    Attributes:
        kind: the prefix of the id.
        noun: what the error calls the resource.
        description: for the OpenAPI document.
    """

    kind: ids.Kind
    noun: str
    description: str | None = None

    def fits(self, text: str) -> bool:
        """Whether ``text`` is an id of this kind."""
        return ids.parse(self.kind, text) is not None

    def convert(self, name: str, text: str) -> uuid.UUID:
        """Return the UUID in ``text``, the value of the parameter ``name``.

        Raises:
            core.errors.NotFound: ``text`` is not an id of this kind.
        """
        value = problems.existing(ids.parse(self.kind, text), self.noun)
        logs.bind(**{name: text})
        return value


@dataclass(frozen=True)
class PathText:
    """Text that the handler gets unchanged."""

    description: str | None = None

    def fits(self, text: str) -> bool:  # noqa: ARG002 - as PathId takes it
        """Whether ``text`` is a value: any is."""
        return True

    def convert(self, name: str, text: str) -> str:  # noqa: ARG002 - same
        """Return ``text``."""
        return text


#: Metadata of an ``Annotated`` type: describes and converts a parameter of a path.
PathParameter = PathId | PathText


def parameters(rule: str, hints: Mapping[str, object]) -> dict[str, PathParameter]:
    """Return the path parameters of ``rule`` by name.

    Args:
        rule: the path, with its parameters as ``<name>`` or ``<path:name>``.
        hints: the handler's type hints, with the metadata of ``Annotated``.

    Raises:
        TypeError: the handler does not take a parameter as an ``Annotated`` type with a :data:`PathParameter`.
    """
    return {name: _parameter(name, hints.get(name)) for name in _NAMES.findall(rule)}


def template(rule: str) -> str:
    """Return ``rule`` as a path template of OpenAPI: ``/v1/jobs/{job_id}``."""
    return _NAMES.sub(r"{\1}", rule)


def before_slashes(rule: str) -> str | None:
    """Return the part of ``rule`` before its parameter that may contain slashes, None without such a parameter."""
    before, parameter, _ = rule.partition("<path:")
    return before if parameter else None


def _parameter(name: str, hint: object) -> PathParameter:
    for metadata in typing.get_args(hint)[1:]:
        if isinstance(metadata, PathParameter):
            return metadata
    raise TypeError(f"The handler must take the path parameter {name!r} as a type such as JobId.")
