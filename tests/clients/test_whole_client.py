"""Every method of the official Python client is served, or ends at once with a JSON 404.

The methods are found by introspection, so a new version of the client is covered as it comes.
"""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx2
import openai
import pytest
from openai._resource import SyncAPIResource

from tests.clients.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

#: Within which a call must end. No call of these waits for an answer.
_AT_ONCE = 60
#: Methods that send no HTTP request of their own: they check a payload or connect a WebSocket, or they need a local
#: file or an earlier result for a call of other methods.
_LOCAL = re.compile(
    r"webhooks\.(unwrap|verify_signature)|.*\.connect|uploads\.upload_file_chunked"
    r"|beta\.agents\.(environments\.files\.(prepare|prepare_directory|upload)|sessions\.artifacts\.for_result)"
)
#: A parameter in a path of the document.
_PARAMETER = re.compile(r"\\{\w+\\}")


@dataclass(frozen=True)
class Exchange:
    """A request of the client, and what came back."""

    method: str
    path: str
    status: int
    content_type: str
    body: bytes

    def fault(self, served: set[tuple[str, re.Pattern[str]]]) -> str | None:
        """Return what is wrong with the response, None if it is right."""
        known = any(method == self.method and path.fullmatch(self.path) for method, path in served)
        where = f"{self.method} {self.path}: {self.status}"
        if self.status < 400:
            return None if known else f"{where}, and it is not in the document"
        if self.status in (405, 422) or self.status >= 500 or not (known or self.status == 404):
            return where
        if "json" not in self.content_type:
            return f"{where}, {self.content_type}"
        error = json.loads(self.body)["error"]
        whole = all(isinstance(error[name], str) for name in ("message", "type", "code"))
        return None if whole else f"{where}, {error}"


class Recorder:
    """Remembers the exchanges of a client."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def seen(self, response: httpx2.Response) -> None:
        """Remember a response, which is read to its end."""
        content = response.read()
        request = response.request
        self.exchanges.append(
            Exchange(
                request.method,
                request.url.raw_path.partition(b"?")[0].decode(),
                response.status_code,
                response.headers.get("Content-Type", ""),
                content,
            )
        )


def methods(resource: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, types.MethodType]]:
    """Yield the methods of a resource and of those below it, with their names."""
    for name in dir(type(resource)):
        attribute = inspect.getattr_static(type(resource), name)
        if name.startswith(("_", "with_")):
            continue
        if isinstance(attribute, (property, cached_property)):
            below = getattr(resource, name)
            if isinstance(below, SyncAPIResource):
                yield from methods(below, (*path, name))
        elif path and inspect.isfunction(attribute):
            yield ".".join((*path, name)), getattr(resource, name)


def arguments(method: types.MethodType) -> dict[str, Any]:
    """Return a value for each parameter that a method requires, by its name and its type."""
    function = inspect.unwrap(method.__func__)
    # The first variant of a method with several; the function itself requires nothing then.
    variants = typing.get_overloads(function)
    parameters = list(inspect.signature((variants or [function])[0]).parameters.values())[1:]
    return {
        parameter.name: _value(parameter.name, str(parameter.annotation))
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def _value(name: str, annotation: str) -> Any:  # noqa: ANN401 - of any method
    if "FileTypes" in annotation or annotation == "bytes" or name == "video":
        file = ("a.txt", b"x")
        return [file] if annotation.startswith(("Iterable", "List", "SequenceNotStr")) else file
    if annotation.startswith(("Iterable", "List", "SequenceNotStr")):
        return [{"role": "user", "content": "x"}] if name in ("messages", "items") else []
    if annotation.startswith("Dict"):
        return {"x": "y"}
    for kind, value in (("int", 1), ("float", 1.0), ("bool", True)):
        if annotation == kind:
            return value
    choice = re.search(r"Literal\['([^']+)'", annotation)
    return choice[1] if choice else "x-1"


def call(method: types.MethodType) -> str | None:
    """Call a method; return why the client itself refuses the arguments, if it does."""
    try:
        answer: Any = method(**arguments(method))
        if hasattr(answer, "__enter__"):
            with answer:
                pass
    except openai.APIConnectionError:
        raise
    except openai.APIStatusError:
        return None
    except (AttributeError, OSError, TypeError, ValueError, openai.OpenAIError) as error:
        return repr(error)
    return None


def test_every_method_is_served_or_not_found_at_once(service: Service) -> None:
    document = httpx2.get(f"{service.stack.url}/openapi.json", timeout=_AT_ONCE).json()
    served = {
        (method.upper(), re.compile(_PARAMETER.sub("[^/]+", re.escape(path))))
        for path, operations in document["paths"].items()
        for method in operations
    }
    recorder = Recorder()
    client = service.client(
        admin_api_key=service.key,
        timeout=_AT_ONCE,
        http_client=openai.DefaultHttpxClient(event_hooks={"response": [recorder.seen]}),
    )
    silent: dict[str, str | None] = {}
    faults = []
    for name, method in methods(client):
        if _LOCAL.fullmatch(name):
            continue
        before = len(recorder.exchanges)
        refused = call(method)
        made = recorder.exchanges[before:]
        faults += [f"{name}: {fault}" for one in made if (fault := one.fault(served))]
        if not made:
            silent[name] = refused

    assert faults == []
    assert silent == {}
