"""Writes how an attempt ended, in one fenced transaction; retries until the database answers."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from datetime import timedelta

import structlog

from core import errors
from core.database import Database
from core.database_faults import until_available
from jobs import lifecycle
from jobs.answers import model_refusals
from jobs.findings import Action, Finding, FindingKind
from jobs.lifecycle import Outcome
from jobs.store import claims, history, traces
from jobs.store import settle as settle_store
from worker.guards.json_answer import JsonFormat
from worker.leases import StopReason
from worker.run.attempt import RunResult

_log = structlog.get_logger(__name__)

#: Attempts over which an engine may fall silent before the job fails, whatever its ``max_attempts``: each of them
#: blocks an engine slot for a minute.
_SILENCES = 2

_DEADLINE = settle_store.Failure(
    code=errors.DeadlineExceeded.code, message="The deadline passed while the job ran."
)


class Settlement:
    """Ends attempts. Each method returns when the end is written, or when another process owns the job.

    Args:
        database: where jobs are stored.
        rng: for jitter.
        quarantine_crashes: how many engines must die over an image before it is refused.
    """

    def __init__(self, database: Database, *, rng: random.Random, quarantine_crashes: int) -> None:
        self._database = database
        self._quarantine_crashes = quarantine_crashes
        self._rng = rng

    def settle(self, claim: claims.Claim, result: RunResult, *, reason: StopReason | None) -> None:
        """Write the end of an attempt whose generations have ended.

        Args:
            claim: the attempt.
            result: what its generations left.
            reason: why it was stopped from outside, or None if it was not.
        """
        match reason, result.last.fault:
            case StopReason.LOST, _:
                _log.warning("job_lost")
            case StopReason.CANCEL, _:
                self._write(
                    claim,
                    Outcome.CANCELLED,
                    lambda: settle_store.stop(
                        self._database, claim, generation=result.last.end, others=result.others
                    ),
                )
            case StopReason.DEADLINE, _:
                self.fail(claim, _DEADLINE, result=result)
            case StopReason.DRAIN, _:
                self.release(claim, result=result)
            case _, None:
                self._settle_end(claim, result)
            case _, error:
                self._settle_error(claim, error, result)

    def _settle_end(self, claim: claims.Claim, result: RunResult) -> None:
        """End a job whose generations have ended without a fault."""
        end, standing = result.last.end, result.last.standing
        answer, findings = standing.answer, result.last.findings
        if answer is None:
            if (form := JsonFormat.of(claim.options)) is not None:
                self.fail(claim, _unmet(end, form), result=result)
                return
            findings = (*findings, _no_answer(end, refused=model_refusals.refuses(standing.text)))
        self._write(
            claim,
            Outcome.SUCCEEDED,
            lambda: settle_store.succeed(
                self._database,
                claim,
                answer=answer,
                generation=end,
                others=result.others,
                forced=standing.forced,
                guard_findings=findings,
                tally=result.tally,
                finish_reason=standing.end.finish_reason,
            ),
        )

    def fail(
        self,
        claim: claims.Claim,
        fault: settle_store.Failure,
        *,
        result: RunResult | None = None,
        deadly: int | None = None,
    ) -> None:
        """End the job as failed."""
        ended, others = (result.last.end, result.others) if result else (None, ())
        self._write(
            claim,
            Outcome.FAILED,
            lambda: settle_store.fail(
                self._database, claim, fault, generation=ended, others=others, deadly=deadly
            ),
            fault,
        )

    def retry(
        self,
        claim: claims.Claim,
        fault: settle_store.Failure,
        *,
        result: RunResult | None = None,
        engine_died: bool = False,
    ) -> None:
        """Return the job to the queue after a counted fault, or end it after its last attempt."""
        deadly = self._quarantine_crashes if engine_died else None
        if claim.failures + 1 >= claim.max_attempts:
            self.fail(claim, fault, result=result, deadly=deadly)
            return
        ended, others = (result.last.end, result.others) if result else (None, ())
        self._write(
            claim,
            Outcome.RETRIED,
            lambda: settle_store.retry(
                self._database,
                claim,
                fault,
                generation=ended,
                others=others,
                rng=self._rng,
                deadly=deadly,
            ),
            fault,
        )

    def release(
        self,
        claim: claims.Claim,
        *,
        result: RunResult | None = None,
        fault: settle_store.Failure | None = None,
    ) -> None:
        """Return the job to the queue without counting a failure; after a ``fault``, with a short wait.

        The wait keeps workers from claiming the job again and again while the engine is full.
        """
        wait = lifecycle.release_wait(rng=self._rng) if fault else timedelta(0)
        ended, others = (result.last.end, result.others) if result else (None, ())
        self._write(
            claim,
            Outcome.RELEASED,
            lambda: settle_store.release(
                self._database, claim, generation=ended, others=others, wait=wait, fault=fault
            ),
            fault,
        )

    def _settle_error(
        self, claim: claims.Claim, error: errors.EngineError, result: RunResult
    ) -> None:
        fault = settle_store.Failure(
            code=error.code, message=error.message, retryable=error.retryable
        )
        if not error.retryable:
            self.fail(claim, fault, result=result)
        elif isinstance(error, errors.EngineSilent):
            self._settle_silence(claim, fault, result, silence=error)
        elif error.counted:
            died = isinstance(error, errors.EngineLost)
            self.retry(claim, fault, result=result, engine_died=died)
        else:
            self.release(claim, result=result, fault=fault)

    def _settle_silence(
        self,
        claim: claims.Claim,
        fault: settle_store.Failure,
        result: RunResult,
        *,
        silence: errors.EngineSilent,
    ) -> None:
        if silence.silent_to_others:
            # The engine is at fault: this does not count as a silence of the job.
            fault = dataclasses.replace(fault, code=errors.EngineFault.code)
            self.retry(claim, fault, result=result)
            return
        # If the engine is silent to every request, the image is not the cause: every image in use would be accused.
        accused = silence.answers_others and not silence.makes_grammar
        if self._silences(claim) + 1 < _SILENCES:
            self.retry(claim, fault, result=result, engine_died=accused)
            return
        deadly = self._quarantine_crashes if accused else None
        self.fail(claim, fault, result=result, deadly=deadly)

    def _silences(self, claim: claims.Claim) -> int:
        """Return in how many earlier attempts of the job an engine fell silent."""
        attempts = until_available(
            lambda: history.attempts(self._database, claim.job_id), failed="attempts_not_read"
        )
        return sum(view.attempt.error_code == errors.EngineSilent.code for view in attempts)

    def _write(
        self,
        claim: claims.Claim,
        outcome: Outcome,
        write: Callable[[], bool],
        fault: settle_store.Failure | None = None,
    ) -> None:
        """Write until the database answers.

        A commit whose reply was lost may have landed. Then the next call of ``write`` finds nothing to change, and
        the attempt's row has the outcome, which no other process can have written.
        """
        settled = until_available(
            lambda: write() or settle_store.landed(self._database, claim) is outcome,
            failed="job_not_settled",
            outcome=str(outcome),
        )
        if settled:
            code = fault.code if fault else None
            _log.info("job_settled", outcome=str(outcome), error_code=code)
        else:
            _log.warning("job_lost")


def _unmet(end: traces.GenerationEnd, form: JsonFormat) -> settle_store.Failure:
    """Return the failure of a job whose answer is not in the JSON format."""
    wanted = "a JSON object" if form.rule == "json_object" else "JSON of the schema"
    ran_out = end.finish_reason == "length"
    return settle_store.Failure(
        code="answer_format_unmet",
        message=settle_store.ANSWER_CUT if ran_out else f"The model's answer is not {wanted}.",
        retryable=True,
    )


def _no_answer(end: traces.GenerationEnd, *, refused: bool) -> Finding:
    """Return the finding of an attempt that ended without an answer, because the model refused to answer or not."""
    return Finding(
        kind=FindingKind.REFUSAL if refused else FindingKind.NO_ANSWER,
        generation=end.generation,
        start=0,
        end=len(end.output),
        action=Action.NONE,
    )
