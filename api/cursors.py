"""Pages of lists: the cursor is the id of the last resource on the previous page."""

import uuid

from api import errors as problems
from core import errors, ids


def parse(kind: ids.Kind, after: str | None) -> uuid.UUID | None:
    """Return the id after which the requested page begins, None for the first page.

    Raises:
        core.errors.InvalidRequest: ``after`` is not an id of this ``kind``.
    """
    cursor = None if after is None else ids.parse(kind, after)
    if after is not None and cursor is None:
        fault = errors.Fault("after", "This must be the `last_id` of the previous page.")
        raise problems.refused([fault])
    return cursor
