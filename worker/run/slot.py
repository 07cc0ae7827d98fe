"""A slot's work: take a permit, claim the best job, ask the engine, keep what came of it, until none is left."""

from __future__ import annotations

import functools
import random
import threading
import uuid
from datetime import timedelta

import structlog

from core import ids, logs
from core.database import Database, DatabaseUnavailable
from core.profiles import ModelProfile
from jobs import engine
from jobs.store import claims, settle
from worker import compilations, leases
from worker.engines.pool import EnginePool, EngineSlot
from worker.equality import Equality
from worker.guards import chain
from worker.leases import StopReason
from worker.run import prompt
from worker.run.attempt import Attempt
from worker.run.settle import Settlement
from worker.run.trace_buffer import TraceWriter
from worker.run.vote import Vote

_log = structlog.get_logger(__name__)

_IMAGE_REMOVED = settle.Failure(
    code="image_removed", message="An image of the job was removed before it ran."
)
_INTERNAL = settle.Failure(
    code="server_error", message="The worker failed; the log has the rest.", retryable=True
)


class Slot:
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
        quarantine_crashes: engines that died over an image, from which on it is refused.
        equality: compares the answers of samples that vote.
        grammars: whose turn it is to have a schema compiled.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        holdings: leases.Leases,
        recorder: TraceWriter,
        profile: ModelProfile,
        owner: str,
        lease: timedelta,
        rng: random.Random,
        quarantine_crashes: int,
        equality: Equality,
        grammars: compilations.Compilations,
    ) -> None:
        self._database = database
        self._engines = engines
        self._holdings = holdings
        self._recorder = recorder
        self._profile = profile
        self._owner = owner
        self._lease = lease
        self._equality = equality
        self._grammars = grammars
        self._settlement = Settlement(database, rng=rng, quarantine_crashes=quarantine_crashes)
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
            except DatabaseUnavailable:
                _log.warning("claim_failed")
                return False
            self._engines.claimed(permit, claim.account_id if claim else None)
            if claim is None:
                return False
            logs.bind(
                job_id=ids.show("job", claim.job_id),
                attempt=claim.attempt,
                request_id=claim.request_id,
            )
            try:
                with self._holdings.hold(claim) as lease:
                    _log.info("job_claimed", engine=permit.engine.url)
                    self._run(claim, permit=permit, lease=lease)
            finally:
                logs.clear()
            return True

    def _run(self, claim: claims.Claim, *, permit: EngineSlot, lease: leases.Lease) -> None:
        """Run one attempt. Whatever nobody foresaw ends here, at the worker's one boundary, as a counted failure."""
        try:
            if claim.quarantined:
                self._settlement.fail(claim, settle.QUARANTINED)
                return
            request = self._request(claim)
            if request is None:
                self._settlement.fail(claim, _IMAGE_REMOVED)
                return
            self._attempt(claim, request, permit=permit, lease=lease)
        except DatabaseUnavailable:
            # The engine has not been asked: that uses up nothing.
            lease.ended()
            self._settlement.release(claim)
        except Exception:  # noqa: BLE001 - the boundary: a slot outlives whatever a job does
            _log.exception("attempt_crashed")
            lease.ended()
            self._settlement.retry(claim, _INTERNAL)

    def _request(self, claim: claims.Claim) -> engine.GenerationRequest | None:
        """Return what to ask, or None when a picture is gone."""
        submitted_images: list[engine.EngineImage] = []
        for image in claim.images:
            data = claims.image(self._database, account_id=claim.account_id, key=image.key)
            if data is None:
                return None
            submitted_images.append(
                engine.EngineImage(
                    key=image.key,
                    media_type=image.media_type,
                    data=data,
                )
            )
        return prompt.build(
            claim, images=submitted_images, profile=self._profile, rid=uuid.uuid4().hex
        )

    def _attempt(
        self,
        claim: claims.Claim,
        request: engine.GenerationRequest,
        *,
        permit: EngineSlot,
        lease: leases.Lease,
    ) -> None:
        guard = functools.partial(
            chain.build, claim.options, special_tokens=self._profile.special_tokens
        )
        guards = guard(request, engine_=permit.engine, sample=0)
        first = guards.reasoning.request
        started_at = claims.begin(
            self._database,
            claim,
            rid=first.rid,
            generation=0,
            engine=permit.engine.url,
            engine_version=permit.facts.version,
            prompt=prompt.messages(first),
            sampling=prompt.sampling(first),
        )
        if started_at is None:
            lease.mark(StopReason.LOST)
            _log.warning("job_lost")
            return
        samples = claim.options.get("samples") or 1
        if samples > 1:
            vote = Vote(
                self._database,
                engines=self._engines,
                slot=permit,
                lease=lease,
                recorder=self._recorder,
                grammars=self._grammars,
                same=self._equality.of(
                    claim.options.get("answer_format"),
                    account_id=claim.account_id,
                    stopped=lambda: lease.reason is not None,
                ),
                guard=guard,
            )
            result = vote.run(request, requested=samples, started_at=started_at)
        else:
            attempt = Attempt(
                self._database,
                engine_=permit.engine,
                lease=lease,
                recorder=self._recorder,
                grammars=self._grammars,
                on_first_token=lambda: self._engines.report(permit.engine, None),
            )
            result = attempt.run(guards, started_at=started_at)
            if fault := result.engine_fault:
                self._engines.report(permit.engine, fault)
        permit.release()
        self._settlement.settle(claim, result, reason=lease.reason)
