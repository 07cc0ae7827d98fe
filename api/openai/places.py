"""The places in errors of these routes, as the caller's own request has them.

The statuses are those of :data:`api.errors.OPENAI`, which a class of routes names as its ``ERRORS``.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from api import errors as problems
from core import errors


@contextmanager
def relocated(places: Mapping[str, str]) -> Iterator[None]:
    """Name the faults of errors that are raised inside by the caller's own request.

    Args:
        places: the JSON pointer in the caller's request for each place in the native one, as
            ``{"#/question": "#/input/0/content/0/text"}``. Everything below a place moves with it, the longest place
            wins, and other pointers stay as they are.
    """
    try:
        yield
    except errors.RequestError as error:
        if not error.faults:
            raise
        raise _moved(error, places) from None


def _moved(error: errors.RequestError, places: Mapping[str, str]) -> errors.RequestError:
    faults = [
        errors.Fault(_place(fault.pointer, places), fault.detail, fault.code)
        for fault in error.faults
    ]
    named = problems.refused(faults)
    kind = type(error)
    return kind(
        named.message,
        faults=named.faults,
        code=error.specific_code,
        param=named.param,
        retry_after=error.retry_after,
    )


def _place(pointer: str, places: Mapping[str, str]) -> str:
    above = [place for place in places if pointer == place or pointer.startswith(f"{place}/")]
    if not above:
        return pointer
    longest = max(above, key=len)
    return places[longest] + pointer.removeprefix(longest)
