"""``/v1/operations``: one action on all jobs that a query matches."""

import dataclasses
import hashlib
import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import flask
import orjson
import structlog
from flask import Response

from api import errors as problems
from api import framework
from api.auth import RIGHTS, Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, links, reply, route
from api.schemas import operations as schemas
from api.schemas.paths import OperationId
from api.serving import current
from core import errors, ids
from core.database import Database
from jobs import filters, records
from jobs.lifecycle import OperationAction
from jobs.store import accounts, history, operations

_log = structlog.get_logger(__name__)

_ONE = "/v1/operations/<operation_id>"


_EXAMPLES: Final = {
    "application/json": {
        "count": {
            "summary": "Count the jobs that would run again",
            "value": {
                "action": "rerun",
                "query": "status:failed error:timeout created:<7d",
                "dry_run": True,
            },
        },
    },
}


class OperationRoutes:
    """The routes of operations.

    Args:
        database: stores operations; the delivery process works on them.
        gate: resolves accounts.
    """

    TAG = "operations"

    def __init__(self, *, database: Database, gate: Gate) -> None:
        self._database = database
        self._gate = gate

    @route.post(
        "/v1/operations",
        operation_id="createOperation",
        guard=Right.COMMAND,
        answers={
            200: ResponseSpec(schemas.OperationPreview, "The number of jobs, for a dry run."),
            202: ResponseSpec(
                schemas.Operation, "The operation.", ("Location", "Idempotent-Replayed")
            ),
        },
        faults=(400, 404, 409, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.OperationRequest}, examples=_EXAMPLES),
    )
    def create(self, caller: Caller, header: schemas.OperationHeaders) -> Response:
        """Rerun, cancel, delete or run now the jobs of a query or those in `job_ids`, or erase an account.

        The jobs are those that exist now. The operation continues in the background, job by job, and each job's
        timeline names it. Operators act on all accounts, or on one with `account`; others on their own. With `dry_run`
        the jobs are only counted. An operation on more than 100 jobs needs their number in `confirm`, and so does any
        query without a qualifier, such as a single word.

        `delete` removes all content of finished jobs. `erase_account` is for admins: it revokes the keys of the
        account, cancels its jobs, removes all of their content, its images, and its webhooks, and at last its name.
        """
        requested = framework.read_model(flask.request, schemas.OperationRequest)
        scope = self._scope(caller, requested)
        erases = requested.action == "erase_account"
        job_ids = tuple(dict.fromkeys(requested.job_ids or ()))
        wanted = operations.NewOperation(
            account_id=caller.account_id,
            key_id=caller.key_id,
            action=OperationAction.DELETE if erases else OperationAction(requested.action),
            query=requested.query or "",
            scope_id=scope,
            max_jobs=schemas.UNCONFIRMED if requested.confirm is None else requested.confirm,
            request_id=problems.request_id(),
            idempotency_key=header.idempotency_key,
            fingerprint=_fingerprint(requested, scope),
            job_ids=job_ids,
            erases_account=erases,
        )
        replayed = None if requested.dry_run else operations.replay(self._database, wanted)
        if replayed is not None:
            return _accepted(replayed, replayed=True)
        query = self._parse(requested.query)
        matched = self._named(job_ids, scope) if job_ids else self._count(query, scope)
        if requested.dry_run:
            return reply(
                schemas.OperationPreview(
                    action=requested.action,
                    query=requested.query or "",
                    matched=matched,
                    confirmation_required=_unsafe(query, matched),
                )
            )
        _check(query, matched, requested.confirm)
        operation, new = operations.create(self._database, wanted)
        _log.info(
            "operation_created",
            operation=ids.show("op", operation.id),
            action=requested.action,
            jobs=matched,
        )
        return _accepted(operation, replayed=not new)

    @route.get(
        "/v1/operations",
        operation_id="listOperations",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.OperationList, "A page of operations.")},
        faults=(422,),
    )
    def list_all(self, caller: Caller, query: schemas.OperationsQuery) -> Response:
        """List operations, newest first. Operators see those of all accounts."""
        listed, more = operations.page(
            self._database,
            account_id=caller.scope,
            limit=query.limit,
            after=query.after,
        )
        data = [schemas.Operation.of(operation) for operation in listed]
        return reply(schemas.OperationList.of(data, has_more=more))

    @route.get(
        _ONE,
        operation_id="getOperation",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.Operation, "The operation.")},
        faults=(404,),
    )
    def get(self, caller: Caller, operation_id: OperationId) -> Response:
        """Get an operation and its progress."""
        return reply(schemas.Operation.of(self._find(caller, operation_id)))

    @route.get(
        f"{_ONE}/jobs",
        operation_id="listOperationJobs",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.OperationJobList, "A page of its jobs.")},
        faults=(404, 422),
    )
    def jobs(
        self, caller: Caller, operation_id: OperationId, query: schemas.OperationJobsQuery
    ) -> Response:
        """List the jobs of an operation and their results, oldest first."""
        self._find(caller, operation_id)
        listed, more = operations.jobs(
            self._database,
            operation_id,
            left=query.left,
            limit=query.limit,
            after=query.after,
        )
        data = [schemas.OperationJob.of(job) for job in listed]
        return reply(schemas.OperationJobList.of(data, has_more=more, id_field="job_id"))

    @route.post(
        f"{_ONE}/cancel",
        operation_id="cancelOperation",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.Operation, "The operation.")},
        faults=(404, 409),
    )
    def cancel(self, caller: Caller, operation_id: OperationId) -> Response:
        """Cancel an operation: it changes no further job. What it has done stays.

        Cancelling a cancelled operation changes nothing; one that has ended otherwise is a conflict.
        """
        self._find(caller, operation_id)
        operations.cancel(self._database, operation_id)
        operation = self._find(caller, operation_id)
        if operation.status.value != "cancelled":
            raise errors.Conflict(f"The operation has ended; it has {operation.status}.")
        return reply(schemas.Operation.of(operation))

    def _scope(self, caller: Caller, requested: schemas.OperationRequest) -> uuid.UUID | None:
        """Return the account of the jobs, or the one to erase; None: all accounts."""
        if requested.action != "erase_account" or requested.account is None:
            return self._gate.account(caller, requested.account)
        if Right.ADMINISTER not in RIGHTS[caller.role]:
            raise errors.InsufficientScope("Only admins may erase accounts.", param="action")
        account_id = accounts.account_id(self._database, requested.account)
        if account_id == caller.account_id:
            raise errors.Conflict(
                "This is the account of the key that you use, which would be revoked: use a key of another account."
            )
        return account_id

    def _named(self, job_ids: Sequence[uuid.UUID], scope: uuid.UUID | None) -> int:
        """Return the number of jobs; refuse those that do not exist in ``scope``."""
        known = history.existing(self._database, job_ids, account_id=scope)
        faults = [
            errors.Fault(problems.pointer("job_ids", number), "There is no such job.")
            for number, job_id in enumerate(job_ids)
            if job_id not in known
        ]
        if faults:
            raise problems.refused(faults)
        return len(job_ids)

    def _parse(self, query: str | None) -> filters.Filter | None:
        """Return a query as a filter. None: the operation has none."""
        if query is None:
            return None
        try:
            return filters.parse_for_change(query, now=self._database.clock())
        except errors.InvalidRequest as invalid:
            faults = [dataclasses.replace(fault, pointer="#/query") for fault in invalid.faults]
            raise problems.refused(faults) from None

    def _count(self, query: filters.Filter | None, scope: uuid.UUID | None) -> int:
        """Return the number of jobs that a query matches; None: of all jobs of the account ``scope``."""
        parsed = query or filters.parse("", now=self._database.clock())
        wanted = dataclasses.replace(parsed, account_id=scope)
        with current.waiting():
            matched = history.count(self._database, wanted, limit=operations.MAX_JOBS + 1)
        if matched > operations.MAX_JOBS:
            sentence = (
                f"An operation may have at most {operations.MAX_JOBS:,} jobs; narrow the query."
            )
            raise problems.refused([errors.Fault("#/query", sentence)])
        return matched

    def _find(self, caller: Caller, operation_id: uuid.UUID) -> records.operations.Operation:
        known = operations.get(self._database, operation_id, account_id=caller.scope)
        return problems.existing(known, "operation")


def _unsafe(query: filters.Filter | None, matched: int) -> bool:
    """Whether the caller must confirm the number of jobs."""
    return matched > schemas.UNCONFIRMED or (query is not None and query.only_phrases)


def _check(query: filters.Filter | None, matched: int, confirmed: int | None) -> None:
    """Raise :class:`core.errors.Conflict` if the caller must confirm the jobs, or if more match than confirmed."""
    if confirmed is None and _unsafe(query, matched):
        raise errors.Conflict(
            f"The query matches {matched} jobs; to act on more than {schemas.UNCONFIRMED}, or on those of a query "
            "without a qualifier, set `confirm` to their number.",
            code="confirmation_required",
        )
    if confirmed is not None and matched > confirmed:
        raise errors.Conflict(
            f"The query matches {matched} jobs, more than the {confirmed} in `confirm`.",
            code="confirmation_required",
        )


def _fingerprint(requested: schemas.OperationRequest, scope: uuid.UUID | None) -> str:
    """Return the SHA-256 of what an operation does, which identifies a repeated request."""
    what: list[object] = [requested.action, requested.query, None if scope is None else scope.hex]
    if requested.job_ids is not None:
        what.append(sorted(job_id.hex for job_id in requested.job_ids))
    return hashlib.sha256(orjson.dumps(what)).hexdigest()


def _accepted(operation: records.operations.Operation, *, replayed: bool) -> Response:
    headers = {"Location": links.to(f"/v1/operations/{ids.show('op', operation.id)}")}
    if replayed:
        headers["Idempotent-Replayed"] = "true"
    return reply(schemas.Operation.of(operation), HTTPStatus.ACCEPTED, headers=headers)
