"""Removes the content of a job that a client asked not to store, once the client has its answer."""

from __future__ import annotations

import uuid

import structlog

from api.auth import Caller
from core import errors, ids
from core.database import Database
from jobs.store import retention
from webhooks import purge

_log = structlog.get_logger(__name__)


def remove(database: Database, job_id: uuid.UUID, caller: Caller) -> None:
    """Remove the content of a job that has ended.

    The client has a right to its answer. So this never fails: what is left, a sweep removes a minute later
    (:func:`jobs.store.responses.to_discard`).
    """
    try:
        retention.remove_job(
            database,
            job_id,
            account_id=caller.account_id,
            actor=caller.actor,
            remove_copies=purge.reduce_jobs,
        )
    except (errors.RequestError, errors.Unavailable):
        _log.warning("content_not_removed", job_id=ids.show("job", job_id))
