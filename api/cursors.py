"""A page of a list: the cursor is the id of the last thing on the page before."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Literal

from api import errors as problems
from core import errors, ids

DEFAULT_LIMIT = 20
MAX_LIMIT = 100

Order = Literal["desc", "asc"]


@dataclass(frozen=True)
class PageRequest:
    """What to show: ``limit`` things beyond ``after``."""

    limit: int
    after: uuid.UUID | None
    newest_first: bool


def page(kind: ids.Kind, after: str | None, *, limit: int, order: Order) -> PageRequest:
    """Return the page that a caller asks for.

    Raises:
        core.errors.InvalidRequest: ``after`` is no id of this ``kind``.
    """
    cursor = None if after is None else ids.parse(kind, after)
    if after is not None and cursor is None:
        fault = errors.Fault("after", "This has to be the `last_id` of the page before.")
        raise problems.refused([fault])
    return PageRequest(limit=limit, after=cursor, newest_first=order == "desc")
