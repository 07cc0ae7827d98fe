"""A slot's work: take a permit, claim the best job, ask the engine, keep what came of it, until none is left."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import structlog

from jobs import answers, errors, ids, lifecycle, logs
from jobs.database import Database, Unavailable
from jobs.lifecycle import Outcome
from jobs.profiles import ModelProfile
from jobs.store import claims
from worker import engine, leases, prompt, sample
from worker.engines.pool import Engines, Permit
from worker.leases import Reason
from worker.recorder import Recorder

_log = structlog.get_logger(__name__)

_SETTLE_PAUSE_SECONDS = 1.0

_DEADLINE = claims.Fault(
    code=errors.DeadlineExceeded.code, message="The deadline passed while the job ran."
)
_IMAGE_REMOVED = claims.Fault(
    code="image_removed", message="An image of the job was removed before it ran."
)
_INTERNAL = claims.Fault(
    code="server_error", message="The worker failed; the log has the rest.", retryable=True
)


class Runner:
    """Runs jobs on the threads that the bells wake.

    Args:
        database: where jobs are kept.
        engines: whom to ask, by permit.
        holdings: keeps what is claimed alive.
        recorder: keeps the partial traces.
        profile: the served model's limits.
        owner: this process's name in leases.
        lease: the length of a lease.
        rng: jitter.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: Engines,
        holdings: leases.Leases,
        recorder: Recorder,
        profile: ModelProfile,
        owner: str,
        lease: timedelta,
        rng: random.Random,
    ) -> None:
        self._database = database
        self._engines = engines
        self._holdings = holdings
        self._recorder = recorder
        self._profile = profile
        self._owner = owner
        self._lease = lease
        self._rng = rng
        self._draining = threading.Event()

    def drain(self) -> None:
        """Claim nothing more."""
        self._draining.set()

    def work(self) -> int:
        """Run jobs until none is eligible, no engine has room, or the process drains; return how many."""
        done = 0
        while not self._draining.is_set() and self._one():
            done += 1
        return done

    def _one(self) -> bool:
        """Claim and run one job; False when there was none or no room."""
        permit = self._engines.acquire()
        if permit is None:
            return False
        with permit:
            try:
                claim = claims.claim(self._database, owner=self._owner, lease=self._lease)
            except Unavailable:
                _log.warning("claim_failed")
                return False
            if claim is None:
                return False
            logs.bind(
                job_id=ids.show("job", claim.job_id),
                attempt=claim.attempt,
                request_id=claim.request_id,
            )
            try:
                with self._holdings.hold(claim) as holding:
                    _log.info("job_claimed", engine=permit.engine.url)
                    self._run(claim, permit=permit, holding=holding)
            finally:
                logs.clear()
            return True

    def _run(self, claim: claims.Claim, *, permit: Permit, holding: leases.Holding) -> None:
        """Run one attempt. Whatever nobody foresaw ends here, at the worker's one boundary, as a counted failure."""
        try:
            request = self._request(claim)
            if request is None:
                self._fail(claim, _IMAGE_REMOVED, result=None, holding=holding)
                return
            self._ask(claim, request, permit=permit, holding=holding)
        except Exception:  # noqa: BLE001 - the boundary: a slot outlives whatever a job does
            _log.exception("attempt_crashed")
            holding.ended()
            self._retry(claim, _INTERNAL, result=None, holding=holding)

    def _request(self, claim: claims.Claim) -> engine.Request | None:
        """Return what to ask, or None when a picture is gone."""
        pictures: list[engine.Picture] = []
        for image in claim.images:
            data = claims.picture(self._database, account_id=claim.account_id, key=image.key)
            if data is None:
                return None
            pictures.append(
                engine.Picture(
                    key=image.key,
                    media_type=image.media_type,
                    data=data,
                )
            )
        return prompt.build(claim, pictures=pictures, profile=self._profile, rid=uuid.uuid4().hex)

    def _ask(
        self,
        claim: claims.Claim,
        request: engine.Request,
        *,
        permit: Permit,
        holding: leases.Holding,
    ) -> None:
        started_at = claims.begin(
            self._database,
            claim,
            rid=request.rid,
            sample=0,
            engine=permit.engine.url,
            engine_version=permit.facts.version,
            prompt=prompt.messages(request),
            sampling=prompt.sampling(request),
        )
        if started_at is None:
            holding.mark(Reason.LOST)
            _log.warning("job_lost")
            return
        result = sample.run(
            request,
            engine_=permit.engine,
            holding=holding,
            recorder=self._recorder,
            started_at=started_at,
            on_first_token=lambda: self._engines.report(permit.engine, None),
        )
        if result.fault is not None:
            self._engines.report(permit.engine, result.fault)
        permit.release()
        self._settle_result(claim, result, holding=holding)

    def _settle_result(
        self, claim: claims.Claim, result: sample.Result, *, holding: leases.Holding
    ) -> None:
        """Write what became of the attempt, by why it ended."""
        ended = result.ended
        match holding.reason, result.fault:
            case Reason.LOST, _:
                _log.warning("job_lost")
            case Reason.CANCEL, _:
                self._settle(
                    lambda: claims.stop(self._database, claim, sample=ended),
                    claim,
                    outcome=Outcome.CANCELLED,
                    holding=holding,
                )
            case Reason.DEADLINE, _:
                self._fail(claim, _DEADLINE, result=result, holding=holding)
            case Reason.DRAIN, _:
                self._release(claim, result=result, holding=holding, fault=None)
            case _, None:
                answer = answers.extract(ended.output)
                self._settle(
                    lambda: claims.succeed(self._database, claim, answer=answer, sample=ended),
                    claim,
                    outcome=Outcome.SUCCEEDED,
                    holding=holding,
                )
            case _, fault:
                self._settle_fault(claim, fault, result=result, holding=holding)

    def _settle_fault(
        self,
        claim: claims.Claim,
        error: errors.EngineError,
        *,
        result: sample.Result,
        holding: leases.Holding,
    ) -> None:
        fault = claims.Fault(code=error.code, message=error.message, retryable=error.retryable)
        if not error.retryable:
            self._fail(claim, fault, result=result, holding=holding)
        elif error.counted:
            self._retry(claim, fault, result=result, holding=holding)
        else:
            self._release(claim, result=result, holding=holding, fault=fault)

    def _fail(
        self,
        claim: claims.Claim,
        fault: claims.Fault,
        *,
        result: sample.Result | None,
        holding: leases.Holding,
    ) -> None:
        self._settle(
            lambda: claims.fail(
                self._database, claim, fault, sample=result.ended if result else None
            ),
            claim,
            outcome=Outcome.FAILED,
            holding=holding,
            error_code=fault.code,
        )

    def _retry(
        self,
        claim: claims.Claim,
        fault: claims.Fault,
        *,
        result: sample.Result | None,
        holding: leases.Holding,
    ) -> None:
        """Put the job back after a counted fault, or end it when its tries are used up."""
        if claim.failures + 1 >= claim.max_attempts:
            self._fail(claim, fault, result=result, holding=holding)
            return
        self._settle(
            lambda: claims.retry(
                self._database,
                claim,
                fault,
                sample=result.ended if result else None,
                rng=self._rng,
            ),
            claim,
            outcome=Outcome.RETRIED,
            holding=holding,
            error_code=fault.code,
        )

    def _release(
        self,
        claim: claims.Claim,
        *,
        result: sample.Result,
        holding: leases.Holding,
        fault: claims.Fault | None,
    ) -> None:
        wait = lifecycle.release_wait(rng=self._rng) if fault else timedelta(0)
        self._settle(
            lambda: claims.release(
                self._database, claim, sample=result.ended, wait=wait, fault=fault
            ),
            claim,
            outcome=Outcome.RELEASED,
            holding=holding,
            error_code=fault.code if fault else None,
        )

    def _settle(
        self,
        write: Callable[[], bool],
        claim: claims.Claim,
        *,
        outcome: Outcome,
        holding: leases.Holding,
        **facts: object,
    ) -> None:
        """Write the end of an attempt, through outages of the database.

        A commit whose reply was lost may have landed: then the second try finds nothing to change,
        and the attempt's own row says how it ended. Nobody else can have written that row.
        """
        pause = threading.Event()
        while holding.reason is not Reason.LOST:
            try:
                settled = write() or claims.landed(self._database, claim) is outcome
            except Unavailable:
                _log.warning("job_not_settled", outcome=str(outcome))
                pause.wait(_SETTLE_PAUSE_SECONDS)
                continue
            if settled:
                _log.info("job_settled", outcome=str(outcome), **facts)
                return
            break
        _log.warning("job_lost")
