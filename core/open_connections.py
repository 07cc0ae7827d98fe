"""The open connections of an engine, closed together, including the ones that are in use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import event

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

#: The key of a connection's info under which it keeps the generation in which it was opened.
_GENERATION: Final = "longlook_generation"


class OpenConnections:
    """Closes the connections of an engine.

    SQLAlchemy closes only those that are idle. One that is in use goes back to a pool that nothing refers to, and
    stays open until the garbage collector finds it; this closes it when it goes back.

    Args:
        engine: must have opened no connection yet.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._generation = 0
        self._closed = False
        event.listen(engine, "connect", self._opened)
        event.listen(engine, "checkin", self._returned)

    def renew(self) -> None:
        """Close all connections. Later transactions open new ones."""
        self._generation += 1
        self._engine.dispose()

    def close(self) -> None:
        """Close all connections, and from now on each one as soon as it is returned."""
        self._closed = True
        self._engine.dispose()

    def _opened(self, _connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        entry.info[_GENERATION] = self._generation

    def _returned(self, connection: DBAPIConnection | None, entry: ConnectionPoolEntry) -> None:
        if connection is None:
            return
        if self._closed or entry.info.get(_GENERATION) != self._generation:
            entry.invalidate()
