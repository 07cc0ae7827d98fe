"""``/v1/usage``: what an account uses of what it may use."""

from __future__ import annotations

from flask import Response

from api import rate_limits
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.requests import UsageQuery
from api.schemas.usage import AccountUsage, QueueUsage, RequestUsage
from core.database import Database
from core.settings import Settings
from jobs.store import statistics
from jobs.store.storage import Quota


class UsageRoutes:
    """What callers may ask about usage.

    Args:
        settings: the limits of all accounts.
        database: where jobs are kept.
        quota: what accounts store and may store.
        gate: what lets callers in.
    """

    def __init__(self, settings: Settings, *, database: Database, quota: Quota, gate: Gate) -> None:
        self._queue_limit = settings.queued_jobs_per_account
        self._database = database
        self._quota = quota
        self._gate = gate

    @route.get(
        "/v1/usage",
        operation_id="getUsage",
        tag="operations",
        guard=Right.READ,
        answers={200: ResponseSpec(AccountUsage, "The account's usage and its limits.")},
        faults=(404, 422),
    )
    def get(self, caller: Caller, query: UsageQuery) -> Response:
        """Get what an account uses of what it may use.

        It is the account of the key; operators may name another one by `account`. `requests` always tells of
        the key itself.
        """
        named = self._gate.account(caller, query.account) if query.account is not None else None
        account_id = named or caller.account_id
        standing = rate_limits.standing()
        return reply(
            AccountUsage.of(
                account_id,
                stored=self._quota.usage(account_id),
                queue=QueueUsage(
                    queued=statistics.queued(self._database, account_id), limit=self._queue_limit
                ),
                requests=RequestUsage(
                    limit_per_minute=standing.per_minute, remaining=standing.remaining
                ),
            )
        )
