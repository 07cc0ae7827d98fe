"""``/v1/usage``: the usage of an account and its limits."""

import uuid
from datetime import timedelta
from typing import Final

from flask import Response

from api import errors as problems
from api import rate_limits
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, reply, route
from api.schemas.parameters import UsageQuery
from api.schemas.usage import (
    AccountUsage,
    QueueUsage,
    RequestUsage,
    StorageUsage,
    UsageReport,
    UsageRow,
)
from core import errors, ids
from core.database import Database, utcnow
from core.settings import Settings
from jobs.store import consumption, statistics
from jobs.store.consumption import Dimension
from jobs.store.storage import Quota

_LONGEST: Final = timedelta(days=consumption.MOST_DAYS)


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
        """Get the usage of an account, its limits, and a report about its jobs.

        The default is the key's own account; operators may name another one with `account`. `requests` is always
        about the key itself. With `since`, `report` has the jobs, tokens, cached tokens, and engine seconds by day,
        model, or account; that of an operator is about all accounts, unless `account` names one.
        """
        named = self._gate.account(caller, query.account) if query.account is not None else None
        account_id = named or caller.account_id
        report = self._report(query, named or caller.scope)
        state = rate_limits.current_state()
        return reply(
            AccountUsage(
                account=ids.show("acct", account_id),
                storage=StorageUsage.of(self._quota.usage(account_id)),
                queue=QueueUsage(
                    queued=statistics.queued(self._database, account_id), limit=self._queue_limit
                ),
                requests=RequestUsage(limit_per_minute=state.per_minute, remaining=state.remaining),
                report=report,
            )
        )

    def _report(self, query: UsageQuery, account_id: uuid.UUID | None) -> UsageReport | None:
        """Return what the jobs of an account (None: of all accounts) used, None if the caller wants none."""
        if query.since is None:
            useless = sorted(query.model_fields_set & {"until", "by"})
            if useless:
                faults = [errors.Fault(name, "This needs `since`.") for name in useless]
                raise problems.refused(faults)
            return None
        until = query.until or utcnow()
        if not timedelta() < until - query.since <= _LONGEST:
            sentence = (
                f"The range must have more than nothing and at most {consumption.MOST_DAYS} days; "
                f"it has {(until - query.since).total_seconds() / 86_400:,.1f}."
            )
            raise problems.refused([errors.Fault("since", sentence)])
        dimensions = [Dimension(name) for name in dict.fromkeys(query.by)]
        rows = consumption.consumption(
            self._database,
            account_id=account_id,
            since=query.since,
            until=until,
            by=dimensions,
        )
        accounts = {row.account_id for row in rows if row.account_id is not None}
        names = consumption.account_names(self._database, sorted(accounts)) if accounts else {}
        return UsageReport(
            since=query.since,
            until=until,
            by=dimensions,
            data=[
                UsageRow.from_record(
                    row,
                    account=row.account_id and ids.show("acct", row.account_id),
                    account_name=row.account_id and names.get(row.account_id),
                )
                for row in rows
            ],
        )
