"""The streams of one attempt: the long look, the answer that it is made to give if it was cut, and a second look."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import structlog

from core import errors
from core.database import Database, DatabaseUnavailable, until_available
from core.profiles import Sampling
from jobs import engine
from jobs.answers import extraction
from jobs.answers.extraction import Answer
from jobs.answers.votes import Tally
from jobs.findings import Action, Finding, FindingKind
from jobs.store import claims, traces
from worker import compilations, leases
from worker.guards import convergence, detectors, json_answer, verify
from worker.leases import StopReason
from worker.run import generation
from worker.run.trace_buffer import TraceWriter

_log = structlog.get_logger(__name__)

_GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True)
class FlowResult:
    """How an attempt's streams ended.

    Attributes:
        ended: the last stream, whose end has not been written yet.
        fault: what went wrong with it.
        text: where the answer is to be found.
        form: the form that it was asked for in, when the text is to be that and nothing else.
        forced: whether the model was made to give it.
        found: what was found in the last stream.
    """

    ended: traces.GenerationEnd
    fault: errors.EngineError | None
    text: str
    forced: bool = False
    found: tuple[Finding, ...] = ()
    #: The attempt's other streams whose end has not been written whole.
    others: tuple[traces.GenerationEnd, ...] = ()
    #: How its samples voted, if they did.
    tally: Tally | None = None
    form: json_answer.JsonFormat | None = None
    #: The stream in which the answer stands, when a later one brought none.
    stands_in: traces.GenerationEnd | None = None
    #: The number of the second look at the answer, if there was one, and what went wrong with it.
    look: int | None = None
    missed: errors.EngineError | None = None

    @property
    def said(self) -> traces.GenerationEnd:
        """The stream that gave the answer."""
        return self.stands_in or self.ended

    @property
    def answer(self) -> extraction.Answer | None:
        """The answer, None when there is none."""
        return extraction.extract(self.text) if self.form is None else self.form.read(self.text)


class GenerationFlow:
    """Asks an engine one job's question.

    Args:
        database: where the attempt is kept.
        engine_: whom to ask.
        holding: the claim, and how it is stopped.
        recorder: keeps the partial traces.
        grammars: whose turn it is to have a schema compiled.
        on_first_token: called when the engine has begun to answer.
        numbers: gives each further stream its number. Without it the streams come one after the other; with it
            others of the same attempt may run beside them, and the result has all that are to be ended with those.
    """

    def __init__(
        self,
        database: Database,
        *,
        engine_: engine.Engine,
        holding: leases.Lease,
        recorder: TraceWriter,
        grammars: compilations.Compilations,
        on_first_token: Callable[[], None],
        numbers: Iterator[int] | None = None,
    ) -> None:
        self._database = database
        self._engine = engine_
        self._holding = holding
        self._recorder = recorder
        self._grammars = grammars
        self._on_first_token = on_first_token
        self._numbers = numbers

    def run(
        self,
        request: engine.GenerationRequest,
        watch: detectors.GenerationGuard,
        *,
        started_at: datetime,
        number: int = 0,
    ) -> FlowResult:
        """Stream ``request``, whose start has been noted, under ``watch``; force the answer, look again if need be.

        An answer in JSON comes in a stream of its own, after whatever has been said.
        """
        form = json_answer.JsonFormat.of(self._holding.claim.options)
        if form is not None:
            reasoned = self._reason(request, form, watch, number=number, started_at=started_at)
            result = FlowResult(reasoned.ended, reasoned.fault, reasoned.ended.output)
            if self._stopped(result):
                return result
            return self._typed(request, reasoned.ended, watch.verdict, form)
        first = self._look(request, watch, number=number, started_at=started_at)
        ended, verdict = first.ended, watch.verdict
        result = FlowResult(ended, first.fault, ended.output)
        if self._stopped(result):
            return result
        if verdict is not None:
            _log.info(
                "trace_cut", kind=str(verdict.finding.kind), action=str(verdict.finding.action)
            )
            if verdict.inserted:
                result = self._force(
                    request,
                    ended,
                    verdict,
                    tokens=watch.forced_tokens,
                    more=bool(watch.verification),
                )
            else:
                result = FlowResult(
                    _by_itself(ended),
                    None,
                    ended.output[: verdict.stored],
                    found=(verdict.finding,),
                )
        answer = result.answer
        if not watch.verification or answer is None or self._stopped(result):
            self._holding.ended()
            return result
        return self._look_again(request, result, answer, tokens=watch.verification)

    def _stopped(self, result: FlowResult) -> bool:
        """Whether nothing is to come after ``result``."""
        return self._holding.reason is not None or result.fault is not None

    def _look(
        self,
        request: engine.GenerationRequest,
        watch: detectors.GenerationGuard,
        *,
        number: int,
        started_at: datetime,
    ) -> generation.GenerationResult:
        """Stream ``request`` under ``watch``, with probes on the way if they are wanted."""
        if not watch.probes:
            looked = self._stream(request, watch, number=number, started_at=started_at)
            watch.billed(looked.ended.output_tokens)
            return looked
        with convergence.ConvergenceProbe(watch, request, engine_=self._engine) as probing:
            looked = self._stream(request, probing, number=number, started_at=started_at)
        watch.billed(looked.ended.output_tokens)
        return dataclasses.replace(looked, ended=probing.billed(looked.ended))

    def _force(
        self,
        request: engine.GenerationRequest,
        first: traces.GenerationEnd,
        verdict: detectors.Verdict,
        *,
        tokens: int,
        more: bool,
    ) -> FlowResult:
        """Go on from the text before the cut; what the cut stream had said stands when that brings nothing."""
        given = first.output[: verdict.stored] + verdict.inserted
        again = dataclasses.replace(
            request,
            rid=uuid.uuid4().hex,
            sampling=_GREEDY,
            max_output_tokens=tokens,
            continuation=given,
        )
        number = self._next(first)
        started_at = self._follow(
            first,
            verdict.finding,
            rid=again.rid,
            number=number,
            stored=verdict.stored,
            inserted=verdict.inserted,
        )
        if started_at is None:
            self._holding.ended()
            return FlowResult(first, None, first.output, found=(verdict.finding,))
        forced = self._stream(
            again, detectors.BoxReader(more=more), number=number, started_at=started_at
        )
        fault = forced.fault
        if fault is not None and not fault.retryable:
            # The engine refuses the longer text: that does not make the question a wrong one.
            fault = None
        text = given + forced.ended.output
        found = extraction.extract(text)
        better = found is not None and not (
            verdict.finding.kind is FindingKind.LANGUAGE
            and detectors.drifted(request.question, first.output, found.text)
        )
        return FlowResult(
            forced.ended,
            fault,
            text if better else first.output,
            forced=better,
            others=() if self._numbers is None else (first,),
            stands_in=None if better else _by_itself(first),
        )

    def _look_again(
        self, request: engine.GenerationRequest, first: FlowResult, answer: Answer, *, tokens: int
    ) -> FlowResult:
        """Have the answer compared with the pictures once more; what goes wrong then leaves it as it is."""
        requested = verify.ask(request.question) + request.instruction
        # Of a loop that was cut off behind its answer the engine gets no more than that.
        whole = first.ended.output
        stored = len(first.text) if whole.startswith(first.text) else len(whole)
        again = dataclasses.replace(
            request,
            rid=uuid.uuid4().hex,
            sampling=_GREEDY,
            max_output_tokens=tokens,
            turn=engine.FollowUp(first.text, requested),
        )
        number = self._next(first.ended)
        started_at = self._follow(
            first.ended,
            first.found[0] if first.found else None,
            rid=again.rid,
            number=number,
            stored=stored,
            inserted=requested,
        )
        if started_at is None:
            self._holding.ended()
            return first
        reader = verify.Verification(
            answer,
            question=request.question,
            answer_format=self._holding.claim.options.get("answer_format"),
            generation=number,
        )
        looked = self._stream(again, reader, number=number, started_at=started_at)
        found = reader.found or reader.finding(Action.NONE, len(looked.ended.output))
        _log.info("answer_verified", action=str(found.action))
        corrected = found.action is Action.CORRECTED
        return FlowResult(
            looked.ended,
            None,
            looked.ended.output if corrected else first.text,
            forced=first.forced and not corrected,
            found=(found,),
            others=() if self._numbers is None else (*first.others, first.ended),
            stands_in=None if corrected else first.said,
            look=number,
            missed=looked.fault,
        )

    def _typed(
        self,
        request: engine.GenerationRequest,
        first: traces.GenerationEnd,
        verdict: detectors.Verdict | None,
        form: json_answer.JsonFormat,
    ) -> FlowResult:
        """Go on under a grammar, from the whole text or from before the cut."""
        stored = len(first.output.rstrip()) if verdict is None else verdict.stored
        reasoning = first.output[:stored]
        inserted = json_answer.ask(reasoning, request.question)
        again = dataclasses.replace(
            request,
            rid=uuid.uuid4().hex,
            sampling=_GREEDY,
            max_output_tokens=json_answer.tokens(self._budget(request)),
            continuation=reasoning + inserted,
            schema=form.schema,
        )
        finding = verdict.finding if verdict is not None else None
        number = self._next(first)
        started_at = self._follow(
            first, finding, rid=again.rid, number=number, stored=stored, inserted=inserted
        )
        if started_at is None:
            self._holding.ended()
            found = () if finding is None else (finding,)
            return FlowResult(first, None, "", found=found, form=form)
        last = self._under_grammar(again, form, number=number, started_at=started_at)
        return FlowResult(
            last.ended,
            last.fault,
            last.ended.output,
            forced=verdict is not None and bool(verdict.inserted),
            others=() if self._numbers is None else (first,),
            form=form,
        )

    def _reason(
        self,
        request: engine.GenerationRequest,
        form: json_answer.JsonFormat,
        watch: detectors.GenerationGuard,
        *,
        number: int,
        started_at: datetime,
    ) -> generation.GenerationResult:
        """Stream the reasoning before an answer under a grammar, unless there will be no grammar."""
        try:
            self._grammars.check(self._engine.url, form.schema)
        except errors.SchemaTimedOut as error:
            self._holding.ended()
            return generation.unasked(
                number=number, started_at=started_at, reason=self._holding.reason, fault=error
            )
        return self._stream(
            request, json_answer.ReasoningReader(watch), number=number, started_at=started_at
        )

    def _under_grammar(
        self,
        request: engine.GenerationRequest,
        form: json_answer.JsonFormat,
        *,
        number: int,
        started_at: datetime,
    ) -> generation.GenerationResult:
        """Stream an answer under its grammar, when it is the account's turn to have that compiled."""
        try:
            with self._grammars.turn(
                self._engine.url,
                self._holding.claim.account_id,
                form.schema,
                stopped=lambda: self._holding.reason is not None,
            ) as turn:
                self._grammars.check(self._engine.url, form.schema)
                streamed = self._stream(
                    request,
                    json_answer.JsonReader(),
                    number=number,
                    started_at=started_at,
                    on_first_token=turn.begun,
                )
                fault = streamed.fault
                if fault is not None and streamed.ended.first_token_at is None:
                    fault = turn.failed(fault)
                return dataclasses.replace(streamed, fault=fault)
        except compilations.CompilationStopped:
            fault = None
        except errors.SchemaTimedOut as error:
            fault = error
        self._holding.ended()
        return generation.unasked(
            number=number, started_at=started_at, reason=self._holding.reason, fault=fault
        )

    def _budget(self, request: engine.GenerationRequest) -> int:
        """Return the tokens of the whole job, as they were settled at submission."""
        requested: int | None = self._holding.claim.options.get("max_output_tokens")
        return requested or request.max_output_tokens

    def _next(self, ended: traces.GenerationEnd) -> int:
        """Return the number of the stream that goes on from one that has ended."""
        return ended.generation + 1 if self._numbers is None else next(self._numbers)

    def _follow(
        self,
        ended: traces.GenerationEnd,
        finding: Finding | None,
        *,
        rid: str,
        number: int,
        stored: int,
        inserted: str,
    ) -> datetime | None:
        """Note the cut and the next stream, through outages; None when the job is lost or was stopped meanwhile."""
        if self._holding.reason is not None:
            return None
        try:
            followed = until_available(
                lambda: claims.follow(
                    self._database,
                    self._holding.claim,
                    ended=ended,
                    finding=finding,
                    rid=rid,
                    generation=number,
                    stored=stored,
                    inserted=inserted,
                    beside=self._numbers is not None,
                ),
                failed="cut_not_written",
                give_up=self._holding.stopped_within,
            )
        except DatabaseUnavailable:
            return None
        if followed is None:
            self._holding.mark(StopReason.LOST)
            return None
        if self._numbers is None:
            self._recorder.pass_by(self._holding.claim, followed.through)
        return followed.started_at

    def _stream(
        self,
        request: engine.GenerationRequest,
        reader: generation.GenerationReader,
        *,
        number: int,
        started_at: datetime,
        on_first_token: Callable[[], None] = lambda: None,
    ) -> generation.GenerationResult:
        def begun() -> None:
            on_first_token()
            self._on_first_token()

        return generation.run(
            request,
            engine_=self._engine,
            holding=self._holding,
            recorder=self._recorder,
            reader=reader,
            number=number,
            started_at=started_at,
            on_first_token=begun,
        )


def _by_itself(ended: traces.GenerationEnd) -> traces.GenerationEnd:
    """Return a stream whose answer stands: why it was cut off behind that is in the finding."""
    return (
        dataclasses.replace(ended, finish_reason="stop") if ended.finish_reason == "cut" else ended
    )
