"""What sweeps, senders, lists and maintenance read of deliveries and traces: by an index, never whole tables.

SQLite, which has no statistics, plans the same for empty tables as for long histories.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from core.database import Database
from jobs.store import settle, steps
from tests import factories
from webhooks import attempts, claims, outbox, purge, queries, url_queues
from webhooks.policy import DeliveryStatus

_URL = "https://receiver.example/hook"
_HISTORIES = (
    *("webhook_attempts", "webhook_deliveries", "webhook_notifications"),
    *("generations", "attempts", "jobs"),
)
#: Indexes of what is open or has failed.
_MAY_WALK = re.compile(
    r"USING (COVERING )?INDEX \w+_(due|sending|queue|pending|failed|unreduced)\b"
)


def _page(**how: Any) -> Callable[[Database, uuid.UUID], object]:  # noqa: ANN401 - of the function
    return lambda database, account_id: queries.of_account(
        database, account_id=account_id, limit=20, after=uuid.UUID(int=7), **how
    )


def _url_queues(database: Database, account_id: uuid.UUID) -> None:
    with database.transaction() as transaction:
        origin = uuid.UUID(int=8)
        for _ in range(4):
            url_queues.failed(transaction, origin, _URL, account_id=account_id)
        url_queues.recovered(transaction, origin, _URL)


_ACTS: dict[str, Callable[[Database, uuid.UUID], object]] = {
    "lost senders": lambda database, _: attempts.expire(database),
    "the next attempts": lambda database, _: claims.pause(database),
    "the backlog": lambda database, account_id: claims.backlog(database, account_id=account_id),
    "claims": lambda database, _: claims.claim(
        database, owner="me", lease=factories.LEASE, limit=8, slow=False
    ),
    "notifications": lambda database, _: outbox.fan_out(database),
    "a slow URL": _url_queues,
    "deliveries": _page(),
    "failed deliveries": _page(statuses=[DeliveryStatus.FAILED]),
    "pending deliveries": _page(statuses=[DeliveryStatus.PENDING]),
    "deliveries of an endpoint": lambda database, account_id: queries.of_endpoint(
        database, uuid.UUID(int=7), account_id=account_id, limit=20
    ),
    "the removal of an account": purge.remove_account,
    "reparsed traces": lambda database, _: steps.reparse(database, after=(uuid.UUID(int=7), 1, 1)),
}


@pytest.mark.parametrize("dialect", ["sqlite"])
@pytest.mark.parametrize("name", _ACTS)
def test_no_statement_walks_a_history(database: Database, account_id: uuid.UUID, name: str) -> None:
    if name == "reparsed traces":
        for _ in range(2):
            factories.make_job(database, account_id)
            claimed = factories.claim(database)
            factories.begin(database, claimed)
            settle.succeed(database, claimed, answer=None, generation=factories.make_ended())
        factories.forget_steps(database)
    seen: list[tuple[str, Any]] = []

    def note(*event: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own hook
        if not event[5]:
            seen.append((event[2], event[3]))

    sa.event.listen(database.engine, "before_cursor_execute", note)
    try:
        _ACTS[name](database, account_id)
    finally:
        sa.event.remove(database.engine, "before_cursor_execute", note)

    assert seen
    with database.engine.connect() as connection:
        walks = {
            statement: lines
            for statement, parameters in seen
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH"))
            and (lines := _walks(connection, statement, parameters))
        }
    # The rows that refer to a receiver are looked for when it is removed for good.
    removed = ("DELETE FROM webhook_queues", "DELETE FROM webhook_endpoints")
    assert {s: lines for s, lines in walks.items() if not s.startswith(removed)} == {}


def _walks(connection: sa.Connection, statement: str, parameters: Any) -> list[str]:  # noqa: ANN401 - the driver's
    """Return the accesses that read a whole table or sort more than a page of it."""
    plan = [
        str(row[-1])
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
    return [
        line
        for line in plan
        if re.match(rf"SCAN ({'|'.join(_HISTORIES)})\b", line) and not _MAY_WALK.search(line)
    ] + [
        line
        for line in plan
        if "account_id_id (account_id=?)" in line and "USE TEMP B-TREE FOR ORDER BY" in plan
    ]
