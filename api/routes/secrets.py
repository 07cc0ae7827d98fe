"""The secrets and keys that sign webhooks, and the event types: ``/v1/webhook_secret``, ``/v1/webhook_event_types``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from http import HTTPMethod

import flask
from flask import Response

from api import framework
from api.auth import Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, Router, reply
from api.schemas import webhooks as schemas
from api.schemas.notifications import EndpointEvent, JobEvent
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
}


class SecretRoutes:
    """The routes of secrets, of the public key, and of event types.

    Args:
        database: where secrets are stored.
        vault: makes the vault that seals them, at its first use.
    """

    def __init__(self, *, database: Database, vault: Callable[[], Vault]) -> None:
        self._database = database
        self._vault = vault

    def declare(self, router: Router, gate: Gate) -> None:
        """Register the routes with ``router``, and the messages that receivers get."""
        declare = functools.partial(router.declare, tag="webhooks")
        declare(
            HTTPMethod.GET,
            "/v1/webhook_event_types",
            self.types,
            name="listWebhookEventTypes",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(schemas.EventTypes, "All types.")},
        )
        declare(
            HTTPMethod.GET,
            "/v1/webhook_secret",
            self.secret,
            name="getWebhookSecret",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(schemas.Secret, "The secret's hint.")},
        )
        declare(
            HTTPMethod.POST,
            "/v1/webhook_secret/rotate",
            self.rotate_default,
            name="rotateWebhookSecret",
            guard=gate.admits(Right.SUBMIT),
            answers={200: ResponseSpec(schemas.Secret, "The new secret.")},
            faults=(400, 413, 415, 422),
            body=RequestBodySpec({"application/json": schemas.DefaultRotate}),
        )
        declare(
            HTTPMethod.GET,
            KEY,
            self.public_key,
            name="getWebhookKey",
            answers={200: ResponseSpec(schemas.PublicKey, "The public key.")},
            faults=(503,),
        )
        for event, summary in _SUMMARIES.items():
            model = EndpointEvent if event is EventType.ENDPOINT_DISABLED else JobEvent
            router.announce(str(event), model, summary=summary)

    def types(self, caller: Caller) -> Response:
        """List the types of events that webhook endpoints can get."""
        del caller
        return reply(schemas.EventTypes())

    def secret(self, caller: Caller) -> Response:
        """Get the hint of the account's default secret, which signs the messages to URLs of single jobs."""
        stored = secrets.default_secret(
            self._database,
            caller.account_id,
            make=lambda: secrets.new_secret(self._vault())[1],
        )
        return reply(schemas.Secret.of(stored))

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

    def public_key(self) -> Response:
        """Get the installation's public key for `v1a` signatures."""
        pair = secrets.signing_key(self._database, make=lambda: secrets.new_pair(self._vault()))
        return reply(schemas.PublicKey(public_key=pair.public))
