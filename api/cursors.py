"""Pages of lists: the cursor is the id of the last resource on the previous page."""

import uuid
from dataclasses import dataclass
from typing import Literal

from api import errors as problems
from core import errors, ids

Order = Literal["desc", "asc"]


@dataclass(frozen=True)
class PageRequest:
    """A requested page: up to ``limit`` resources beyond ``after``."""

    limit: int
    after: uuid.UUID | None
    newest_first: bool


def page(kind: ids.Kind, after: str | None, *, limit: int, order: Order) -> PageRequest:
    """Return the requested page.

    Raises:
        core.errors.InvalidRequest: ``after`` is not an id of this ``kind``.
    """
    cursor = None if after is None else ids.parse(kind, after)
    if after is not None and cursor is None:
        fault = errors.Fault("after", "This must be the `last_id` of the previous page.")
        raise problems.refused([fault])
    return PageRequest(limit=limit, after=cursor, newest_first=order == "desc")
