"""Checks the receivers of webhooks before anything is sent."""

from __future__ import annotations

import uuid

from api import errors as problems
from api.schemas import requests
from core import errors, ids
from core.database import Database
from net.client import GuardedClient
from webhooks import endpoints, policy
from webhooks.policy import Webhook

_REFUSED = (
    "This must be an https URL of a public address on port 443, unless an operator allows it "
    "(LONGLOOK_WEBHOOK_ALLOW)."
)


class WebhookTargets:
    """Checks URLs and endpoints of webhooks.

    Args:
        database: stores endpoints.
        client: the guarded HTTP client, with the rules of webhooks. It resolves names only when it sends.
    """

    def __init__(self, database: Database, *, client: GuardedClient) -> None:
        self._database = database
        self._client = client

    def check(self, url: str, *, pointer: str) -> None:
        """Raise :class:`core.errors.InvalidRequest` if webhooks must not be sent to ``url``."""
        fault = self._fault(url, pointer)
        if fault is not None:
            raise problems.refused([fault])

    def of_job(
        self,
        account_id: uuid.UUID,
        requested: requests.JobWebhook | None,
        faults: list[errors.Fault],
    ) -> Webhook | None:
        """Return the receiver that a job requests; append its faults to ``faults``."""
        if requested is None:
            return None
        events = tuple(dict.fromkeys(requested.events or policy.ENDS))
        if requested.url is not None:
            fault = self._fault(requested.url, "#/options/webhook/url")
            if fault is not None:
                faults.append(fault)
            return Webhook(url=requested.url, events=events)
        endpoint_id = ids.parse("we", requested.endpoint_id or "")
        if endpoint_id is None or not endpoints.exists(
            self._database, endpoint_id, account_id=account_id
        ):
            sentence = "There is no such webhook endpoint."
            faults.append(errors.Fault("#/options/webhook/endpoint_id", sentence, "not_found"))
            return None
        return Webhook(endpoint_id=endpoint_id, events=events)

    def _fault(self, url: str, pointer: str) -> errors.Fault | None:
        return None if self._client.refuses(url) is None else errors.Fault(pointer, _REFUSED)
