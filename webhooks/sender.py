"""Makes an attempt: signs it with all live secrets, sends it, and writes the result, also through database outages.

The row of the attempt exists before anything is sent. So a crash at any line leaves a lease that runs out, and then
another attempt with the same ``webhook-id``.
"""

import email.utils
import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog

from core import errors, failpoints, ids
from core.database import Database
from core.database_faults import DatabaseUnavailable, until_available
from net.client import PROXY_FAILED, GuardedClient, GuardedClientError
from webhooks import attempts, claims, policy
from webhooks.policy import AttemptOutcome
from webhooks.signer import SecretSigner

_log = structlog.get_logger(__name__)

#: The wait before another attempt when an operator must fix the vault or the proxy.
_PUT_OFF = timedelta(minutes=1)
#: What an attempt notes about a response whose head was whole and whose body was not.
_BROKEN = {
    "timed_out": "The body of the response did not end in time.",
    "answer_broken": "The body of the response is malformed or ended early.",
}


class Sender:
    """Makes attempts; any number of threads may call :meth:`send`.

    Args:
        database: where attempts are stored.
        signer: signs them.
        egress: sends them.
        seconds: the timeout of an attempt.
        rng: jitter of the schedule.
        give_up: once it is set, a result that the database does not take is dropped: the lease runs out.
        keeps: whether an account may store responses.
    """

    def __init__(
        self,
        database: Database,
        *,
        signer: SecretSigner,
        egress: GuardedClient,
        seconds: float,
        rng: random.Random,
        give_up: threading.Event,
        keeps: Callable[[uuid.UUID], bool] = lambda _account_id: True,
    ) -> None:
        self._database = database
        self._signer = signer
        self._egress = egress
        self._seconds = seconds
        self._rng = rng
        self._give_up = give_up
        self._keeps = keeps

    def send(self, claim: claims.DeliveryClaim) -> None:
        """Make an attempt and write its result."""
        with structlog.contextvars.bound_contextvars(
            delivery_id=ids.show("dlv", claim.delivery_id), attempt=claim.number
        ):
            if claim.barred is not None:
                self._write(
                    claim, attempts.AttemptResult(AttemptOutcome.SKIPPED, error_code=claim.barred)
                )
                return
            try:
                headers = self._signer.headers(claim, at=datetime.now(UTC))
            except (DatabaseUnavailable, errors.SettingsError) as error:
                # This is not the receiver's fault: nothing was sent, and no step of the schedule is used up.
                _log.error("delivery_not_signed", reason=str(error))
                if isinstance(error, errors.SettingsError):
                    self._put_off(claim)
                return
            try:
                result = self._attempt(claim, headers)
            except GuardedClientError as error:
                # The same: the operator's proxy does not work.
                _log.error("delivery_not_sent", reason=error.detail or error.reason)
                self._put_off(claim)
                return
            self._write(claim, result)

    def _put_off(self, claim: claims.DeliveryClaim) -> None:
        try:
            attempts.put_off(self._database, claim, wait=_PUT_OFF)
        except DatabaseUnavailable:
            _log.warning("delivery_not_put_off")  # Its lease runs out.

    def _attempt(
        self, claim: claims.DeliveryClaim, headers: Mapping[str, str]
    ) -> attempts.AttemptResult:
        """Send a message; return the result. Raises :class:`GuardedClientError` if our own proxy does not work."""
        failpoints.hit("deliver", "post")
        began = time.monotonic()
        try:
            reply = self._egress.post(
                claim.url,
                body=claim.payload,
                headers=headers,
                seconds=self._seconds,
                party=claim.account_id,
            )
        except GuardedClientError as error:
            if error.reason == PROXY_FAILED:
                raise
            return attempts.AttemptResult(
                AttemptOutcome.FAILED,
                error_code=error.reason,
                error_detail=error.detail,
                headers=headers,
                seconds=time.monotonic() - began,
                address=error.address,
            )
        finally:
            failpoints.hit("deliver", "posted")
        outcome, code = policy.judge(reply.status)
        stored = reply.body[: policy.RESPONSE_BYTES] if self._keeps(claim.account_id) else None
        return attempts.AttemptResult(
            outcome,
            error_code=code,
            error_detail=reply.broken and _BROKEN[reply.broken],
            headers=headers,
            status_code=reply.status,
            response_body=stored,
            seconds=time.monotonic() - began,
            address=reply.address,
            retry_after=retry_after(reply.headers, now=datetime.now(UTC)),
        )

    def _write(self, claim: claims.DeliveryClaim, result: attempts.AttemptResult) -> None:
        """Write until the database answers. A commit whose reply was lost may have landed: the row shows it."""
        try:
            settled, landed = until_available(
                lambda: self._settle(claim, result),
                failed="delivery_not_settled",
                give_up=self._give_up.wait,
            )
        except DatabaseUnavailable:
            return
        if landed:
            _record(claim, result, settled)
        else:
            _log.warning("delivery_lost")

    def _settle(
        self, claim: claims.DeliveryClaim, result: attempts.AttemptResult
    ) -> tuple[attempts.AttemptSettled | None, bool]:
        settled = attempts.settle(self._database, claim, result, rng=self._rng)
        return settled, settled is not None or attempts.landed(self._database, claim)


def retry_after(headers: Mapping[str, str], *, now: datetime) -> timedelta | None:
    """Return the wait of a ``Retry-After``, seconds or a date (RFC 9110, 10.2.3); None without a valid one."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), policy.LONGEST_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(timedelta(), moment - now)


def _record(
    claim: claims.DeliveryClaim,
    result: attempts.AttemptResult,
    settled: attempts.AttemptSettled | None,
) -> None:
    _log.info(
        "webhook_attempted",
        event_id=ids.show("evt", claim.event_id),
        event_type=claim.event_type,
        kind=str(claim.kind),
        outcome=str(result.outcome),
        status_code=result.status_code,
        error_code=result.error_code,
        seconds=round(result.seconds or 0.0, 3),
    )
    if settled is not None and settled.disabled is not None and claim.endpoint_id is not None:
        _log.warning(
            "endpoint_disabled",
            endpoint_id=ids.show("we", claim.endpoint_id),
            reason=settled.disabled,
        )
