"""Erasure: the removal of the content of many jobs, of a query or of an account.

Each batch is a transaction of its own, and each call chooses what still has content. A process that dies in the middle
leaves whole jobs and erased jobs; another call continues. What content is says :mod:`jobs.store.contents`.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from core.database import Database, Transaction
from jobs.filters import Filter
from jobs.records.accounts import Account, ApiKey
from jobs.records.images import Image
from jobs.records.queue import QueuePause
from jobs.store import (
    batches,
    commands,
    erased_accounts,
    files,
    history,
    operation_removal,
    retention,
)
from jobs.store.retention import DataRemoved, RemoveCopies

#: Jobs, or images, of one transaction.
BATCH: Final = 50
_COUNTED: Final = 1_000

#: Removes a batch of what another room has stored of an account; returns how many rows it was.
RemoveAccount = Callable[[Database, uuid.UUID], int]


@dataclass(frozen=True)
class AccountErased:
    """What an erasure of an account did, and how many of its jobs still run and keep it from its end."""

    jobs: int = 0
    images: int = 0
    cancelled: int = 0
    running: int = 0


def count(database: Database, requested: Filter) -> tuple[int, int]:
    """Return how many finished jobs that match have content, and how many that match have not finished.

    Raises:
        core.errors.SearchTooSlow: the search reached its deadline.
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    finished = sum(1 for _ in _walk(history.erasable, database, requested))
    return finished, sum(1 for _ in _walk(history.unfinished, database, requested))


def _walk(
    read: Callable[..., list[uuid.UUID]], database: Database, requested: Filter
) -> Iterator[uuid.UUID]:
    after: uuid.UUID | None = None
    while job_ids := read(database, requested, limit=_COUNTED, after=after):
        yield from job_ids
        after = job_ids[-1]


def erase_jobs(
    database: Database, requested: Filter, *, actor: str, remove_copies: RemoveCopies
) -> Iterator[DataRemoved]:
    """Erase the finished jobs that match, batch by batch, oldest first; yield what each batch removed.

    Args:
        database: where they are stored.
        requested: which jobs.
        actor: who erases them, as the timeline names it.
        remove_copies: removes the copies of another room, in the transaction of each batch.

    Raises:
        core.errors.SearchTooSlow: the search reached its deadline; what was yielded remains erased.
        core.database_faults.DatabaseUnavailable: the database does not answer; what was yielded remains erased.
    """
    after: uuid.UUID | None = None
    while job_ids := history.erasable(database, requested, limit=BATCH, after=after):
        with database.transaction("erase") as transaction:
            removed = retention.remove_data(
                transaction, job_ids, actor=actor, remove_copies=remove_copies
            )
        yield removed
        after = job_ids[-1]


def close_account(database: Database, account_id: uuid.UUID, *, actor: str) -> None:
    """Revoke the keys of an account, and end its operations and batches, so that nothing new arrives. Idempotent.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer.
    """
    with database.transaction() as transaction:
        _revoke_keys(transaction, account_id, actor=actor)
        # Those of operators, too: a rerun would submit new jobs, and the query is removed below.
        operation_removal.cancel_of(transaction, account_id)
        batches.end_all(transaction, account_id)


def _revoke_keys(transaction: Transaction, account_id: uuid.UUID, *, actor: str) -> None:
    transaction.update(
        ApiKey,
        ApiKey.account_id == account_id,
        ApiKey.revoked_at.is_(None),
        revoked_at=transaction.now(),
        revoked_by=actor,
    )


def erase_account(
    database: Database,
    account_id: uuid.UUID,
    *,
    actor: str,
    remove_copies: RemoveCopies,
    remove_account: RemoveAccount,
    progress: Callable[[int], object] = lambda _jobs: None,
) -> AccountErased:
    """Erase all content of an account: jobs, images, files, receivers, and the names of the account and of its keys.

    Keys are revoked and operations cancelled first, so nothing new arrives, and unfinished jobs are cancelled. While
    some still run, the rest of the account stays: another call continues once they have ended. The account's name is
    removed last; then what requests have stored meanwhile is erased, too.

    Args:
        database: where it is stored.
        account_id: the account.
        actor: who erases it, as the timeline names it.
        remove_copies: as in :func:`erase_jobs`.
        remove_account: removes what another room has stored, called until it returns 0.
        progress: called with the number of jobs after each batch; what it raises ends the erasure for now.

    Raises:
        core.database_faults.DatabaseUnavailable: the database does not answer; another call continues.
    """
    close_account(database, account_id, actor=actor)

    def erase() -> AccountErased:
        return _erase_content(
            database,
            account_id,
            actor=actor,
            remove_copies=remove_copies,
            remove_account=remove_account,
            progress=progress,
        )

    first = erase()
    if first.running:
        return first
    with database.transaction() as transaction:
        # This waits for rows that refer to the account, such as a key that is being created.
        transaction.update(Account, Account.id == account_id, name=erased_accounts.name(account_id))
        _revoke_keys(transaction, account_id, actor=actor)
        transaction.update(QueuePause, QueuePause.account_id == account_id, reason=None)
        transaction.update(ApiKey, ApiKey.account_id == account_id, name="")
    # What requests have stored that were accepted before their keys were revoked; from now on nothing is stored.
    last = erase()
    return AccountErased(
        first.jobs + last.jobs,
        first.images + last.images,
        first.cancelled + last.cancelled,
        last.running,
    )


def _erase_content(
    database: Database,
    account_id: uuid.UUID,
    *,
    actor: str,
    remove_copies: RemoveCopies,
    remove_account: RemoveAccount,
    progress: Callable[[int], object],
) -> AccountErased:
    """Erase all content of an account but its names, unless jobs still run; see :func:`erase_account`."""
    everything = Filter(account_id=account_id)
    # Before the jobs, so that their copies in files need not be removed one by one.
    batches.remove_all(database, account_id)
    files.remove_all(database, account_id)
    cancelled = _cancel(database, everything, actor=actor)
    # Before the pass: a job that ends during it may be behind it.
    running = len(history.unfinished(database, everything, limit=BATCH))
    jobs = images = 0
    for removed in erase_jobs(database, everything, actor=actor, remove_copies=remove_copies):
        jobs += removed.jobs
        images += removed.images
        progress(jobs)
    # Again: an operation on all accounts may have submitted a rerun meanwhile.
    running = max(running, len(history.unfinished(database, everything, limit=BATCH)))
    if running:
        return AccountErased(jobs, images, cancelled, running)
    images += _remove_images(database, account_id, progress=lambda: progress(jobs))
    while remove_account(database, account_id):
        progress(jobs)
    operation_removal.forget_account(database, account_id)
    return AccountErased(jobs, images, cancelled)


def _cancel(database: Database, requested: Filter, *, actor: str) -> int:
    """Cancel the unfinished jobs that match; return how many."""
    cancelled = 0
    after: uuid.UUID | None = None
    while job_ids := history.unfinished(database, requested, limit=BATCH, after=after):
        for job_id in job_ids:
            commands.cancel(database, job_id, account_id=None, actor=actor)
        cancelled += len(job_ids)
        after = job_ids[-1]
    return cancelled


def _remove_images(
    database: Database, account_id: uuid.UUID, *, progress: Callable[[], object]
) -> int:
    """Remove the bytes of the account's images that were uploaded without a job; return how many."""
    count = 0
    while True:
        with database.transaction() as transaction:
            images = transaction.session.scalars(
                sa.select(Image)
                .where(Image.account_id == account_id, Image.removed_at.is_(None))
                .order_by(Image.original_sha256, Image.detail, Image.pipeline)
                .limit(BATCH)
                .with_for_update()
            ).all()
            for image in sorted(images, key=lambda image: image.image_key):
                retention.drop_image(transaction, image)
        if not images:
            return count
        count += len(images)
        progress()
