"""A slot of a worker: takes an engine slot, claims the best job, runs it, and settles it, until no job is left."""

from __future__ import annotations

import functools
import random
import threading
import uuid
from datetime import timedelta

import structlog

from core import ids, logs
from core.database import Database
from core.database_faults import DatabaseUnavailable
from core.profiles import ModelProfile
from jobs import engine
from jobs.store import claims, settle
from worker import compilations, leases
from worker.engines.pool import EnginePool, EngineSlot
from worker.equality import Equality
from worker.guards import chain
from worker.leases import StopReason
from worker.run import prompt
from worker.run.attempt import AttemptRun
from worker.run.settle import Settlement
from worker.run.trace_buffer import TraceWriter
from worker.run.vote import Vote

_log = structlog.get_logger(__name__)

_IMAGE_REMOVED = settle.Failure(
    code="image_removed", message="An image of the job was removed before it ran."
)
_INTERNAL = settle.Failure(
    code="server_error", message="The worker failed; its log has the details.", retryable=True
)


class Slot:
    """Runs jobs. For the threads that wakeups start.

    Args:
        database: where jobs are stored.
        engines: give engine slots.
        leases_: renew the leases of claimed jobs.
        trace_writer: stores the partial traces.
        profile: the limits of the served model.
        owner: the name of this process in leases.
        lease: the length of a lease.
        rng: for jitter.
        quarantine_crashes: how many engines must die over an image before it is refused.
        equality: compares the answers of samples, verifications and probes.
        grammars: decides when a JSON Schema may be compiled.
    """

    def __init__(
        self,
        database: Database,
        *,
        engines: EnginePool,
        leases_: leases.Leases,
        trace_writer: TraceWriter,
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
        self._leases = leases_
        self._trace_writer = trace_writer
        self._profile = profile
        self._owner = owner
        self._lease = lease
        self._equality = equality
        self._grammars = grammars
        self._settlement = Settlement(database, rng=rng, quarantine_crashes=quarantine_crashes)
        self._draining = threading.Event()
        # Claims of one account follow each other in any case, because each moves the account's turn. A thread that
        # waits here costs nothing; one that finds the turn locked repeats its transaction.
        self._claiming = threading.Lock()

    def drain(self) -> None:
        """Claim no more jobs."""
        self._draining.set()

    def undrain(self) -> None:
        """Claim jobs again."""
        self._draining.clear()

    def work(self) -> int:
        """Run jobs until no job is eligible, no engine has room, or the process drains; return how many ran."""
        done = 0
        while not self._draining.is_set() and self._run_next():
            done += 1
        return done

    def _run_next(self) -> bool:
        """Claim and run one job; return False if there was no job or no room."""
        slot = self._engines.acquire()
        if slot is None:
            return False
        with slot:
            try:
                with self._claiming:
                    claim = claims.claim(self._database, owner=self._owner, lease=self._lease)
            except DatabaseUnavailable:
                _log.warning("claim_failed")
                return False
            self._engines.claimed(slot, claim.account_id if claim else None)
            if claim is None:
                return False
            logs.bind(
                job_id=ids.show("job", claim.job_id),
                attempt=claim.attempt,
                request_id=claim.request_id,
            )
            try:
                with self._leases.hold(claim) as lease:
                    _log.info("job_claimed", engine=slot.engine.url)
                    self._run(claim, slot=slot, lease=lease)
            finally:
                logs.clear()
            return True

    def _run(self, claim: claims.Claim, *, slot: EngineSlot, lease: leases.Lease) -> None:
        """Run one attempt. An unexpected exception ends here, at the worker's one boundary, as a counted failure."""
        try:
            if claim.quarantined:
                self._settlement.fail(claim, settle.QUARANTINED)
                return
            request = self._request(claim)
            if request is None:
                self._settlement.fail(claim, _IMAGE_REMOVED)
                return
            self._attempt(claim, request, slot=slot, lease=lease)
        except DatabaseUnavailable:
            # The engine has not been asked, so this is not a counted failure.
            lease.ended()
            self._settlement.release(claim)
        except Exception:  # noqa: BLE001 - the boundary: a slot survives every failure of a job
            _log.exception("attempt_crashed")
            lease.ended()
            self._settlement.retry(claim, _INTERNAL)

    def _request(self, claim: claims.Claim) -> engine.GenerationRequest | None:
        """Return the request of a job, or None if one of its images was removed."""
        images: list[engine.EngineImage] = []
        for image in claim.images:
            data = claims.image(self._database, account_id=claim.account_id, key=image.key)
            if data is None:
                return None
            images.append(
                engine.EngineImage(
                    key=image.key,
                    media_type=image.media_type,
                    data=data,
                )
            )
        return prompt.build(claim, images=images, profile=self._profile, rid=uuid.uuid4().hex)

    def _attempt(
        self,
        claim: claims.Claim,
        request: engine.GenerationRequest,
        *,
        slot: EngineSlot,
        lease: leases.Lease,
    ) -> None:
        same = self._equality.of(
            claim.options.get("answer_format"),
            account_id=claim.account_id,
            question=claim.question,
            stopped=lambda: lease.reason is not None,
        )
        guard = functools.partial(
            chain.build, claim.options, special_tokens=self._profile.special_tokens, same=same
        )
        guards = guard(request, engine_=slot.engine, number=0)
        first = guards.reasoning.request
        started_at = claims.begin(
            self._database,
            claim,
            rid=first.rid,
            generation=0,
            engine=slot.engine.url,
            engine_version=slot.facts.version,
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
                slot=slot,
                lease=lease,
                trace_writer=self._trace_writer,
                grammars=self._grammars,
                same=same,
                guard=guard,
            )
            result = vote.run(request, requested=samples, started_at=started_at)
        else:
            attempt = AttemptRun(
                self._database,
                engine_=slot.engine,
                lease=lease,
                trace_writer=self._trace_writer,
                grammars=self._grammars,
                on_first_token=lambda: self._engines.report(slot.engine, None),
            )
            result = attempt.run(guards, started_at=started_at)
            if fault := result.engine_fault:
                self._engines.report(slot.engine, fault)
        slot.release()
        self._settlement.settle(claim, result, reason=lease.reason)
