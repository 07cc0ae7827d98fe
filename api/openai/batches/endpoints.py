"""The routes whose requests a batch may have: how a line becomes a submission, and a job the answer to its line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from api.auth import Caller
from api.submission import ParsedSubmission
from jobs.records.jobs import Job


@dataclass(frozen=True)
class LineAnswer:
    """What the same request alone would have got: the status, the body, and the id of the request."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    request_id: str


class BatchEndpoint(Protocol):
    """A route whose requests a batch may have."""

    @property
    def path(self) -> str:
        """The path of the route, as lines name it."""

    def is_long(self, place: tuple[str | int, ...]) -> bool:
        """Return whether the body has a long string at ``place``, such as an image: see :func:`api.framework.loads`."""

    def parse(
        self, caller: Caller, body: Mapping[str, Any], *, read_files: bool
    ) -> ParsedSubmission:
        """Return a body as a submission, with all of its faults.

        Without ``read_files`` the images that it names by ``file_id`` are empty: that finds the same faults, and takes
        no time for their bytes.

        Raises:
            core.errors.RequestError: it has faults that keep it from being parsed.
        """

    def answered(self, job: Job) -> bool:
        """Return whether the answer to the request of a finished job is not an error."""

    def usage(self, job: Job) -> Mapping[str, Any] | None:
        """Return the tokens of a finished job, by the names that Responses have; None: no engine accepted it."""

    def answer(self, job: Job) -> LineAnswer:
        """Return the answer to the request of a finished job."""


#: By path.
BatchEndpoints = Mapping[str, BatchEndpoint]
