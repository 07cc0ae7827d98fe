"""The thread that works on operations: in slices, so that several take turns, and at half speed.

The delivery process has it, because it can remove answers from webhooks too.
"""

import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import sqlalchemy as sa
import structlog

from core import errors, ids
from core.background import BackgroundLoop
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable, DiskFull
from core.settings import Settings
from core.wakeup import Wakeup
from jobs.lifecycle import OperationAction, OperationResult, Status
from jobs.records.jobs import Job
from jobs.store import (
    accounts,
    commands,
    erasure,
    history,
    operations,
    quarantine,
    reruns,
    retention,
)
from jobs.store import submission as submissions
from jobs.store.admission import Admission, Disk
from jobs.store.operations import OperationClaim, OperationLost, PendingJob, StepResult
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)

_LEASE = timedelta(seconds=60)
_EVERY_SECONDS = 1.0
#: Jobs of an operation, before the next one has its turn.
_SLICE = 50
#: Ids that are collected at once.
_BATCH = 500
#: The least pause after each job; a longer step is followed by a pause of its own length.
_PAUSE_SECONDS = 0.002
#: While the queue or the disk is full.
_WAIT = timedelta(seconds=10)

_DONE = StepResult(OperationResult.DONE)


def _skipped(reason: str) -> StepResult:
    return StepResult(OperationResult.SKIPPED, reason)


def _failed(reason: str) -> StepResult:
    return StepResult(OperationResult.FAILED, reason)


class _Stopping(Exception):
    """The process is asked to stop."""


class _JobsRunning(Exception):
    """Jobs of an account that is erased still run; they have been cancelled."""


class _KeyRevoked(Exception):
    """The key that requested the operation is not valid any more."""


class OperationRunner(BackgroundLoop):
    """Works on operations. Any number of processes may do so at once.

    Args:
        database: where jobs and operations are stored.
        settings: the served model, and the limits of the queue and of storage.
        owner: the id of the process.
        wakeup: wakes workers for new jobs and for jobs whose wait has ended.
        remove_copies: as :func:`jobs.store.retention.remove_job` takes it.
        remove_account: as :func:`jobs.store.erasure.erase_account` takes it.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        owner: str,
        wakeup: Wakeup,
        remove_copies: retention.RemoveCopies,
        remove_account: erasure.RemoveAccount,
    ) -> None:
        super().__init__("operations", self._work, every=_EVERY_SECONDS)
        self._database = database
        self._owner = owner
        self._wakeup = wakeup
        self._remove_copies = remove_copies
        self._remove_account = remove_account
        self._model = settings.model
        self._admission = Admission(database, settings)
        # Half of an account's queue stays free for what its callers submit meanwhile.
        self._spare = max(1, settings.queued_jobs_per_account // 2)
        self._disk = Disk(database, floor_mb=settings.disk_floor_mb)
        self._quota = Quota(database, default_mb=settings.storage_mb_per_account)

    def run_slice(self) -> bool:
        """Work a while on the operation that waits longest; return whether there was one.

        Raises:
            core.database_faults.DatabaseUnavailable: the database does not answer; the next call continues.
        """
        held = operations.claim(self._database, owner=self._owner, lease=_LEASE)
        if held is None:
            return False
        try:
            self._continue(held)
        except OperationLost:
            _log.info("operation_lost", operation=ids.show("op", held.id))
        except _KeyRevoked:
            operations.finish(
                self._database,
                held,
                Status.CANCELLED,
                code="key_revoked",
                message="The key that requested the operation was revoked.",
            )
        except (errors.QueueFull, errors.Overloaded, DiskFull) as error:
            operations.release(self._database, held, waiting_for=error.code, pause=_WAIT)
        except _JobsRunning:
            operations.release(self._database, held, waiting_for="jobs_running", pause=_WAIT)
        except _Stopping:
            operations.release(self._database, held, pause=timedelta(0))
        return True

    def _work(self) -> None:
        try:
            while not self.stopping and self.run_slice():
                pass
        except DatabaseUnavailable:
            _log.warning("operations_not_continued")

    def _continue(self, held: OperationClaim) -> None:
        principal = accounts.principal(self._database, held.key_id)
        if principal is None:
            raise _KeyRevoked
        if not held.collected:
            self._collect(held)
            return
        if held.erases_account and held.scope_id is not None:
            # After the jobs were counted: with more than confirmed, the operation changes nothing.
            erasure.close_account(self._database, held.scope_id, actor=principal.actor)
        jobs = operations.pending(self._database, held, limit=_SLICE)
        for job in jobs:
            if self.stopping:
                break
            started = time.monotonic()
            held = self._step(held, job, principal)
            self.pause(max(_PAUSE_SECONDS, time.monotonic() - started))
        else:
            if len(jobs) < _SLICE:
                self._erase_account(held, principal)
                operations.finish(self._database, held, Status.SUCCEEDED)
                _log.info("operation_finished", operation=ids.show("op", held.id), jobs=held.total)
                return
        operations.release(self._database, held, pause=timedelta(0))

    def _erase_account(self, held: OperationClaim, principal: accounts.Principal) -> None:
        """Erase what an account has besides its jobs, if the operation is for that. It can be repeated.

        Raises:
            _JobsRunning: jobs that came later still run.
            _Stopping: the process is asked to stop.
        """
        if not held.erases_account or held.scope_id is None:
            return

        def go_on(_jobs: int) -> None:
            if self.stopping:
                raise _Stopping

        erased = erasure.erase_account(
            self._database,
            held.scope_id,
            actor=principal.actor,
            remove_copies=self._remove_copies,
            remove_account=self._remove_account,
            progress=go_on,
        )
        if erased.running:
            raise _JobsRunning

    def _collect(self, held: OperationClaim) -> None:
        """Add a batch to the operation's jobs, or end it: nothing has changed yet, so the caller may try again."""
        try:
            held = operations.collect(self._database, held, limit=_BATCH)
        except errors.SearchTooSlow:
            self._refuse(held, "search_too_broad", "The search for the jobs took too long.")
        except errors.InvalidRequest as invalid:
            self._refuse(held, invalid.specific_code, invalid.message)
        else:
            if held.total > held.max_jobs:
                self._refuse(held, "too_many_jobs", f"More than {held.max_jobs} jobs match.")
                return
            operations.release(self._database, held, pause=timedelta(0))

    def _refuse(self, held: OperationClaim, code: str, cause: str) -> None:
        operations.finish(
            self._database,
            held,
            Status.FAILED,
            code=code,
            message=f"{cause.removesuffix('.')}; no job was changed.",
        )

    def _step(
        self, held: OperationClaim, job: PendingJob, principal: accounts.Principal
    ) -> OperationClaim:
        """Do one job. What is wrong with it alone is its result, and the others go on."""
        if held.erases_account:
            self._cancel_first(job, principal)
        try:
            act = self._act(held, job, principal)
            held = operations.step(self._database, held, job.job_id, act)
        except errors.QueueFull:
            raise
        except reruns.RerunRefused as refused:
            return self._note(held, job.job_id, refused.reason)
        except errors.RequestError as refused:
            return self._note(held, job.job_id, refused.specific_code)
        except sa.exc.SQLAlchemyError:
            _log.exception("operation_step_failed", job=ids.show("job", job.job_id))
            return self._note(held, job.job_id, "database_error")
        if held.action in (OperationAction.RERUN, OperationAction.RUN_NOW):
            self._wakeup.notify()
        return held

    def _cancel_first(self, item: PendingJob, principal: accounts.Principal) -> None:
        """Cancel a job before it is erased. Raises :class:`_JobsRunning` while its worker has not stopped it."""
        status = commands.cancel(
            self._database, item.job_id, account_id=None, actor=principal.actor
        )
        if status is not None and not status.terminal:
            raise _JobsRunning

    def _note(self, held: OperationClaim, job_id: uuid.UUID, reason: str) -> OperationClaim:
        return operations.step(self._database, held, job_id, lambda _: _failed(reason))

    def _act(
        self, held: OperationClaim, item: PendingJob, principal: accounts.Principal
    ) -> Callable[[Transaction], StepResult]:
        """Return what to do in the transaction of a job.

        Raises:
            core.errors.QueueFull: a rerun has to wait for room in the queue.
            core.errors.StorageQuotaExceeded: the account of the job may store nothing.
            core.database_faults.DiskFull: there is no disk space.
        """
        limit = None
        if held.action is OperationAction.RERUN and item.account_id is not None:
            self._disk.check()
            self._admission.check(item.account_id, jobs=self._spare)
            limit = self._quota.check(item.account_id)

        def act(transaction: Transaction) -> StepResult:
            job = transaction.session.get(Job, item.job_id, with_for_update=True)
            if job is None:
                return _skipped("not_found")
            match held.action:
                case OperationAction.CANCEL:
                    return _cancel(transaction, held, job, principal.actor)
                case OperationAction.RUN_NOW:
                    return _run_now(transaction, held, job, principal.actor)
                case OperationAction.DELETE:
                    return self._delete(transaction, held, job, principal.actor)
                case OperationAction.RERUN:
                    came = self._rerun(transaction, held, job, principal, limit)
                    if came.result is OperationResult.DONE:
                        self._admission.took(job.account_id)
                    return came

        return act

    def _delete(
        self, transaction: Transaction, held: OperationClaim, job: Job, actor: str
    ) -> StepResult:
        if not job.status.terminal:
            return _skipped("not_finished")
        removed = retention.remove_data(
            transaction, [job.id], actor=actor, remove_copies=self._remove_copies, noted=held.noted
        )
        return _DONE if removed.jobs else _skipped("already_deleted")

    def _rerun(
        self,
        transaction: Transaction,
        held: OperationClaim,
        job: Job,
        principal: accounts.Principal,
        limit: int | None,
    ) -> StepResult:
        if not job.status.terminal:
            return _skipped("not_finished")
        # With the job locked, the later of two operations sees the rerun of the earlier one.
        if held.filter.rerun == "none" and history.is_rerun(transaction, job.id):
            return _skipped("already_rerun")
        images = history.images_of(transaction, job.id)
        new = reruns.prepare(
            job,
            images,
            model=self._model,
            actor=principal.actor,
            highest=principal.highest_priority,
            request_id=held.request_id,
        )
        keys = [image.image.image_key for image in images]
        if quarantine.held_in(transaction, job.account_id, keys):
            return _failed("image_quarantined")
        stored = submissions.insert(transaction, new, storage_limit=limit, noted=held.noted)
        return StepResult(OperationResult.DONE, new_job_id=stored.job_id)


def _cancel(transaction: Transaction, held: OperationClaim, job: Job, actor: str) -> StepResult:
    if job.status.terminal:
        return _skipped("already_finished")
    ended = commands.end(transaction, job, actor=actor, noted=held.noted)
    return _skipped("already_requested") if ended is None else _DONE


def _run_now(transaction: Transaction, held: OperationClaim, job: Job, actor: str) -> StepResult:
    if job.status is not Status.QUEUED:
        return _skipped("not_queued")
    ended = commands.end_wait(transaction, job, actor=actor, noted=held.noted)
    return _DONE if ended else _skipped("already_due")
