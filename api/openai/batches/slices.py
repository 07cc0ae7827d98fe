"""Slices of the work on a batch: each reads, submits, collects or writes a few lines, and gives the batch back."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import flask
import orjson
import structlog

from api import errors as problems
from api.auth import Caller
from api.framework import spooling
from api.openai.batches import line_results, lines
from api.openai.batches.endpoints import BatchEndpoints
from api.openai.batches.validation import BatchReader
from api.openai.files import lifetime_of_batches
from api.schemas import parameters, requests
from api.submission import ParsedSubmission, SubmissionService
from core import errors, escapes, ids
from core.database import Database, Transaction
from core.database_faults import DatabaseUnavailable, DiskFull
from core.settings import Settings
from jobs.lifecycle import Priority
from jobs.records.files import BatchEntry, BatchLine, BatchStatus, LineState
from jobs.store import accounts, batch_lines, batches, commands, files
from jobs.store.admission import Admission
from jobs.store.batch_lines import LineError, LineWritten
from jobs.store.batches import BatchClaim, BatchLost
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)

#: Lines that one slice submits, and about how many seconds it takes, before the next batch has its turn. Each line may
#: fetch images from slow servers.
_FED: Final = 16
_FEED_SECONDS: Final = 1.0
#: Lines, and about how many bytes and seconds, that one slice writes. Lines without a job take almost no time.
_WRITTEN: Final = 500
_WRITTEN_BYTES: Final = 2**20
_WRITE_SECONDS: Final = 0.25
#: Between two slices of a batch: after one that changed something, and after one that only waited for jobs.
_AT_ONCE: Final = timedelta(0)
_IDLE: Final = timedelta(seconds=0.5)
#: While the queue, the disk or the quota is full.
_FULL: Final = timedelta(seconds=10)
#: What a line waits for; every other refusal is its result.
_NOT_NOW: Final = (
    errors.Unavailable,
    errors.QueueFull,
    errors.StorageQuotaExceeded,
    errors.RateLimitExceeded,
)

#: Called with a batch in the transaction that ends it.
Notify = Callable[[Transaction, BatchEntry], None]


class _Stopped(Exception):
    """The process is about to end, which closes what a line needs."""


class BatchSlices:
    """Does slices. Thread-safe: of two slices of one batch, the one whose claim is not valid any more is lost.

    Args:
        app: its context holds what a line takes while it is submitted.
        database: where batches are stored.
        settings: limits.
        service: submits jobs.
        quota: the storage quota of accounts.
        endpoints: the routes whose requests batches may have.
        stopping: returns whether the process is about to end: what fails from then on is the fault of no line.
        notify: tells receivers of the end of a batch.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        app: flask.Flask,
        database: Database,
        settings: Settings,
        *,
        service: SubmissionService,
        quota: Quota,
        endpoints: BatchEndpoints,
        stopping: Callable[[], bool],
        notify: Notify,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._database = database
        self._service = service
        self._quota = quota
        self._endpoints = endpoints
        self._stopping = stopping
        self._notify = notify
        self.timer = timer
        self._window = settings.batch_window
        self._line_bytes = settings.max_body_mb * 2**20
        self._settings = settings
        self._admission = Admission(database, settings)
        # Half of an account's queue stays free for what its callers submit meanwhile.
        self._spare = settings.queued_jobs_per_account // 2

    def run(self, held: BatchClaim) -> None:
        """Do a slice of a batch, and give the batch back.

        Raises:
            core.database.DatabaseUnavailable: the database does not answer; another call continues.
        """
        try:
            with (
                structlog.contextvars.bound_contextvars(job_id=None),
                spooling.outside_request(self._app, party=held.batch.account_id) as free,
            ):
                pause = self._continue(held, free)
        except BatchLost:
            _log.info("batch_lost", batch=ids.show("batch", held.id))
        except _Stopped:
            batches.release(self._database, held, pause=_AT_ONCE)
        except _NOT_NOW as error:
            if isinstance(error, DatabaseUnavailable) and not isinstance(error, DiskFull):
                raise
            code = error.specific_code if isinstance(error, errors.RequestError) else error.code
            batches.release(self._database, held, pause=_FULL, waiting_for=code)
        except Exception:  # noqa: BLE001 - one batch must not stop the others, nor the API
            _log.exception("batch_slice_failed", batch=ids.show("batch", held.id))
            batches.release(self._database, held, pause=_FULL, waiting_for="server_error")
        else:
            batches.release(self._database, held, pause=pause)

    def _continue(self, held: BatchClaim, free: Callable[[], None]) -> timedelta:
        """Do a slice; return the pause until the next one."""
        if held.batch.ending is not None:
            return self._end(held)
        if held.expired:
            batches.begin_end(self._database, held, BatchStatus.EXPIRED)
            return _AT_ONCE
        principal = accounts.principal(self._database, held.batch.key_id)
        if principal is None:
            batches.give_up(
                self._database,
                held,
                code="key_revoked",
                message="The key that created the batch was revoked or has expired.",
            )
            return _AT_ONCE
        caller = Caller(**vars(principal))
        if held.batch.status is BatchStatus.VALIDATING:
            return self._validate(held, caller, free)
        return self._feed(held, caller, free)

    def _validate(self, held: BatchClaim, caller: Caller, free: Callable[[], None]) -> timedelta:
        # An account could store many times the bytes of one file, by the lines of many batches.
        self._quota.check(caller.account_id)
        reader = BatchReader(self._database, max_line_bytes=self._line_bytes, between=free)
        endpoint = self._endpoints[held.batch.endpoint]
        if reader.slice(held, endpoint=endpoint, caller=caller):
            return _AT_ONCE
        read = batches.get(self._database, held.id, account_id=None)
        if read is not None and read.fault_count:
            self._discard(held)
            self._finish(held, BatchStatus.FAILED)
        else:
            batches.begin(self._database, held)
        return _AT_ONCE

    def _feed(self, held: BatchClaim, caller: Caller, free: Callable[[], None]) -> timedelta:
        """Collect jobs that have ended, and submit the next lines."""
        collected = self._collect(held)
        open_lines = batch_lines.unfinished(self._database, held.id)
        room = min(_FED, self._window - open_lines)
        waiting = batch_lines.waiting(self._database, held.id, limit=max(1, room))
        if not waiting and not open_lines:
            batches.begin_end(self._database, held, BatchStatus.COMPLETED)
            return _AT_ONCE
        until = self.timer() + _FEED_SECONDS
        for line in waiting[: max(0, room)]:
            if self._stopping():
                break
            self._admission.check(caller.account_id, jobs=self._spare + 1)
            self._submit(held, line, caller)
            free()
            if self.timer() >= until:
                break
        return _AT_ONCE if collected or (waiting and room > 0) else _IDLE

    def _submit(self, held: BatchClaim, line: BatchLine, caller: Caller) -> None:
        """Submit a line, or note why it cannot become a job."""
        try:
            parsed = self._parsed(held, line, caller)
            self._service.submit(
                caller,
                parsed,
                header=parameters.GroupHeaders(),
                request_id=ids.show("req", ids.new()),
                joined=batch_lines.submitted(held, line.number),
            )
            self._admission.took(caller.account_id)
        except (BatchLost, *_NOT_NOW):
            raise
        except errors.RequestError as refused:
            self._blame_no_stop()
            status = problems.OPENAI.status_of(refused)
            place = None if refused.param is None else lines.storable(refused.param)
            message = lines.storable(refused.message)
            error = LineError(refused.specific_code, message, status, place)
            batch_lines.refuse(self._database, held, line.number, error)
        except Exception:  # noqa: BLE001 - the boundary of one line
            self._blame_no_stop()
            # One line must not stop the batch, nor the process that would meet it again and again.
            _log.exception("line_not_submitted", batch=ids.show("batch", held.id), line=line.number)
            error = LineError("server_error", "The service failed to submit this request.", 500)
            batch_lines.refuse(self._database, held, line.number, error)

    def _blame_no_stop(self) -> None:
        """Raise :class:`_Stopped` if the line may have failed because the process is about to end."""
        if self._stopping():
            raise _Stopped

    def _parsed(self, held: BatchClaim, line: BatchLine, caller: Caller) -> ParsedSubmission:
        """Return the submission of a line: of low priority, and with the time that the batch has left.

        Raises:
            core.errors.InvalidRequest: the line was valid when the file was read, and is not any more.
        """
        batch = held.batch
        pieces = files.read(
            self._database,
            batch.input_file_id,
            start=line.start,
            end=line.start + line.length,
        )
        raw = lines.RawLine(line.start, line.length, b"".join(pieces))
        if raw.is_empty:
            raise errors.InvalidRequest(
                "This line was deleted with a job that had it.", code="request_deleted"
            )
        if line.start == 0:
            raw = dataclasses.replace(raw, data=lines.without_mark(raw.data or b""))
        parsed = lines.parse(
            raw,
            line.number,
            endpoint=self._endpoints[batch.endpoint],
            caller=caller,
            max_bytes=self._line_bytes,
            read_files=True,
        ).submission
        if parsed is None or not isinstance(parsed.job, requests.JobFields):
            raise errors.InvalidRequest("This request cannot be read any more.")
        # Rounded up: until the batch expires, only a deadline of the line's own passes.
        left = max(1, math.ceil(held.left.total_seconds()))
        options = parsed.job.options.model_copy(
            update={
                "priority": Priority.LOW.value,
                "deadline_seconds": min(parsed.job.options.deadline_seconds or left, left),
            }
        )
        return dataclasses.replace(parsed, job=parsed.job.model_copy(update={"options": options}))

    def _collect(self, held: BatchClaim) -> int:
        endpoint = self._endpoints[held.batch.endpoint]
        return batch_lines.collect(
            self._database,
            held,
            answered=endpoint.answered,
            add=lambda tokens, job: line_results.added(tokens, endpoint.usage(job)),
            limit=self._window,
        )

    def _end(self, held: BatchClaim) -> timedelta:
        """Stop what has not ended; then write the files, and end the batch."""
        assert held.batch.ending is not None  # noqa: S101 - it is ending
        if held.batch.in_progress_at is None:
            # Its file was not read to the end: files with some of its lines would look like files with all of them.
            self._discard(held)
            self._finish(held, held.batch.ending)
            return _AT_ONCE
        if batch_lines.give_up(self._database, held):
            return _AT_ONCE
        if held.batch.ending is not BatchStatus.COMPLETED:
            for job_id in batch_lines.running_jobs(self._database, held.id):
                actor = f"key:{ids.show('key', held.batch.key_id)}"
                commands.cancel(self._database, job_id, account_id=None, actor=actor)
        if self._collect(held):
            return _AT_ONCE
        if batch_lines.unfinished(self._database, held.id):
            return _IDLE
        if self._write(held):
            return _AT_ONCE
        self._finish(held, held.batch.ending)
        return _AT_ONCE

    def _write(self, held: BatchClaim) -> bool:
        """Write the next lines to the files; return False if all are written."""
        batch = held.batch
        endpoint = self._endpoints[batch.endpoint]
        chosen = batch_lines.ended(
            self._database, batch.id, after=batch.written_line, limit=_WRITTEN
        )
        written: list[LineWritten] = []
        size, until = 0, self.timer() + _WRITE_SECONDS
        for line in chosen:
            shown = line_results.result(self._database, batch, line, endpoint)
            data = escapes.in_one_line(orjson.dumps(shown)) + b"\n"
            has_content = line.state is LineState.COMPLETED and not line_results.is_deleted(shown)
            written.append(LineWritten(line, data, has_content=has_content))
            size += len(data)
            if size >= _WRITTEN_BYTES or self.timer() >= until:
                break
        if written:
            batch_lines.write(self._database, held, written)
        return bool(written)

    def _discard(self, held: BatchClaim) -> None:
        while batch_lines.discard(self._database, held):
            pass

    def _finish(self, held: BatchClaim, status: BatchStatus) -> None:
        batches.finish(
            self._database,
            held,
            status,
            lifetime=lifetime_of_batches(self._settings, held.batch.output_expires_seconds),
            notify=self._notify,
        )
        _log.info(
            "batch_finished",
            batch=ids.show("batch", held.id),
            status=status,
            lines=held.batch.total,
        )
