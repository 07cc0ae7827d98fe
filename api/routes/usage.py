"""``/v1/usage``: the usage of an account and its limits."""

from flask import Response

from api import rate_limits
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.requests import UsageQuery
from api.schemas.usage import AccountUsage, QueueUsage, RequestUsage, StorageUsage
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.store import statistics
from jobs.store.storage import Quota


class UsageRoutes:
    """The route of the usage.

    Args:
        settings: the limits of all accounts.
        database: stores jobs.
        quota: the storage of accounts and its limits.
        gate: resolves accounts.
    """

    TAG = "operations"

    def __init__(self, settings: Settings, *, database: Database, quota: Quota, gate: Gate) -> None:
        self._queue_limit = settings.queued_jobs_per_account
        self._database = database
        self._quota = quota
        self._gate = gate

    @route.get(
        "/v1/usage",
        operation_id="getUsage",
        guard=Right.READ,
        answers={200: ResponseSpec(AccountUsage, "The account's usage and its limits.")},
        faults=(404, 422),
    )
    def get(self, caller: Caller, query: UsageQuery) -> Response:
        """Get the usage of an account and its limits.

        The default is the key's own account; operators may name another one with `account`. `requests` is always
        about the key itself.
        """
        named = self._gate.account(caller, query.account) if query.account is not None else None
        account_id = named or caller.account_id
        state = rate_limits.current_state()
        return reply(
            AccountUsage(
                account=ids.show("acct", account_id),
                storage=StorageUsage.of(self._quota.usage(account_id)),
                queue=QueueUsage(
                    queued=statistics.queued(self._database, account_id), limit=self._queue_limit
                ),
                requests=RequestUsage(limit_per_minute=state.per_minute, remaining=state.remaining),
            )
        )
