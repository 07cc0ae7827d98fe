"""Authenticates callers, and checks the rights of their role."""

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import flask

from api import addresses
from api.key_uses import KeyUses
from api.serving import current
from api.tokens import StreamTokens
from api.unknown_keys import UnknownKeys
from core import errors, ids
from core.database import Database
from core.peppers import Peppers
from jobs.lifecycle import Role
from jobs.store import accounts


class Right(enum.Enum):
    """A right that a route may require."""

    #: Read jobs, images and models.
    READ = enum.auto()
    #: Submit jobs and images, for the key's own account.
    SUBMIT = enum.auto()
    #: Cancel, rerun and delete jobs.
    COMMAND = enum.auto()
    #: Use these rights for every account.
    EVERYWHERE = enum.auto()
    #: Create and revoke keys, and erase accounts.
    ADMINISTER = enum.auto()


class Access(enum.Enum):
    """Access other than by a right of a key."""

    #: The right to read, or a stream token of the job in the path.
    FOLLOWER = enum.auto()


FOLLOWER: Final = Access.FOLLOWER
#: An operator manages the jobs of all accounts but submits none; a rerun belongs to the account of its original.
RIGHTS: dict[Role, frozenset[Right]] = {
    Role.READ: frozenset({Right.READ}),
    Role.SUBMIT: frozenset({Right.READ, Right.SUBMIT, Right.COMMAND}),
    Role.OPERATE: frozenset({Right.READ, Right.COMMAND, Right.EVERYWHERE}),
    Role.ADMIN: frozenset(Right),
}


@dataclass(frozen=True)
class Caller(accounts.Principal):
    """The owner of a valid key, and what its role lets it see."""

    @property
    def scope(self) -> uuid.UUID | None:
        """The account whose resources this caller sees; None: all accounts."""
        return None if self.everywhere else self.account_id

    @property
    def everywhere(self) -> bool:
        """Whether this caller is an operator, who sees all accounts."""
        return Right.EVERYWHERE in RIGHTS[self.role]


class Gate:
    """Authenticates callers by their key.

    Args:
        database: stores keys.
        peppers: the secrets for hashing keys.
        tokens: checks the stream tokens of jobs.
        unknown_key_limits: limits requests without a valid key.
        live: recognizes unknown keys without a query for each.
        uses: notes that a valid key was used.
        count: called for each request with a valid key; may refuse it.
    """

    def __init__(
        self,
        database: Database,
        *,
        peppers: Peppers,
        tokens: StreamTokens,
        unknown_key_limits: UnknownKeys,
        live: accounts.LiveKeys,
        uses: KeyUses,
        count: Callable[[accounts.Principal], None],
    ) -> None:
        self._database = database
        self._peppers = peppers
        self._tokens = tokens
        self._unknown_keys = unknown_key_limits
        self._live = live
        self._uses = uses
        self._count = count

    def guard(self, needed: Right | Access) -> Callable[[], Caller]:
        """Return the guard of routes that need this: :meth:`admits` or :meth:`admits_follower`."""
        return self.admits(needed) if isinstance(needed, Right) else self.admits_follower()

    def admits(self, right: Right) -> Callable[[], Caller]:
        """Return a guard that returns the caller of the current request.

        The guard raises :class:`core.errors.Unauthenticated` for a missing, malformed, unknown, revoked or
        expired key;
        :class:`core.errors.RateLimitExceeded` for a key that exceeds its rate limit, or for an invalid key from an
        address that has sent too many of them; and :class:`core.errors.InsufficientScope` for a role without
        ``right``.
        """

        def guard() -> Caller:
            caller = self._caller(flask.request.headers.get("Authorization"))
            if right not in RIGHTS[caller.role]:
                allowed = [f"`{role}`" for role in Role if right in RIGHTS[role]]
                raise errors.InsufficientScope(
                    f"The role of the key must be {' or '.join(allowed)}; it is `{caller.role}`."
                )
            return caller

        return guard

    def admits_follower(self) -> Callable[[], Caller]:
        """Return a guard like that of :meth:`admits` for reading, which also accepts a stream token in ``?token=``.

        The caller of a token is the key that created it.
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
                raise self._refusal("This stream token is invalid or has expired for this job.")
            self._uses.note(principal)
            return self._admitted(principal)

        return guard

    def account(self, caller: Caller, name: str | None) -> uuid.UUID | None:
        """Return the account that ``caller`` requests by ``name`` or id; by default the scope of the caller.

        Raises:
            core.errors.InsufficientScope: the caller is not an operator.
            core.errors.NotFound: the account does not exist.
        """
        if name is None:
            return caller.scope
        if caller.scope is not None:
            raise errors.InsufficientScope("Only operators may set `account`.", param="account")
        return ids.parse("acct", name) or accounts.account_id(self._database, name)

    def _caller(self, header: str | None) -> Caller:
        if header is None:
            raise self._refusal("The request must have an API key: `Authorization: Bearer ll_…`.")
        scheme, _, key = header.partition(" ")
        principal = self._principal(key.strip()) if scheme.lower() == "bearer" else None
        if principal is None:
            raise self._refusal(self._reason(key.strip()))
        current.identify(principal.account_id)
        return self._admitted(principal)

    def _principal(self, key: str) -> accounts.Principal | None:
        """Return the owner of ``key``. A flood of unknown keys does not cost a query for each of them."""
        address = addresses.client_address(flask.request)
        if self._unknown_keys.is_exhausted(address) and not (
            accounts.well_formed(key) and self._live.may_hold(key)
        ):
            return None
        peppers = self._peppers.current()
        principal = accounts.authenticate(self._database, key, peppers=peppers)
        if principal is not None:
            self._uses.note(principal, key=key, pepper=peppers[0])
        return principal

    def _reason(self, key: str) -> str:
        """Return why ``key`` is refused. A flood of invalid keys does not cost a query for each of them."""
        expired = self._live.expired_at(key) if accounts.well_formed(key) else None
        if expired is not None:
            return f"This API key expired at {expired.isoformat(timespec='seconds')}."
        return "This API key is unknown."

    def _refusal(self, message: str) -> errors.RequestError:
        """Return the error for a request without a valid key, and count the failure for its address."""
        seconds = self._unknown_keys.fail(addresses.client_address(flask.request))
        if seconds is None:
            return errors.Unauthenticated(message)
        return errors.RateLimitExceeded(
            f"{message} An address may send at most {self._unknown_keys.per_minute} such requests a minute.",
            retry_after=seconds,
        )

    def _admitted(self, principal: accounts.Principal) -> Caller:
        flask.g.known = True
        self._count(principal)
        return Caller(**vars(principal))
