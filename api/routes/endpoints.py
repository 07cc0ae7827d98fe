"""``/v1/webhook_endpoints``: who is told, and how it went.

The API sends no webhooks itself: a test writes a delivery, rings, and looks for its end.
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
#: What a test waits for beyond the receiver's own time: the bell, the claim, the write.
_SPARE_SECONDS = 5.0
_LOOK_SECONDS = 0.1
#: Tests that may hold a thread at once.
_TESTS = 8


class EndpointRoutes:
    """What callers may do with webhook endpoints.

    Args:
        settings: how long a receiver may take.
        database: where endpoints are kept.
        receivers: says whether a URL may be sent to.
        vault: makes the vault that seals secrets, at its first use.
        quota: refuses what an account over its storage quota sends.
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
        """Put the routes into ``router``."""
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
            answers={200: ResponseSpec(schemas.EndpointDeleted, "It is gone.")},
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
            answers={200: ResponseSpec(schemas.EndpointTested, "What came of it.")},
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
                202: ResponseSpec(schemas.Recovery, "The recovery as it begins.", ("Location",))
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
            answers={200: ResponseSpec(schemas.Recovery, "How far it is.")},
            faults=(404,),
        )

    def create(self, caller: Caller) -> Response:
        """Register a webhook endpoint.

        It is told of the account's jobs from now on. Its secret is in this answer and never shown again. An
        account may have 500 of them.
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
        found, more = endpoints.page(
            self._database,
            account_id=caller.scope,
            limit=page.limit,
            after=page.after,
            newest_first=page.newest_first,
        )
        return reply(schemas.EndpointList.of(found, has_more=more))

    def show(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Get a webhook endpoint."""
        return reply(schemas.Endpoint.of(self._find(path, caller)))

    def update(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Change a webhook endpoint. What is still to be told goes to its new URL."""
        self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointUpdate)
        if requested.url is not None:
            self._webhook_targets.check(requested.url, pointer="#/url")
        found = endpoints.update(
            self._database,
            _id(path),
            account_id=caller.scope,
            name=requested.name,
            url=requested.url,
            event_types=requested.event_types,
        )
        return reply(schemas.Endpoint.of(_there(found)))

    def remove(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Delete a webhook endpoint and its secrets. What was still to be told to it is not told."""
        if not endpoints.delete(self._database, _id(path), account_id=caller.scope):
            raise _not_found()
        return reply(schemas.EndpointDeleted(id=path.endpoint_id))

    def rotate(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Change the secret of a webhook endpoint. The new one is in this answer and never shown again."""
        self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.SecretRotate)
        secret, stored = secrets.new_secret(self._vault())
        found = endpoints.rotate(
            self._database,
            _id(path),
            account_id=caller.scope,
            secret=stored,
            keep_old=requested.keep_old_secret_active_for_24_hours,
        )
        return reply(schemas.Endpoint.of(_there(found), secret=secret))

    def test(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Send an event that did not happen, and say what the receiver made of it.

        It is sent to a disabled endpoint, too, and says nothing of its health.
        """
        endpoint = self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointTest)
        self._quota.check(endpoint.account_id)
        if not self.tests.take(caller.account_id):
            raise errors.Unavailable("Too many tests at once.", retry_after=1)
        try:
            delivery_id = redelivery.test(
                self._database,
                _id(path),
                account_id=caller.scope,
                event_type=requested.event_type,
                data=_example(requested.event_type),
            )
            with current.waiting():
                tried = self._tried(_there(delivery_id), caller)
        finally:
            self.tests.give_back(caller.account_id)
        return reply(
            schemas.EndpointTested(
                webhook_endpoint_id=path.endpoint_id,
                event_type=requested.event_type,
                status_code=tried.status_code,
                error_code=tried.error_code if caller.everywhere else disclosed_code(tried),
                delivery_id=ids.show("dlv", tried.delivery_id),
            )
        )

    def enable(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Tell a disabled endpoint of events again.

        `recover` sends again what had failed. What happened while it was disabled was not to be told to it: ask
        for the jobs of that time.
        """
        found = endpoints.enable(self._database, _id(path), account_id=caller.scope)
        return reply(schemas.Endpoint.of(_there(found)))

    def recover(self, caller: Caller, path: schemas.EndpointPath) -> Response:
        """Send again, in the background, all that failed since a time."""
        endpoint = self._find(path, caller)
        requested = framework.read_model(flask.request, schemas.EndpointRecover)
        self._quota.check(endpoint.account_id)
        found = endpoints.recover(
            self._database, _id(path), account_id=caller.scope, since=requested.since
        )
        shown = schemas.Recovery.of(_there(found))
        where = f"/v1/webhook_endpoints/{path.endpoint_id}/recoveries/{shown.id}"
        return reply(shown, HTTPStatus.ACCEPTED, headers={"Location": where})

    def recovery(self, caller: Caller, path: schemas.RecoveryPath) -> Response:
        """Get how far a recovery is."""
        recovery_id = ids.parse("rcv", path.recovery_id)
        found = recovery_id and queries.recovery(
            self._database, recovery_id, account_id=caller.scope
        )
        if not found or ids.show("we", found.endpoint_id) != path.endpoint_id:
            raise errors.NotFound("There is no such recovery.")
        return reply(schemas.Recovery.of(found))

    def _find(self, path: schemas.EndpointPath, caller: Caller) -> tables.WebhookEndpoint:
        """Return an endpoint of the caller's. It comes before a look at the body: what is not there has no faults."""
        return _there(endpoints.get(self._database, _id(path), account_id=caller.scope))

    def _tried(self, delivery_id: uuid.UUID, caller: Caller) -> tables.WebhookAttempt:
        """Wait for the end of a delivery's first try."""
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
            # A sender that died is replaced by another try.
            ended = [one for one in view.attempts if one.outcome and one.outcome != "lost"]
            if ended:
                return ended[0]
            pause.wait(_LOOK_SECONDS)
        raise DatabaseUnavailable("No delivery process took the test in time.")


def _id(path: schemas.EndpointPath) -> uuid.UUID:
    found = ids.parse("we", path.endpoint_id)
    if found is None:
        raise _not_found()
    return found


Found = TypeVar("Found")


def _there(found: Found | None) -> Found:
    if found is None:
        raise _not_found()
    return found


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such webhook endpoint.")


def _example(event_type: str) -> dict[str, Any]:
    """Return what a test tells of: a job, or an endpoint, that never was."""
    nothing = uuid.UUID(int=0)
    if event_type == EventType.ENDPOINT_DISABLED:
        return {"id": ids.show("we", nothing), "object": "webhook_endpoint", "reason": "test"}
    status = "running" if event_type == EventType.JOB_STARTED else event_type.partition(".")[2]
    return {"id": ids.show("job", nothing), "object": "job", "status": status, "test": True}
