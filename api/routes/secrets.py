"""The secrets and keys that sign webhooks, and the event types: ``/v1/webhook_secret``, ``/v1/webhook_event_types``."""

from collections.abc import Callable, Mapping

import flask
from flask import Response
from pydantic import BaseModel

from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, WebhookSpec, reply, route
from api.schemas import webhooks as schemas
from api.schemas.notifications import (
    BatchNotification,
    EndpointNotification,
    JobNotification,
    ResponseNotification,
)
from core.database import Database
from core.vault import Vault
from webhooks import secrets
from webhooks.policy import EventType

KEY = "/.well-known/longlook-webhook-key"

_SUMMARIES = {
    EventType.JOB_STARTED: "The first attempt of a job has started.",
    EventType.JOB_SUCCEEDED: "A job has succeeded: it has an answer and a trace.",
    EventType.JOB_FAILED: "A job has failed finally.",
    EventType.JOB_CANCELLED: "A job has been cancelled.",
    EventType.ENDPOINT_DISABLED: "Another endpoint of the account has been disabled.",
    EventType.RESPONSE_COMPLETED: "A response is completed.",
    EventType.RESPONSE_FAILED: "A response has failed finally.",
    EventType.RESPONSE_CANCELLED: "A response has been cancelled.",
    EventType.RESPONSE_INCOMPLETE: "A response has used up its tokens and has no answer.",
    EventType.BATCH_COMPLETED: "All lines of a batch have ended.",
    EventType.BATCH_FAILED: "The input file of a batch has faults, and none of its lines runs.",
    EventType.BATCH_EXPIRED: "The completion window of a batch has passed; finished lines are in its files.",
    EventType.BATCH_CANCELLED: "A batch has been cancelled; finished lines are in its files.",
}
_MODELS: Mapping[str, type[BaseModel]] = {
    "job": JobNotification,
    "endpoint": EndpointNotification,
    "response": ResponseNotification,
    "batch": BatchNotification,
}
#: What the service sends, for the OpenAPI document.
NOTIFICATIONS = {
    str(event): WebhookSpec(_MODELS[event.partition(".")[0]], summary)
    for event, summary in _SUMMARIES.items()
}


class SecretRoutes:
    """The routes of secrets, of the public key, and of event types.

    Args:
        database: where secrets are stored.
        vault: makes the vault that seals them, at its first use.
    """

    TAG = "webhooks"

    def __init__(self, *, database: Database, vault: Callable[[], Vault]) -> None:
        self._database = database
        self._vault = vault

    @route.get(
        "/v1/webhook_event_types",
        operation_id="listWebhookEventTypes",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.EventTypes, "All types.")},
    )
    def types(self) -> Response:
        """List the event types that webhook endpoints can subscribe to."""
        return reply(schemas.EventTypes())

    @route.get(
        "/v1/webhook_secret",
        operation_id="getWebhookSecret",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.Secret, "The secret's hint.")},
    )
    def secret(self, caller: Caller) -> Response:
        """Get the hint of the account's default secret, which signs the messages to URLs of single jobs."""
        stored = secrets.default_secret(
            self._database,
            caller.account_id,
            make=lambda: secrets.new_secret(self._vault())[1],
        )
        return reply(schemas.Secret.of(stored))

    @route.post(
        "/v1/webhook_secret/rotate",
        operation_id="rotateWebhookSecret",
        guard=Right.SUBMIT,
        answers={200: ResponseSpec(schemas.Secret, "The new secret.")},
        faults=(400, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.DefaultRotate}),
    )
    def rotate_default(self, caller: Caller) -> Response:
        """Change the account's default secret. This response has the new one, which is never shown again."""
        requested = framework.read_model(flask.request, schemas.DefaultRotate)
        secret, stored = secrets.new_secret(self._vault())
        rotated = secrets.rotate_default(
            self._database,
            caller.account_id,
            secret=stored,
            keep_old=requested.keep_old_secret_active_for_24_hours,
        )
        return reply(schemas.Secret.of(rotated, secret=secret))

    @route.get(
        KEY,
        operation_id="getWebhookKey",
        answers={200: ResponseSpec(schemas.PublicKey, "The public key.")},
        faults=(503,),
    )
    def public_key(self) -> Response:
        """Get the installation's public key for `v1a` signatures."""
        pair = secrets.signing_key(self._database, make=lambda: secrets.new_pair(self._vault()))
        return reply(schemas.PublicKey(public_key=pair.public))
