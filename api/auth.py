"""Who asks, and what a key's role lets it do."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import flask

from jobs import errors, ids
from jobs.database import Database
from jobs.lifecycle import Role
from jobs.store import accounts


class Right(enum.Enum):
    """What a route may need."""

    #: See jobs, images and models.
    READ = enum.auto()
    #: Bring in jobs and images, as the key's own account.
    SUBMIT = enum.auto()
    #: Cancel, rerun, delete.
    STEER = enum.auto()
    #: All of that for every account, not the key's own alone.
    EVERYWHERE = enum.auto()


#: An operator steers everybody's jobs but brings in none; a rerun belongs to the account of its original.
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.READ: frozenset({Right.READ}),
    Role.SUBMIT: frozenset({Right.READ, Right.SUBMIT, Right.STEER}),
    Role.OPERATE: frozenset({Right.READ, Right.STEER, Right.EVERYWHERE}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True)
class Caller:
    """A known key's owner."""

    account_id: uuid.UUID
    role: Role
    #: The name under which the timeline tells of it.
    actor: str

    @property
    def scope(self) -> uuid.UUID | None:
        """The account whose things this caller sees; None: everybody's."""
        return None if Right.EVERYWHERE in RIGHTS[self.role] else self.account_id


class Gate:
    """Lets callers in by their key.

    Args:
        database: where keys are kept.
        pepper: what they are hashed with.
        count: told of each request with a known key by the key's id; it may refuse it.
    """

    def __init__(
        self, database: Database, *, pepper: bytes, count: Callable[[uuid.UUID], None]
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._count = count

    def admits(self, right: Right) -> Callable[[], Caller]:
        """Return a guard that gives the caller of the current request.

        The guard raises :class:`jobs.errors.Unauthenticated` for a missing, malformed, unknown or
        revoked key, :class:`jobs.errors.RateLimitExceeded` for one that has sent too much, and
        :class:`jobs.errors.InsufficientScope` when its role lacks ``right``.
        """

        def guard() -> Caller:
            caller = self._caller(flask.request.headers.get("Authorization"))
            if right not in RIGHTS[caller.role]:
                allowed = [f"`{role}`" for role in Role if right in RIGHTS[role]]
                raise errors.InsufficientScope(
                    f"This key has the role `{caller.role}`; this needs {' or '.join(allowed)}."
                )
            return caller

        return guard

    def account(self, caller: Caller, name: str | None) -> uuid.UUID | None:
        """Return the account that ``caller`` asks for by ``name`` or id, by default all that it sees.

        Raises:
            jobs.errors.InsufficientScope: only operators may choose.
            jobs.errors.NotFound: there is no such account.
        """
        if name is None:
            return caller.scope
        if caller.scope is not None:
            raise errors.InsufficientScope("Only operators may name an account.", param="account")
        return ids.parse("acct", name) or accounts.account_id(self._database, name)

    def _caller(self, header: str | None) -> Caller:
        if header is None:
            raise errors.Unauthenticated("Send an API key: `Authorization: Bearer ll_…`.")
        scheme, _, key = header.partition(" ")
        principal = (
            accounts.authenticate(self._database, key.strip(), pepper=self._pepper)
            if scheme.lower() == "bearer"
            else None
        )
        if principal is None:
            raise errors.Unauthenticated("This API key is not known here.")
        self._count(principal.key_id)
        return Caller(principal.account_id, principal.role, principal.actor)
