"""Where webhooks may go: what can be said of it before anything is sent."""

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
    "Webhooks go to public https addresses on port 443, unless an operator allows others "
    "(LONGLOOK_WEBHOOK_ALLOW)."
)


class WebhookTargets:
    """Checks where somebody wants to be told.

    Args:
        database: where endpoints are kept.
        egress: the guarded transport, with the rules of webhooks. Names are looked up only when something is sent.
    """

    def __init__(self, database: Database, *, egress: GuardedClient) -> None:
        self._database = database
        self._egress = egress

    def check(self, url: str, *, pointer: str) -> None:
        """Return when ``url`` may be sent to. Raises :class:`core.errors.InvalidRequest`."""
        fault = self._fault(url, pointer)
        if fault is not None:
            raise problems.refused([fault])

    def of_job(
        self,
        account_id: uuid.UUID,
        requested: requests.JobWebhook | None,
        faults: list[errors.Fault],
    ) -> Webhook | None:
        """Return what a job asks to be told; what is wrong with it is added to ``faults``."""
        if requested is None:
            return None
        events = tuple(dict.fromkeys(requested.events or policy.ENDS))
        if requested.url is not None:
            fault = self._fault(requested.url, "#/options/webhook/url")
            if fault is not None:
                faults.append(fault)
            return Webhook(url=requested.url, events=events)
        endpoint_id = ids.parse("we", requested.endpoint_id or "")
        if (
            endpoint_id is None
            or endpoints.get(self._database, endpoint_id, account_id=account_id) is None
        ):
            sentence = "There is no such webhook endpoint."
            faults.append(errors.Fault("#/options/webhook/endpoint_id", sentence, "not_found"))
            return None
        return Webhook(endpoint_id=endpoint_id, events=events)

    def _fault(self, url: str, pointer: str) -> errors.Fault | None:
        return None if self._egress.refuses(url) is None else errors.Fault(pointer, _REFUSED)
