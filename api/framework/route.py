"""Declares a route at its handler.

A class of routes decorates its methods::

    class JobRoutes:
        TAG = "jobs"

        @route.get("/v1/jobs/<job_id>", operation_id="getJob", guard=Right.READ, answers=...)
        def show(self, caller: Caller, job_id: JobId) -> Response:
            \"\"\"Get a job.\"\"\"

The declaration stays at the function. :meth:`api.framework.router.Router.include` collects the declarations of an
instance, so that a handler finds its collaborators in ``self``.
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from http import HTTPMethod
from typing import Final, TypeVar

from flask import Response

from api.framework.document import RequestBodySpec, ResponseSpec

Handler = Callable[..., Response]
_Handler = TypeVar("_Handler", bound=Handler)

#: The attribute of a handler that holds its declaration.
_ATTRIBUTE: Final = "_declared_route"


@dataclass(frozen=True)
class Route:
    """The declaration of a route; a decorator of its handler.

    Attributes:
        method: the HTTP method.
        rule: the path, with its parameters as ``<name>``, or ``<path:name>`` for one that may contain ``%2F``.
        operation_id: the operation's id in the OpenAPI document.
        tag: the group of operations that it belongs to; None: the ``TAG`` of its class.
        answers: the successful answers, by status.
        faults: the statuses of its errors, besides those that each route may answer with.
        guard: the key of the guard that admits a caller; None: the route is public.
        body: the request body; None: the route reads none.
    """

    method: HTTPMethod
    rule: str
    _: KW_ONLY
    operation_id: str
    answers: Mapping[int, ResponseSpec]
    tag: str | None = None
    faults: tuple[int, ...] = ()
    guard: Hashable | None = None
    body: RequestBodySpec | None = None

    def __call__(self, handler: _Handler) -> _Handler:
        """Attach the declaration to ``handler``."""
        setattr(handler, _ATTRIBUTE, self)
        return handler


#: Declare a handler of GET and HEAD, of POST, of DELETE; see :class:`Route` for the arguments.
get = functools.partial(Route, HTTPMethod.GET)
post = functools.partial(Route, HTTPMethod.POST)
delete = functools.partial(Route, HTTPMethod.DELETE)


def declared(routes: object) -> Iterator[tuple[Route, Handler]]:
    """Yield the declared routes of an instance with their bound handlers, in the order of the class body."""
    for name, member in vars(type(routes)).items():
        declaration: Route | None = getattr(member, _ATTRIBUTE, None)
        if declaration is not None:
            yield declaration, getattr(routes, name)
