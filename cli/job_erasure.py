"""The erasure of the jobs of a query, directly in the database."""

import dataclasses

from cli import erasing, output
from core.database import utcnow
from core.settings import Settings
from jobs import filters
from jobs.store import accounts, erasure
from migrations import schema
from webhooks import purge


def erase(query: str, *, account: str | None, dry_run: bool, confirmed: str | None) -> None:
    """Erase the finished jobs that match ``query``, in one account or in all, after a confirmation.

    Raises:
        core.errors.InvalidRequest: the query is invalid.
        core.errors.LaunchError: the operator did not confirm, or the database is not at this schema.
        core.errors.NotFound: there is no such account.
    """
    requested = filters.parse_for_change(query, now=utcnow())
    with schema.opened(Settings.read()) as database:
        if account is not None:
            account_id = accounts.account_id(database, account)
            requested = dataclasses.replace(requested, account_id=account_id)
        jobs, unfinished = erasure.count(database, requested)
        if unfinished:
            output.note(f"{unfinished} jobs have not finished and remain; cancel them first.")
        if dry_run or not jobs:
            output.event("matched", f"{jobs} jobs to erase")
            return
        erasing.confirm(f"{jobs} jobs will be erased.", word=str(jobs), confirmed=confirmed)
        erased = images = 0
        for removed in erasure.erase_jobs(
            database, requested, actor=erasing.actor(), remove_copies=purge.reduce_jobs
        ):
            erased += removed.jobs
            images += removed.images
        erasing.clean(database)
    output.event("erased", f"{erased} jobs, {images} images")
