"""Who asks, and what a key's role lets it do."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import flask

from api import addresses
from api.serving import current
from api.tokens import StreamTokens
from api.unknown_keys import UnknownKeys
from core import errors, ids
from core.database import Database
from jobs.lifecycle import Priority, Role
from jobs.store import accounts


class Right(enum.Enum):
    """What a route may need."""

    #: See jobs, images and models.
    READ = enum.auto()
    #: Bring in jobs and images, as the key's own account.
    SUBMIT = enum.auto()
    #: Cancel, rerun, delete.
    COMMAND = enum.auto()
    #: All of that for every account, not the key's own alone.
    EVERYWHERE = enum.auto()


class Access(enum.Enum):
    """What a route may need besides a right of a key."""

    #: The right to read, or a stream token of the job in the path.
    FOLLOWER = enum.auto()


FOLLOWER: Final = Access.FOLLOWER
#: An operator steers everybody's jobs but brings in none; a rerun belongs to the account of its original.
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.READ: frozenset({Right.READ}),
    Role.SUBMIT: frozenset({Right.READ, Right.SUBMIT, Right.COMMAND}),
    Role.OPERATE: frozenset({Right.READ, Right.COMMAND, Right.EVERYWHERE}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True)
class Caller:
    """A known key's owner."""

    account_id: uuid.UUID
    role: Role
    #: The name under which the timeline tells of it.
    actor: str
    key_id: uuid.UUID
    #: The highest class of the jobs that it may bring in.
    highest_priority: Priority

    @property
    def scope(self) -> uuid.UUID | None:
        """The account whose things this caller sees; None: everybody's."""
        return None if self.everywhere else self.account_id

    @property
    def everywhere(self) -> bool:
        """Whether this caller works for the operator: it sees all accounts."""
        return Right.EVERYWHERE in RIGHTS[self.role]


class Gate:
    """Lets callers in by their key.

    Args:
        database: where keys are kept.
        pepper: what they are hashed with.
        tokens: that let in those who follow one job.
        unknown_key_limits: that limits requests without a valid key.
        live: what tells an unknown key from others without a look for each.
        count: told of each request with a known key; it may refuse it.
    """

    def __init__(
        self,
        database: Database,
        *,
        pepper: bytes,
        tokens: StreamTokens,
        unknown_key_limits: UnknownKeys,
        live: accounts.LiveKeys,
        count: Callable[[accounts.Principal], None],
    ) -> None:
        self._database = database
        self._pepper = pepper
        self._tokens = tokens
        self._unknown_keys = unknown_key_limits
        self._live = live
        self._count = count

    def guard(self, needed: Right | Access) -> Callable[[], Caller]:
        """Return the guard of routes that need this: :meth:`admits` or :meth:`admits_follower`."""
        return self.admits(needed) if isinstance(needed, Right) else self.admits_follower()

    def admits(self, right: Right) -> Callable[[], Caller]:
        """Return a guard that gives the caller of the current request.

        The guard raises :class:`core.errors.Unauthenticated` for a missing, malformed, unknown or
        revoked key, :class:`core.errors.RateLimitExceeded` for one that has sent too much, or for such a key from
        an address that has sent too many of them, and
        :class:`core.errors.InsufficientScope` when its role lacks ``right``.
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

    def admits_follower(self) -> Callable[[], Caller]:
        """Return a guard as :meth:`admits` does for reading, which also takes a token of the job in ``?token=``.

        With a token the caller is the key that it was made for.
        """
        admit = self.admits(Right.READ)

        def guard() -> Caller:
            token = flask.request.args.get("token")
            if token is None or "Authorization" in flask.request.headers:
                return admit()
            job_id = ids.parse("job", (flask.request.view_args or {}).get("job_id", ""))
            key_id = job_id and self._tokens.read(token, job_id=job_id)
            principal = accounts.principal(self._database, key_id) if key_id else None
            if principal is None:
                raise self._refusal("This token is not, or no longer, good for this job.")
            return self._admitted(principal)

        return guard

    def account(self, caller: Caller, name: str | None) -> uuid.UUID | None:
        """Return the account that ``caller`` asks for by ``name`` or id, by default all that it sees.

        Raises:
            core.errors.InsufficientScope: only operators may choose.
            core.errors.NotFound: there is no such account.
        """
        if name is None:
            return caller.scope
        if caller.scope is not None:
            raise errors.InsufficientScope("Only operators may name an account.", param="account")
        return ids.parse("acct", name) or accounts.account_id(self._database, name)

    def _caller(self, header: str | None) -> Caller:
        if header is None:
            raise self._refusal("Send an API key: `Authorization: Bearer ll_…`.")
        scheme, _, key = header.partition(" ")
        principal = self._principal(key.strip()) if scheme.lower() == "bearer" else None
        if principal is None:
            raise self._refusal("This API key is not known here.")
        current.identify(principal.account_id)
        return self._admitted(principal)

    def _principal(self, key: str) -> accounts.Principal | None:
        """Return whose ``key`` it is. A flood of unknown keys costs no look into the database for each of them."""
        address = addresses.client_address(flask.request)
        if self._unknown_keys.is_exhausted(address) and not (
            accounts.well_formed(key) and self._live.may_hold(key)
        ):
            return None
        return accounts.authenticate(self._database, key, pepper=self._pepper)

    def _refusal(self, message: str) -> errors.RequestError:
        """Return the error of a request without a valid key, which counts for its address."""
        seconds = self._unknown_keys.fail(addresses.client_address(flask.request))
        if seconds is None:
            return errors.Unauthenticated(message)
        return errors.RateLimitExceeded(
            f"{message} Of such requests an address may send {self._unknown_keys.per_minute} a minute.",
            retry_after=seconds,
        )

    def _admitted(self, principal: accounts.Principal) -> Caller:
        flask.g.known = True
        self._count(principal)
        return Caller(
            principal.account_id,
            principal.role,
            principal.actor,
            principal.key_id,
            principal.highest_priority,
        )
