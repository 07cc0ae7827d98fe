"""Pages of lists: the cursor is the id of the last resource on the previous page.

A cursor is validated with the other parameters of its list, so that one error names the faults of all::

    after: Annotated[uuid.UUID, cursors.of("job")] | None = Field(default=None, description=cursors.DESCRIPTION)
"""

import re
from typing import Final

from pydantic import AfterValidator, BeforeValidator

from core import ids

DESCRIPTION: Final = "The `last_id` of the previous page."
#: The message for a text that is not the id of a resource of the list.
INVALID: Final = "This must be the `last_id` of the previous page."


def of(kind: ids.Kind) -> BeforeValidator:
    """Return the validator that reads the id of a resource of this ``kind``."""

    def read(text: object) -> object:
        parsed = ids.parse(kind, text) if isinstance(text, str) else None
        if parsed is None:
            raise ValueError(INVALID)
        return parsed

    return BeforeValidator(read, json_schema_input_type=str)


def like(pattern: str) -> AfterValidator:
    """Return the validator of ids that only their list can read, such as that of a line in a batch."""
    shape = re.compile(pattern)

    def check(text: str) -> str:
        if shape.fullmatch(text) is None:
            raise ValueError(INVALID)
        return text

    return AfterValidator(check)
