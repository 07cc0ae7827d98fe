"""``/v1/batches``: create, list, get, cancel and repeat batches, and read their results."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta
from http import HTTPStatus
from typing import Final

import flask
import orjson
import structlog
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, reply, route
from api.openai.batches import line_results
from api.openai.batches.endpoints import BatchEndpoints
from api.schemas import batches as schemas
from api.schemas import cursors
from api.schemas.paths import BatchId
from core import errors, ids
from core.database import Database
from core.settings import Settings
from jobs import records
from jobs.records.files import BatchStatus, LineState
from jobs.store import batch_lines, batches, files
from jobs.store.admission import Disk
from jobs.store.batches import NewBatch
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)

_ONE = "/v1/batches/<batch_id>"
_CREATED = ResponseSpec(schemas.Batch, "The batch.", ("Idempotent-Replayed",))


_EXAMPLES: Final = {
    "application/json": {
        "responses": {
            "summary": "Responses within a week",
            "value": {
                "input_file_id": "file-0190c0de00007000800000000000abcd",
                "endpoint": "/v1/responses",
                "completion_window": "7d",
                "metadata": {"run": "nightly"},
            },
        },
    },
}


class BatchRoutes:
    """The routes of batches.

    Args:
        settings: limits.
        database: stores batches; :class:`api.openai.batches.runner.BatchRunner` works on them.
        endpoints: the routes whose requests batches may have.
        quota: the storage quota of accounts.
        disk: the free disk space.
    """

    TAG = "batches"
    ERRORS = problems.OPENAI

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        endpoints: BatchEndpoints,
        quota: Quota,
        disk: Disk,
    ) -> None:
        self._most_open = settings.batches_per_account
        self._key_lifetime = timedelta(hours=settings.idempotency_hours)
        self._database = database
        self._endpoints = endpoints
        self._quota = quota
        self._disk = disk

    @route.post(
        "/v1/batches",
        operation_id="createBatch",
        guard=Right.SUBMIT,
        answers={200: _CREATED},
        faults=(400, 403, 404, 409, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.BatchRequest}, examples=_EXAMPLES),
    )
    def create(self, caller: Caller, header: schemas.BatchHeaders) -> Response:
        """Run the requests in a file, each as a job of low priority.

        First all lines are read: if one of them is not valid, the batch is `failed` and `errors` has the first 1,000
        faults of all lines. Then the lines become jobs, a limited number of them at a time, so that other jobs do not
        wait for the batch.
        """
        requested = framework.read_model(flask.request, schemas.BatchRequest)
        window = schemas.window_of(requested.completion_window) or timedelta()
        file_id = self._check(caller, requested)
        expiry = requested.output_expires_after
        new = NewBatch(
            account_id=caller.account_id,
            key_id=caller.key_id,
            endpoint=requested.endpoint,
            input_file_id=file_id,
            completion_window=requested.completion_window,
            window=window,
            output_expires_seconds=None if expiry is None else expiry.seconds,
            metadata=requested.metadata,
            request_id=problems.request_id(),
            idempotency_key=header.idempotency_key,
            fingerprint=_fingerprint(requested.model_dump(mode="json")),
        )
        return self._create(new)

    @route.get(
        "/v1/batches",
        operation_id="listBatches",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.BatchList, "A page of batches.")},
        faults=(400,),
    )
    def list_all(self, caller: Caller, query: schemas.BatchesQuery) -> Response:
        """List batches, newest first. Operators see those of all accounts."""
        listed, more = batches.page(
            self._database,
            account_id=caller.scope,
            limit=query.limit,
            after=query.after,
        )
        data = [schemas.Batch.of(batch) for batch in listed]
        return reply(schemas.BatchList.of(data, has_more=more))

    @route.get(
        _ONE,
        operation_id="getBatch",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.Batch, "The batch.")},
        faults=(404,),
    )
    def get(self, caller: Caller, batch_id: BatchId) -> Response:
        """Get a batch and its progress."""
        return reply(schemas.Batch.of(self._find(caller, batch_id)))

    @route.get(
        f"{_ONE}/results",
        operation_id="listBatchResults",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.BatchResultList, "A page of results.")},
        faults=(400, 404),
    )
    def results(
        self, caller: Caller, batch_id: BatchId, query: schemas.BatchResultsQuery
    ) -> Response:
        """List the results of a batch so far, at any time: the lines of its files, in the order of the input file."""
        batch = self._find(caller, batch_id)
        listed = batch_lines.ended(
            self._database,
            batch_id,
            after=_after(batch, query.after),
            limit=query.limit + 1,
            state=None if query.status is None else LineState(query.status),
        )
        endpoint = self._endpoints[batch.endpoint]
        data = [
            schemas.BatchResult.model_validate(
                line_results.result(self._database, batch, line, endpoint)
            )
            for line in listed[: query.limit]
        ]
        return reply(schemas.BatchResultList.of(data, has_more=len(listed) > query.limit))

    @route.post(
        f"{_ONE}/cancel",
        operation_id="cancelBatch",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.Batch, "The batch.")},
        faults=(404, 409),
    )
    def cancel(self, caller: Caller, batch_id: BatchId) -> Response:
        """Cancel a batch: running jobs are stopped, and the results so far are kept in its files.

        Cancelling a cancelled batch changes nothing; one that has ended otherwise is a conflict
        (`batch_not_cancellable`).
        """
        self._find(caller, batch_id)
        batches.cancel(self._database, batch_id)
        batch = self._find(caller, batch_id)
        if BatchStatus.CANCELLED not in (batch.status, batch.ending):
            raise errors.Conflict(
                f"The batch cannot be cancelled any more: it is {batch.status}.",
                code="batch_not_cancellable",
            )
        return reply(schemas.Batch.of(batch))

    @route.post(
        f"{_ONE}/retry",
        operation_id="retryBatch",
        guard=Right.SUBMIT,
        answers={200: _CREATED},
        faults=(400, 403, 404, 409, 422),
    )
    def retry(self, caller: Caller, batch_id: BatchId, header: schemas.BatchHeaders) -> Response:
        """Run the failed lines of a batch that has ended again, as a new batch with the same input file."""
        old = batches.get(self._database, batch_id, account_id=caller.account_id)
        batch = problems.existing(old, "batch")
        new = NewBatch(
            account_id=caller.account_id,
            key_id=caller.key_id,
            endpoint=batch.endpoint,
            input_file_id=batch.input_file_id,
            completion_window=batch.completion_window,
            window=schemas.window_of(batch.completion_window) or timedelta(),
            output_expires_seconds=batch.output_expires_seconds,
            metadata=batch.metadata_,
            retry_of=batch.id,
            request_id=problems.request_id(),
            idempotency_key=header.idempotency_key,
            fingerprint=_fingerprint({"retry_of": batch.id.hex}),
        )
        if batches.replay(self._database, new, key_lifetime=self._key_lifetime) is None:
            self._check_retry(batch)
        return self._create(new)

    def _create(self, new: NewBatch) -> Response:
        if batches.replay(self._database, new, key_lifetime=self._key_lifetime) is None:
            # A batch writes files, also one that is cancelled at once.
            self._disk.check()
            self._quota.check(new.account_id)
        batch, created = batches.create(
            self._database, new, most_open=self._most_open, key_lifetime=self._key_lifetime
        )
        _log.info("batch_created", batch=ids.show("batch", batch.id), replayed=not created)
        headers = {} if created else {"Idempotent-Replayed": "true"}
        return reply(schemas.Batch.of(batch), HTTPStatus.OK, headers=headers)

    def _check(self, caller: Caller, requested: schemas.BatchRequest) -> uuid.UUID:
        """Return the id of the input file. Raises :class:`core.errors.InvalidRequest` with every fault."""
        faults: list[errors.Fault] = []
        if requested.endpoint not in self._endpoints:
            served = " or ".join(f"`{path}`" for path in sorted(self._endpoints))
            faults.append(errors.Fault("#/endpoint", f"This must be {served}."))
        file_id = ids.parse("file", requested.input_file_id)
        file = file_id and files.get(self._database, file_id, account_id=caller.account_id)
        if not file:
            fault = errors.Fault("#/input_file_id", "There is no such file.", "not_found")
            faults.append(fault)
        elif file.purpose != batches.INPUT:
            sentence = f"The purpose of this file must be `batch`; it is `{file.purpose}`."
            faults.append(errors.Fault("#/input_file_id", sentence))
        if faults or file_id is None:
            raise problems.refused(faults)
        return file_id

    def _check_retry(self, batch: records.files.BatchEntry) -> None:
        """Raise :class:`core.errors.Conflict` if there is nothing to repeat."""
        if not batch.status.terminal:
            raise errors.Conflict("The batch has not ended.", code="batch_not_ended")
        if not batch.failed:
            raise errors.Conflict("No line of the batch has failed.", code="nothing_to_retry")
        if files.get(self._database, batch.input_file_id, account_id=batch.account_id) is None:
            raise errors.Conflict(
                "The input file of the batch does not exist any more.", code="input_file_gone"
            )

    def _find(self, caller: Caller, batch_id: uuid.UUID) -> records.files.BatchEntry:
        known = batches.get(self._database, batch_id, account_id=caller.scope)
        return problems.existing(known, "batch")


def _after(batch: records.files.BatchEntry, after: str | None) -> int:
    """Return the number of the line after which the requested page begins."""
    number = 0 if after is None else line_results.number_of(batch, after)
    if number is None:
        fault = errors.Fault("after", cursors.INVALID)
        raise problems.refused([fault])
    return number


def _fingerprint(requested: object) -> str:
    """Return the SHA-256 of a request, which identifies a repeated one."""
    what = orjson.dumps(requested, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(what).hexdigest()
