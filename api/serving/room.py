"""The room for request bodies and unsent responses: how many are sent at once, and the memory that they take."""

from __future__ import annotations

from api.serving.connections import RequestCycle
from api.serving.limits import ServerLimits
from api.serving.refusals import EarlyRefusal, overloaded, unavailable
from api.serving.shares import Share
from core import errors
from core.spool import IN_MEMORY_BYTES, Spool


class TransferRoom:
    """What bodies and unsent responses share. Not thread-safe.

    Args:
        limits: the limits of the server.
        spool: the folder for large bodies; None: they stay in memory.
    """

    def __init__(self, limits: ServerLimits, spool: Spool | None) -> None:
        self._limits = limits
        self._spool = spool
        #: The transfers: a request that sends its body, or whose client accepts its response slowly, is one.
        self.transfers = Share(limits.transfers, unknown_keys=_unknown_share(limits.transfers))
        self._memory = Share(limits.memory, unknown_keys=_unknown_share(limits.memory))

    @property
    def memory(self) -> int:
        """The bytes of memory that are taken."""
        return self._memory.held

    def require(self, cycle: RequestCycle) -> None:
        """Return if the announced body fits into memory, or into the spool if it is too large for memory.

        Raises:
            EarlyRefusal: it does not.
        """
        missing = cycle.body.missing() or 1
        if self._spool is None or missing <= IN_MEMORY_BYTES:
            if not self._memory.fits(cycle.group, missing):
                raise _no_memory(self._limits)
            return
        try:
            self._spool.check(cycle.group, missing)
        except errors.Unavailable as error:
            raise unavailable(error) from error

    def charge(self, cycle: RequestCycle, size: int) -> None:
        """Count ``size`` bytes of memory for a body, less than before once the body has moved to the spool."""
        more = size - cycle.charged
        if more > 0 and not self._memory.take(cycle.group, more):
            raise _no_memory(self._limits)
        if more < 0:
            self._memory.give_back(cycle.group, -more)
        cycle.charged = size

    def take_rest(self, cycle: RequestCycle) -> bool:
        """Take the room of an unsent response whose body's memory is free; return whether there was room."""
        size = sum(map(len, cycle.rest))
        if not (self._memory.fits(cycle.group, size) and self.transfers.take(cycle.group)):
            return False
        self._memory.take(cycle.group, size)
        cycle.charged = size
        return True

    def release(self, cycle: RequestCycle) -> None:
        """Free the memory of a request's body."""
        cycle.body.content.close()
        self._memory.give_back(cycle.group, cycle.charged)
        cycle.charged = 0


def _unknown_share(total: int) -> int:
    """Return the part of ``total`` for clients whose account is not known yet, as with each first request."""
    return total - total // 4


def _no_memory(limits: ServerLimits) -> EarlyRefusal:
    return overloaded(
        f"Small request bodies and unsent responses share {limits.memory // 2**20:,} MiB of memory, of which each "
        "account or address has a share. This request exceeds its share."
    )
