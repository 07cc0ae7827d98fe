"""A client that pages forward again and again sees everything, in whatever order transactions end."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from core import ordered_ids
from core.database import Database, Transaction
from jobs.images import CanonicalImage
from jobs.store import history
from tests import factories, webhooks
from webhooks import endpoints, notifications, policy, queries
from webhooks.notifications import Notification, NotificationTarget
from webhooks.tables import WebhookEndpoint

_Image = tuple[CanonicalImage, int]


class HeldImages(list[_Image]):
    """The images of a submission that waits where it reads them: its id is made, its job is not committed."""

    def __init__(self) -> None:
        super().__init__([(factories.make_image(), 4)])
        self.reached = threading.Event()
        self.released = threading.Event()

    def __iter__(self) -> Iterator[_Image]:
        self.reached.set()
        assert self.released.wait(60)
        return super().__iter__()


class Pager:
    """A client that keeps the last id it saw."""

    def __init__(self, read: Callable[[uuid.UUID | None], list[uuid.UUID]]) -> None:
        self._read = read
        self.seen: list[uuid.UUID] = []

    def page(self) -> None:
        """Ask for what follows the last id."""
        self.seen += self._read(self.seen[-1] if self.seen else None)


def _give_up(transaction: Transaction) -> None:
    ordered_ids.new(transaction)
    raise RuntimeError("given up")


def jobs_of(database: Database, account_id: uuid.UUID) -> Pager:
    wanted = history.Filter(account_id=account_id)

    def read(after: uuid.UUID | None) -> list[uuid.UUID]:
        views, _ = history.page(database, wanted, limit=2, after=after, newest_first=False)
        return [view.job.id for view in views]

    return Pager(read)


def test_a_job_that_is_committed_after_a_later_one_is_not_missed(
    database: Database, account_id: uuid.UUID
) -> None:
    pager = jobs_of(database, account_id)
    submitted: list[uuid.UUID] = [factories.make_job(database, account_id)]
    held = HeldImages()

    def submit(**facts: Any) -> None:  # noqa: ANN401 - any field of a submission
        submitted.append(factories.make_job(database, account_id, **facts))

    first = threading.Thread(target=submit, kwargs={"images": held})
    first.start()
    assert held.reached.wait(60)
    second = threading.Thread(target=submit)
    second.start()
    if database.dialect == "postgresql":
        # SQLite has one writer: there the second waits for the first.
        second.join(60)
        assert len(submitted) == 2

    pager.page()
    assert pager.seen == submitted[:1]
    held.released.set()
    first.join(60)
    second.join(60)
    pager.page()
    pager.page()

    assert len(submitted) == 3
    assert pager.seen == sorted(submitted)


def test_a_group_has_its_ids_in_order_and_pages_go_on_after_a_rollback(
    database: Database, account_id: uuid.UUID
) -> None:
    with database.transaction() as transaction:
        made = [ordered_ids.new(transaction) for _ in range(300)]
    assert made == sorted(set(made))
    assert all(one.version == 7 and one.variant == uuid.RFC_4122 for one in made)

    with pytest.raises(RuntimeError, match="given up"), database.transaction() as transaction:
        _give_up(transaction)
    job_id = factories.make_job(database, account_id)
    pager = jobs_of(database, account_id)
    pager.page()
    assert pager.seen == [job_id]


def test_an_endpoint_that_is_committed_after_a_later_one_is_not_missed(
    database: Database, account_id: uuid.UUID
) -> None:
    def read(after: uuid.UUID | None) -> list[uuid.UUID]:
        found, _ = endpoints.page(
            database, account_id=account_id, limit=2, after=after, newest_first=False
        )
        return [endpoint.id for endpoint in found]

    pager = Pager(read)
    pattern = webhooks.make_endpoint(database, account_id)
    columns = {
        column.key: getattr(pattern, column.key) for column in sa.inspect(WebhookEndpoint).columns
    }
    late: list[uuid.UUID] = []
    with database.transaction() as transaction:
        early = ordered_ids.new(transaction)
        transaction.execute(sa.insert(WebhookEndpoint).values(columns | {"id": early}))
        if database.dialect == "postgresql":
            late.append(webhooks.make_endpoint(database, account_id).id)
        pager.page()
        assert pager.seen == [pattern.id]
    pager.page()

    assert pager.seen == [pattern.id, early, *late]


def test_a_delivery_that_is_committed_after_a_later_one_is_not_missed(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)

    def read(after: uuid.UUID | None) -> list[uuid.UUID]:
        views, _ = queries.of_job(database, job_id, limit=2, after=after)
        return [view.delivery.id for view in views]

    def notification(number: int) -> Notification:
        queue_id, origin = policy.queue(account_id, f"https://receiver.example/{number}")
        with database.transaction() as opened:
            notifications.open_queue(opened, queue_id, account_id=account_id, origin=origin)
            at = notifications.now(opened)
        target = NotificationTarget(queue_id, None, f"https://receiver.example/{number}")
        data: dict[str, Any] = {"omitted": []}
        return Notification(account_id, "job.succeeded", at, data, [target], job_id=job_id)

    pager = Pager(read)
    first, second = notification(1), notification(2)
    late: list[uuid.UUID] = []
    with database.transaction() as transaction:
        [early] = notifications.write(transaction, [first])
        if database.dialect == "postgresql":
            with database.transaction() as other:
                late += notifications.write(other, [second])
        pager.page()
        assert pager.seen == []
    pager.page()

    assert pager.seen == [early, *late]
