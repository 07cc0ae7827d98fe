"""What webhooks are signed with, and what they can be about: ``/v1/webhook_secret``, ``/v1/webhook_event_types``."""

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
    EventType.JOB_STARTED: "A job runs, for the first time.",
    EventType.JOB_SUCCEEDED: "A job has its answer and its trace.",
    EventType.JOB_FAILED: "A job failed for good.",
    EventType.JOB_CANCELLED: "A job was cancelled.",
    EventType.ENDPOINT_DISABLED: "Another endpoint of the account was disabled.",
}


class SecretRoutes:
    """What callers may do with what is signed by.

    Args:
        database: where secrets are kept.
        vault: makes the vault that seals them, at its first use.
    """

    def __init__(self, *, database: Database, vault: Callable[[], Vault]) -> None:
        self._database = database
        self._vault = vault

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``, and the messages that they are about."""
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
        """List what webhook endpoints can be told of."""
        del caller
        return reply(schemas.EventTypes())

    def secret(self, caller: Caller) -> Response:
        """Get the hint of the account's default secret, which signs what goes to the URLs of single jobs."""
        stored = secrets.default_secret(
            self._database,
            caller.account_id,
            make=lambda: secrets.new_secret(self._vault())[1],
        )
        return reply(schemas.Secret.of(stored))

    def rotate_default(self, caller: Caller) -> Response:
        """Change the account's default secret. The new one is in this answer and never shown again."""
        requested = framework.read_model(flask.request, schemas.DefaultRotate)
        secret, stored = secrets.new_secret(self._vault())
        found = secrets.rotate_default(
            self._database,
            caller.account_id,
            secret=stored,
            keep_old=requested.keep_old_secret_active_for_24_hours,
        )
        return reply(schemas.Secret.of(found, secret=secret))

    def public_key(self) -> Response:
        """Get the installation's public key for `v1a` signatures."""
        found = secrets.signing_key(self._database, make=lambda: secrets.new_pair(self._vault()))
        return reply(schemas.PublicKey(public_key=found.public))
