"""``/v1/webhook_endpoints``: the registered receivers.

The API sends no webhooks: a test writes a delivery, wakes the delivery process, and polls for the result.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import flask
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, links, reply, route
from api.revocation import Revocation
from api.schemas import webhooks as schemas
from api.schemas.deliveries import disclosed_code
from api.schemas.paths import EndpointId, RecoveryId
from api.serving import current
from api.submission import WebhookTargets
from core import errors, ids
from core.database import Database
from core.settings import Settings
from core.shares import Shares
from core.vault import Vault
from jobs.store.storage import Quota
from webhooks import endpoints, queries, redelivery, secrets, tables
from webhooks.policy import EventType

_NOUN = "webhook endpoint"
_ONE = "/v1/webhook_endpoints/<endpoint_id>"
#: How much longer a test waits than the receiver may take: for the wakeup, the claim and the write.
_SPARE_SECONDS = 5.0
_POLL_SECONDS = 0.1
#: Tests that can hold a thread at once.
_TESTS = 8


_EXAMPLES: Final = {
    "application/json": {
        "ends": {
            "summary": "The ends of all jobs",
            "value": {
                "name": "results",
                "url": "https://example.com/hooks/longlook",
                "event_types": ["job.succeeded", "job.failed", "job.cancelled"],
            },
        },
    },
}


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

    TAG = "webhooks"
    ERRORS = problems.OPENAI

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

    @route.post(
        "/v1/webhook_endpoints",
        operation_id="createWebhookEndpoint",
        guard=Right.SUBMIT,
        answers={
            201: ResponseSpec(schemas.Endpoint, "The endpoint with its secret.", ("Location",))
        },
        faults=(400, 409, 413, 415),
        body=RequestBodySpec({"application/json": schemas.EndpointCreate}, examples=_EXAMPLES),
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
        where = links.to(f"/v1/webhook_endpoints/{ids.show('we', endpoint.id)}")
        shown = schemas.Endpoint.of(endpoint, secret=secret)
        return reply(shown, HTTPStatus.CREATED, headers={"Location": where})

    @route.get(
        "/v1/webhook_endpoints",
        operation_id="listWebhookEndpoints",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.EndpointList, "A page of endpoints.")},
        faults=(400,),
    )
    def list_all(self, caller: Caller, query: schemas.EndpointsQuery) -> Response:
        """List webhook endpoints, newest first. Operators see those of all accounts."""
        listed, more = endpoints.page(
            self._database,
            account_id=caller.scope,
            limit=query.limit,
            after=query.after,
            newest_first=query.order == "desc",
        )
        data = [schemas.Endpoint.of(endpoint) for endpoint in listed]
        return reply(schemas.EndpointList.of(data, has_more=more))

    @route.get(
        _ONE,
        operation_id="getWebhookEndpoint",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
        faults=(404,),
    )
    def get(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Get a webhook endpoint."""
        return reply(schemas.Endpoint.of(self._find(endpoint_id, caller)))

    @route.post(
        _ONE,
        operation_id="updateWebhookEndpoint",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
        faults=(400, 404, 413, 415),
        body=RequestBodySpec({"application/json": schemas.EndpointUpdate}),
    )
    def update(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Change a webhook endpoint. Pending deliveries go to its new URL."""
        self._check(endpoint_id, caller)
        requested = framework.read_model(flask.request, schemas.EndpointUpdate)
        if requested.url is not None:
            self._webhook_targets.check(requested.url, pointer="#/url")
        endpoint = endpoints.update(
            self._database,
            endpoint_id,
            account_id=caller.scope,
            name=requested.name,
            url=requested.url,
            event_types=requested.event_types,
        )
        return reply(schemas.Endpoint.of(problems.existing(endpoint, _NOUN)))

    @route.delete(
        _ONE,
        operation_id="deleteWebhookEndpoint",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.EndpointDeleted, "The endpoint is deleted.")},
        faults=(404,),
    )
    def delete(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Delete a webhook endpoint and its secrets. Its pending deliveries are not sent."""
        if not endpoints.delete(self._database, endpoint_id, account_id=caller.scope):
            raise problems.not_found(_NOUN)
        return reply(schemas.EndpointDeleted(id=ids.show("we", endpoint_id)))

    @route.post(
        f"{_ONE}/rotate_secret",
        operation_id="rotateWebhookEndpointSecret",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.Endpoint, "The endpoint with its new secret.")},
        faults=(400, 404, 413, 415),
        body=RequestBodySpec({"application/json": schemas.SecretRotate}),
    )
    def rotate(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Change the secret of a webhook endpoint. This response has the new one, which is never shown again."""
        self._check(endpoint_id, caller)
        requested = framework.read_model(flask.request, schemas.SecretRotate)
        secret, stored = secrets.new_secret(self._vault())
        endpoint = endpoints.rotate(
            self._database,
            endpoint_id,
            account_id=caller.scope,
            secret=stored,
            keep_old=requested.keep_old_secret_active_for_24_hours,
        )
        return reply(schemas.Endpoint.of(problems.existing(endpoint, _NOUN), secret=secret))

    @route.post(
        f"{_ONE}/test",
        operation_id="testWebhookEndpoint",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.EndpointTested, "What came of it.")},
        faults=(400, 404, 413, 415),
        body=RequestBodySpec({"application/json": schemas.EndpointTest}),
    )
    def test(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Send an event that did not happen, and say what the receiver made of it.

        It is sent to a disabled endpoint, too, and does not affect the health of the endpoint.
        """
        endpoint = self._find(endpoint_id, caller)
        requested = framework.read_model(flask.request, schemas.EndpointTest)
        self._quota.check(endpoint.account_id)
        if not self.tests.take(caller.account_id):
            raise errors.Unavailable(
                "Too many tests of endpoints are running; retry in a second.", retry_after=1
            )
        try:
            delivery_id = redelivery.test(
                self._database,
                endpoint_id,
                account_id=caller.scope,
                event_type=requested.event_type,
                data=_example(requested.event_type),
            )
            with current.waiting():
                attempt = self._ended_attempt(problems.existing(delivery_id, _NOUN), caller)
        finally:
            self.tests.give_back(caller.account_id)
        return reply(
            schemas.EndpointTested(
                webhook_endpoint_id=ids.show("we", endpoint_id),
                event_type=requested.event_type,
                status_code=attempt.status_code,
                error_code=attempt.error_code if caller.everywhere else disclosed_code(attempt),
                delivery_id=ids.show("dlv", attempt.delivery_id),
            )
        )

    @route.post(
        f"{_ONE}/enable",
        operation_id="enableWebhookEndpoint",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.Endpoint, "The endpoint.")},
        faults=(404,),
    )
    def enable(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Send notifications to a disabled endpoint again.

        `recover` sends failed deliveries again. Events that occurred while the endpoint was disabled have no
        notifications: list the jobs of that time.
        """
        endpoint = endpoints.enable(self._database, endpoint_id, account_id=caller.scope)
        return reply(schemas.Endpoint.of(problems.existing(endpoint, _NOUN)))

    @route.post(
        f"{_ONE}/recover",
        operation_id="recoverWebhookEndpoint",
        guard=Right.COMMAND,
        answers={202: ResponseSpec(schemas.Recovery, "The recovery, at its start.", ("Location",))},
        faults=(400, 404, 409, 413, 415),
        body=RequestBodySpec({"application/json": schemas.EndpointRecover}),
    )
    def recover(self, caller: Caller, endpoint_id: EndpointId) -> Response:
        """Send all deliveries that failed since a time again, in the background."""
        endpoint = self._find(endpoint_id, caller)
        requested = framework.read_model(flask.request, schemas.EndpointRecover)
        self._quota.check(endpoint.account_id)
        recovery = endpoints.recover(
            self._database, endpoint_id, account_id=caller.scope, since=requested.since
        )
        shown = schemas.Recovery.of(problems.existing(recovery, _NOUN))
        shown_id = ids.show("we", endpoint_id)
        where = links.to(f"/v1/webhook_endpoints/{shown_id}/recoveries/{shown.id}")
        return reply(shown, HTTPStatus.ACCEPTED, headers={"Location": where})

    @route.get(
        f"{_ONE}/recoveries/<recovery_id>",
        operation_id="getWebhookRecovery",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.Recovery, "The recovery and its progress.")},
        faults=(404,),
    )
    def recovery(
        self, caller: Caller, endpoint_id: EndpointId, recovery_id: RecoveryId
    ) -> Response:
        """Get a recovery and its progress."""
        recovery = queries.recovery(self._database, recovery_id, account_id=caller.scope)
        if recovery is None or recovery.endpoint_id != endpoint_id:
            raise problems.not_found("recovery")
        return reply(schemas.Recovery.of(recovery))

    def _check(self, endpoint_id: uuid.UUID, caller: Caller) -> None:
        """Raise not found before the body is read: what is not there has no faults."""
        if not endpoints.exists(self._database, endpoint_id, account_id=caller.scope):
            raise problems.not_found(_NOUN)

    def _find(self, endpoint_id: uuid.UUID, caller: Caller) -> tables.WebhookEndpoint:
        """Return an endpoint of the caller's. It comes before a look at the body: what is not there has no faults."""
        return problems.existing(
            endpoints.get(self._database, endpoint_id, account_id=caller.scope), _NOUN
        )

    def _ended_attempt(self, delivery_id: uuid.UUID, caller: Caller) -> tables.WebhookAttempt:
        """Wait for the end of the first attempt of a delivery."""
        pause = threading.Event()
        until = self._timer() + self._seconds
        with contextlib.closing(self._revocation.watch(caller.key_id, pause.set)) as watch:
            while self._timer() < until:
                watch.check()
                view = queries.get(self._database, delivery_id, account_id=None)
                view = problems.existing(view, _NOUN)
                # A sender that died is replaced by another try.
                ended = [one for one in view.attempts if one.outcome and one.outcome != "lost"]
                if ended:
                    return ended[0]
                pause.wait(_POLL_SECONDS)
        raise errors.Unavailable(f"No delivery process sent the test within {self._seconds:g} s.")


def _example(event_type: str) -> dict[str, Any]:
    """Return the data of a test: an object that does not exist."""
    nothing = uuid.UUID(int=0)
    if event_type.startswith("response."):
        return {"id": ids.show("resp", nothing)}
    if event_type.startswith("batch."):
        return {"id": ids.show("batch", nothing)}
    if event_type == EventType.ENDPOINT_DISABLED:
        return {"id": ids.show("we", nothing), "object": "webhook_endpoint", "reason": "test"}
    status = "running" if event_type == EventType.JOB_STARTED else event_type.partition(".")[2]
    job = {"id": ids.show("job", nothing), "object": "job", "status": status}
    return job | {"omitted": [], "test": True}
