"""``/v1/keys``: create, list and revoke API keys, for admins."""

import uuid
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import flask
import structlog
from flask import Response

from api import errors as problems
from api import framework
from api.auth import Caller, Gate, Right
from api.framework import RequestBodySpec, ResponseSpec, links, reply, route
from api.schemas import keys as schemas
from api.schemas.paths import KeyId
from core import ids
from core.database import Database
from core.peppers import Peppers
from jobs.lifecycle import Priority, Role
from jobs.store import accounts

_log = structlog.get_logger(__name__)

_NOUN = "key"
_ONE = "/v1/keys/<key_id>"


_EXAMPLES: Final = {
    "application/json": {
        "frontend": {
            "summary": "A key of another account that expires",
            "value": {
                "name": "frontend",
                "role": "submit",
                "account": "web",
                "expires_at": "2999-12-31T00:00:00Z",
                "requests_per_minute": 600,
            },
        },
    },
}


class KeyRoutes:
    """The routes of keys.

    Args:
        database: stores keys.
        gate: resolves accounts.
        peppers: the newest hashes new keys.
    """

    TAG = "operations"

    def __init__(self, *, database: Database, gate: Gate, peppers: Peppers) -> None:
        self._database = database
        self._gate = gate
        self._peppers = peppers

    @route.post(
        "/v1/keys",
        operation_id="createKey",
        guard=Right.ADMINISTER,
        answers={201: ResponseSpec(schemas.Key, "The key, with the key itself.", ("Location",))},
        faults=(400, 404, 413, 415, 422),
        body=RequestBodySpec({"application/json": schemas.KeyCreate}, examples=_EXAMPLES),
    )
    def create(self, caller: Caller) -> Response:
        """Create a key, for an account that exists or for a new one.

        This response has the key itself, which is never shown again.
        """
        requested = framework.read_model(flask.request, schemas.KeyCreate)
        key = accounts.new_key()
        priority = requested.max_priority
        key_id = accounts.create_key(
            self._database,
            key,
            pepper=self._peppers.current()[0],
            account=requested.account or ids.show("acct", caller.account_id),
            role=Role(requested.role),
            name=requested.name,
            requests_per_minute=requested.requests_per_minute,
            max_body_mb=requested.max_body_mb,
            max_priority=None if priority is None else Priority(priority),
            expires_at=requested.expires_at,
            actor=caller.actor,
        )
        shown = ids.show("key", key_id)
        _log.info("key_created", key_id=shown, role=requested.role, actor=caller.actor)
        where = links.to(f"/v1/keys/{shown}")
        made = self._shown([self._find(key_id)], key=key)[0]
        return reply(made, HTTPStatus.CREATED, headers={"Location": where})

    @route.get(
        "/v1/keys",
        operation_id="listKeys",
        guard=Right.ADMINISTER,
        answers={200: ResponseSpec(schemas.KeyList, "A page of keys.")},
        faults=(404, 422),
    )
    def list_all(self, caller: Caller, query: schemas.KeysQuery) -> Response:
        """List the keys of all accounts, or of one, newest first. Revoked and expired keys are among them."""
        listed, more = accounts.key_page(
            self._database,
            account_id=self._gate.account(caller, query.account),
            limit=query.limit,
            after=query.after,
        )
        return reply(schemas.KeyList.of(self._shown(listed), has_more=more))

    @route.get(
        _ONE,
        operation_id="getKey",
        guard=Right.ADMINISTER,
        answers={200: ResponseSpec(schemas.Key, "The key.")},
        faults=(404,),
    )
    def get(self, key_id: KeyId) -> Response:
        """Get a key, without the key itself."""
        return reply(self._shown([self._find(key_id)])[0])

    @route.delete(
        _ONE,
        operation_id="revokeKey",
        guard=Right.ADMINISTER,
        answers={200: ResponseSpec(schemas.Key, "The key, which is revoked.")},
        faults=(404, 409),
    )
    def revoke(self, caller: Caller, key_id: KeyId) -> Response:
        """Revoke a key at once: its requests are refused, and its streams and waits end within seconds.

        The key stays on the list. Revoking a revoked key changes nothing. The last active key of an admin cannot be
        revoked here.
        """
        self._find(key_id)
        if accounts.revoke_key(self._database, key_id, actor=caller.actor, keep_an_admin=True):
            _log.info("key_revoked", key_id=ids.show("key", key_id), actor=caller.actor)
        return reply(self._shown([self._find(key_id)])[0])

    def _find(self, key_id: uuid.UUID) -> accounts.KeyRow:
        return problems.existing(accounts.find_key(self._database, key_id), _NOUN)

    def _shown(
        self, rows: Sequence[accounts.KeyRow], *, key: str | None = None
    ) -> list[schemas.Key]:
        actors = [actor for row in rows for actor in (row.created_by, row.revoked_by)]
        names = accounts.key_names(self._database, actors)
        return [schemas.Key.of(row, names=names, key=key) for row in rows]
