"""``/v1/webhook_endpoints``: the registered receivers.

The API sends no webhooks: a test writes a delivery, wakes the delivery process, and polls for the result.
"""

from __future__ import annotations

import functools
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPMethod, HTTPStatus
from typing import Any, TypeVar

import flask
from flask import Response

from api import cursors, framework
from api.auth import Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, Router, reply
from api.revocation import Revocation, RevocationWatch
from api.schemas import webhooks as schemas
from api.schemas.deliveries import disclosed_code
from api.serving import current
from api.submission import WebhookTargets
from core import errors, ids
from core.database import Database, DatabaseUnavailable
from core.settings import Settings
from core.shares import Shares
from core.vault import Vault
from jobs.store.storage import Quota
from webhooks import endpoints, queries, redelivery, secrets, tables
from webhooks.policy import EventType

_ONE = "/v1/webhook_endpoints/<endpoint_id>"
#: How much longer a test waits than the receiver may take: for the wakeup, the claim and the write.
_SPARE_SECONDS = 5.0
_POLL_SECONDS = 0.1
#: Tests that can hold a thread at once.
_TESTS = 8


class EndpointRoutes:
    """The routes of webhook endpoints.

    Args:
        settings: how long a receiver may take.
        database: where endpoints are stored.
        receivers: decides whether a URL is allowed.
        vault: makes the vault that seals secrets, at its first use.
        quota: refuses the requests of an account over its storage quota.
        revocation: ends the tests of a key that is revoked.
        timer: seconds that never go back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        receivers: WebhookTargets,
        vault: Callable[[], Vault],
        quota: Quota,
        revocation: Revocation,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seconds = settings.webhook_seconds + _SPARE_SECONDS
        self._database = database
        self._webhook_targets = receivers
        self._vault = vault
        self._quota = quota
        self._revocation = revocation
        self._timer = timer
        self.tests = Shares(_TESTS, name="endpoint tests")

    def declare(self, router: Router, gate: Gate) -> None:
        """Register the routes with ``router``."""
        self._declare_endpoints(router, gate)
        self._declare_commands(router, gate)

    def _declare_endpoints(self, router: Router, gate: Gate) -> None:
        look, command = gate.admits(Right.READ), gate.admits(Right.STEER)
        declare = functools.partial(router.declare, tag="webhooks")
        declare(
            HTTPMethod.POST,
            "/v1/webhook_endpoints",
            self.create,
            name="createWebhookEndpoint",
            guard=gate.admits(Right.SUBMIT),
            answers={
                201: ResponseSpec(schemas.Endpoint, "The endpoint with its secret.", ("Location",))
            },
            faults=(400, 409, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.EndpointCreate}),
        )
        declare(
            HTTPMethod.GET,
            "/v1/webhook_endpoints",
            self.listed,
            name="listWebhookEndpoints",
            guard=look,
            answers={200: ResponseSpec(schemas.EndpointList, "A page of endpoints.")},
            faults=(422,),
        )
        declare(
            HTTPMethod.GET,
            _ONE,
            self.show,
            name="getWebhookEndpoint",
            guard=look,
            answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
            faults=(404,),
        )
        declare(
            HTTPMethod.POST,
            _ONE,
            self.update,
            name="updateWebhookEndpoint",
            guard=command,
            answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
            faults=(400, 404, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.EndpointUpdate}),
        )
        declare(
            HTTPMethod.DELETE,
            _ONE,
            self.remove,
            name="deleteWebhookEndpoint",
            guard=command,
            answers={200: ResponseSpec(schemas.EndpointDeleted, "The endpoint is deleted.")},
            faults=(404,),
        )

    def _declare_commands(self, router: Router, gate: Gate) -> None:
        look, command = gate.admits(Right.READ), gate.admits(Right.STEER)
        declare = functools.partial(router.declare, tag="webhooks")
        declare(
            HTTPMethod.POST,
            f"{_ONE}/rotate_secret",
            self.rotate,
            name="rotateWebhookEndpointSecret",
            guard=command,
            answers={200: ResponseSpec(schemas.Endpoint, "The endpoint with its new secret.")},
            faults=(400, 404, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.SecretRotate}),
        )
        declare(
            HTTPMethod.POST,
            f"{_ONE}/test",
            self.test,
            name="testWebhookEndpoint",
            guard=command,
            answers={200: ResponseSpec(schemas.EndpointTested, "The result of the test.")},
            faults=(400, 404, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.EndpointTest}),
        )
        declare(
            HTTPMethod.POST,
            f"{_ONE}/enable",
            self.enable,
            name="enableWebhookEndpoint",
            guard=command,
            answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
            faults=(404,),
        )
        declare(
            HTTPMethod.POST,
            f"{_ONE}/recover",
            self.recover,
            name="recoverWebhookEndpoint",
            guard=command,
            answers={
                202: ResponseSpec(schemas.Recovery, "The recovery, at its start.", ("Location",))
            },
            faults=(400, 404, 409, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.EndpointRecover}),
        )
        declare(
            HTTPMethod.GET,
            f"{_ONE}/recoveries/<recovery_id>",
            self.recovery,
            name="getWebhookRecovery",
            guard=look,
            answers={200: ResponseSpec(schemas.Recovery, "The recovery.")},
            faults=(404,),
        )

    def create(self, caller: Caller) -> Response:
        """Register a webhook endpoint.

        It gets notifications of the account's jobs from now on. This response has its secret, which is never shown
        again. An account can have 500 endpoints.
        """
        requested = framework.read_model(flask.request, schemas.EndpointCreate)
        self._webhook_targets.check(requested.url, pointer="#/url")
        secret, stored = secrets.new_secret(self._vault())
        endpoint = endpoints.create(
            self._database,
            account_id=caller.account_id,
            name=requested.name,
            url=requested.url,
            event_types=requested.event_types,
            secret=stored,
        )
        where = f"/v1/webhook_endpoints/{ids.show('we', endpoint.id)}"
        shown = schemas.Endpoint.of(endpoint, secret=secret)
        return reply(shown, HTTPStatus.CREATED, headers={"Location": where})

    def listed(self, caller: Caller, query: schemas.EndpointsQuery) -> Response:
        """List webhook endpoints, newest first. Operators see those of all accounts."""
        page = cursors.page("we", query.after, limit=query.limit, order=query.order)
        listed, more = endpoints.page(
            self._database,
            account_id=caller.scope,
            limit=page.limit,
            after=page.after,
            newest_first=page.newest_first,
        )
        return reply(schemas.EndpointList.of(listed, has_more=more))

    def show(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Get a webhook endpoint."""
        return reply(schemas.Endpoint.of(self._find(path, caller)))

    def update(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Change a webhook endpoint. Pending deliveries go to its new URL."""
        self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointUpdate)
        if requested.url is not None:
            self._webhook_targets.check(requested.url, pointer="#/url")
        endpoint = endpoints.update(
            self._database,
            _id(path),
            account_id=caller.scope,
            name=requested.name,
            url=requested.url,
            event_types=requested.event_types,
        )
        return reply(schemas.Endpoint.of(_existing(endpoint)))

    def remove(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Delete a webhook endpoint and its secrets. Its pending deliveries are not sent."""
        if not endpoints.delete(self._database, _id(path), account_id=caller.scope):
            raise _not_found()
        return reply(schemas.EndpointDeleted(id=path.endpoint_id))

    def rotate(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Change the secret of a webhook endpoint. This response has the new one, which is never shown again."""
        self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.SecretRotate)
        secret, stored = secrets.new_secret(self._vault())
        endpoint = endpoints.rotate(
            self._database,
            _id(path),
            account_id=caller.scope,
            secret=stored,
            keep_old=requested.keep_old_secret_active_for_24_hours,
        )
        return reply(schemas.Endpoint.of(_existing(endpoint), secret=secret))

    def test(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Send a test event, and return how the receiver responded.

        It is sent to a disabled endpoint, too, and does not affect the health of the endpoint.
        """
        endpoint = self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointTest)
        self._quota.check(endpoint.account_id)
        if not self.tests.take(caller.account_id):
            raise errors.Unavailable(
                f"There must be at most {_TESTS} tests of endpoints at once.", retry_after=1
            )
        try:
            delivery_id = redelivery.test(
                self._database,
                _id(path),
                account_id=caller.scope,
                event_type=requested.event_type,
                data=_example(requested.event_type),
            )
            with current.waiting():
                attempt = self._ended_attempt(_existing(delivery_id), caller)
        finally:
            self.tests.give_back(caller.account_id)
        return reply(
            schemas.EndpointTested(
                webhook_endpoint_id=path.endpoint_id,
                event_type=requested.event_type,
                status_code=attempt.status_code,
                error_code=attempt.error_code if caller.everywhere else disclosed_code(attempt),
                delivery_id=ids.show("dlv", attempt.delivery_id),
            )
        )

    def enable(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Enable a disabled endpoint.

        `recover` sends again what had failed. There are no notifications of what happened while it was disabled:
        list the jobs of that time.
        """
        endpoint = endpoints.enable(self._database, _id(path), account_id=caller.scope)
        return reply(schemas.Endpoint.of(_existing(endpoint)))

    def recover(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Send again, in the background, all that failed since a time."""
        endpoint = self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointRecover)
        self._quota.check(endpoint.account_id)
        recovery = endpoints.recover(
            self._database, _id(path), account_id=caller.scope, since=requested.since
        )
        shown = schemas.Recovery.of(_existing(recovery))
        where = f"/v1/webhook_endpoints/{path.endpoint_id}/recoveries/{shown.id}"
        return reply(shown, HTTPStatus.ACCEPTED, headers={"Location": where})

    def recovery(self, caller: Caller, path: schemas.RecoveryPath) -> Response:
        """Get a recovery and its progress."""
        recovery_id = ids.parse("rcv", path.recovery_id)
        recovery = recovery_id and queries.recovery(
            self._database, recovery_id, account_id=caller.scope
        )
        if not recovery or ids.show("we", recovery.endpoint_id) != path.endpoint_id:
            raise errors.NotFound("There is no such recovery.")
        return reply(schemas.Recovery.of(recovery))

    def _find(self, path: schemas.EndpointPath, caller: Caller) -> tables.WebhookEndpoint:
        """Return an endpoint of the caller. This precedes the checks of the body: 404 precedes 422."""
        return _existing(endpoints.get(self._database, _id(path), account_id=caller.scope))

    def _ended_attempt(self, delivery_id: uuid.UUID, caller: Caller) -> tables.WebhookAttempt:
        """Wait for the end of the first attempt of a delivery."""
        pause = threading.Event()
        with self._revocation.watch(caller.key_id, pause.set) as watch:
            return self._first_end(delivery_id, pause=pause, watch=watch)

    def _first_end(
        self, delivery_id: uuid.UUID, *, pause: threading.Event, watch: RevocationWatch
    ) -> tables.WebhookAttempt:
        until = self._timer() + self._seconds
        while self._timer() < until:
            watch.check()
            view = queries.get(self._database, delivery_id, account_id=None)
            if view is None:
                raise _not_found()
            # A lost attempt is replaced by another one.
            ended = [
                attempt
                for attempt in view.attempts
                if attempt.outcome and attempt.outcome != "lost"
            ]
            if ended:
                return ended[0]
            pause.wait(_POLL_SECONDS)
        raise DatabaseUnavailable(f"No delivery process sent the test within {self._seconds:g} s.")


def _id(path: schemas.EndpointPath) -> uuid.UUID:
    endpoint_id = ids.parse("we", path.endpoint_id)
    if endpoint_id is None:
        raise _not_found()
    return endpoint_id


T = TypeVar("T")


def _existing(result: T | None) -> T:
    """Return the result of a function that returns None if there is no such endpoint."""
    if result is None:
        raise _not_found()
    return result


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such webhook endpoint.")


def _example(event_type: str) -> dict[str, Any]:
    """Return the data of a test: a job or an endpoint that does not exist."""
    nothing = uuid.UUID(int=0)
    if event_type == EventType.ENDPOINT_DISABLED:
        return {"id": ids.show("we", nothing), "object": "webhook_endpoint", "reason": "test"}
    status = "running" if event_type == EventType.JOB_STARTED else event_type.partition(".")[2]
    return {"id": ids.show("job", nothing), "object": "job", "status": status, "test": True}
