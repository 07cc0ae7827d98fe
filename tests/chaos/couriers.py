"""A delivery process that a test kills: the service's own runtime, with a plain signer and an unguarded transport."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping
from datetime import datetime

import urllib3

from jobs import ids
from jobs.store import deliveries
from tests.chaos import victims
from worker.courier import Reply, Undelivered
from worker.delivery_runtime import DeliveryRuntime


class PlainSigner:
    """Names the message."""

    def headers(self, claim: deliveries.Claim, *, at: datetime) -> dict[str, str]:
        """Return the headers that tell messages and tries apart."""
        return {
            "webhook-id": ids.show("evt", claim.event_id),
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join("v1,test" for _ in claim.secrets),
        }


def plain_post(url: str, *, body: bytes, headers: Mapping[str, str], seconds: float) -> Reply:
    """Send without any guard."""
    try:
        answer = urllib3.request(
            "POST", url, body=body, headers=headers, timeout=seconds, retries=False, redirect=False
        )
    except urllib3.exceptions.ReadTimeoutError as error:
        raise Undelivered("timed_out", address="127.0.0.1") from error
    except urllib3.exceptions.HTTPError as error:
        raise Undelivered("unreachable") from error
    named = {name.lower(): value for name, value in answer.headers.items()}
    return Reply(answer.status, named, answer.data, "127.0.0.1")


def courier(environment: victims.Environment) -> None:
    """Deliver until SIGTERM."""
    settings = victims.begin(environment, "delivery")
    runtime = DeliveryRuntime(settings, signer=lambda _: PlainSigner(), post=plain_post)
    leaving = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: leaving.set())
    runtime.start()
    leaving.wait()
    runtime.stop()
