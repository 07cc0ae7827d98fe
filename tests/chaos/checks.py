"""Invariants of every job after any faults, checked in the database and against the observations of the clients.

Each check yields one sentence per violation; a run is good if there are no violations.
"""

from __future__ import annotations

import itertools
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from core import ids
from core.database import Database
from jobs.answers import extraction
from jobs.events import index as event_index
from jobs.lifecycle import TRANSITIONS, Outcome, Status
from jobs.records.attempts import Attempt, Generation, TraceChunk
from jobs.records.jobs import Job
from jobs.records.timeline import TimelineEntry
from jobs.store import storage, timeline
from tests.chaos.submissions import Order
from tests.receivers import Got
from webhooks.storage import COUNTER


@dataclass
class Life:
    """All rows of one job."""

    job: Job
    entries: list[TimelineEntry] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    generations: list[Generation] = field(default_factory=list)
    chunks: int = 0

    @property
    def shown(self) -> str:
        """The public id of the job."""
        return ids.show("job", self.job.id)

    @property
    def moves(self) -> list[TimelineEntry]:
        """The timeline entries that change the state."""
        return [entry for entry in self.entries if "status" in entry.changes]


@dataclass(frozen=True)
class Limits:
    """The limits of the counters."""

    crashes: int


def lives(database: Database) -> dict[uuid.UUID, Life]:
    """Return every job."""
    with database.reading() as transaction:
        rows = transaction.session.scalars
        by_id = {job.id: Life(job) for job in rows(sa.select(Job).order_by(Job.id))}
        for entry in rows(sa.select(TimelineEntry).order_by(TimelineEntry.id)):
            by_id[entry.job_id].entries.append(entry)
        for attempt in rows(sa.select(Attempt).order_by(Attempt.job_id, Attempt.number)):
            by_id[attempt.job_id].attempts.append(attempt)
        ordered = sa.select(Generation).order_by(
            Generation.job_id, Generation.attempt, Generation.number
        )
        for generation in rows(ordered):
            by_id[generation.job_id].generations.append(generation)
        for chunk in rows(sa.select(TraceChunk)):
            by_id[chunk.job_id].chunks += 1
    return by_id


def broken(jobs: Iterable[Life], limits: Limits) -> list[str]:
    """Return the violations of the invariants by jobs, all of which should have ended."""
    wrong = []
    rids: Counter[str] = Counter()
    for life in jobs:
        rids.update(generation.rid for generation in life.generations)
        for check in CHECKS:
            wrong += [f"{life.shown}: {fault}" for fault in check(life, limits)]
    wrong += [f"the engine's id {rid} was used twice" for rid, uses in rids.items() if uses > 1]
    return wrong


def unlike(by_id: dict[uuid.UUID, Life], orders: Iterable[Order]) -> list[str]:
    """Return the differences between the database and the observations of the clients."""
    wrong = []
    by_key: dict[str | None, list[Life]] = defaultdict(list)
    for life in by_id.values():
        by_key[life.job.idempotency_key].append(life)
    wrong += [f"{life.shown}: no client ordered it" for life in by_key.pop(None, [])]
    for order in orders:
        wrong += order.wrong
        stored = by_key.pop(order.key, [])
        if {life.shown for life in stored} != order.ids and (order.ids or len(stored) > 1):
            wrong.append(f"{order.key}: was told {sorted(order.ids)}, kept are {len(stored)} jobs")
        wrong += [f"{life.shown}: {fault}" for life in stored for fault in _unseen(life, order)]
    wrong += [f"{life.shown}: no client ordered it" for rest in by_key.values() for life in rest]
    return wrong


def miscounted(database: Database) -> list[str]:
    """Return the accounts whose storage totals differ from their rows."""
    wrong = []
    for account in storage.accounts(database, default_mb=0):
        with database.reading() as transaction:
            held = storage.stored(transaction, account.account_id, counters=[COUNTER])
        if any(held[kind] != count for kind, count in account.usage.by_kind.items()):
            wrong.append(f"account {account.name}: {dict(held)}, counted {account.usage.by_kind}")
    return wrong


def unreported(ended: Iterable[Life], received: Iterable[Got]) -> list[str]:
    """Return the starts and ends of jobs that the receiver did not get, or got with several ids."""
    names: dict[tuple[str, str], set[str]] = defaultdict(set)
    for notification in received:
        event = notification.event
        names[event["data"]["id"], event["type"]].add(notification.headers["webhook-id"])
    wrong = []
    for life in ended:
        expected = {f"job.{life.job.status}"} | ({"job.started"} if life.job.attempt else set())
        event_types = {event_type for job, event_type in names if job == life.shown}
        if event_types != expected:
            wrong.append(f"{life.shown}: its receiver got {sorted(event_types)}")
    wrong += [
        f"{job}: {kind} has {len(ids_)} ids" for (job, kind), ids_ in names.items() if len(ids_) > 1
    ]
    return wrong


def _unseen(life: Life, order: Order) -> Iterator[str]:
    if order.job is None:
        return
    if order.job["status"] != life.job.status:
        yield f"its client last saw it {order.job['status']}, it is {life.job.status}"
    texts = {
        (generation.attempt, generation.number): generation.output or ""
        for generation in life.generations
    }
    for stream, text in order.texts.items():
        if not texts.get(stream, "").startswith(text):
            yield f"its client saw text of attempt {stream[0]} that is not stored"


def _ends(life: Life, _: Limits) -> Iterator[str]:
    """The job ended once, consistently with its row."""
    job = life.job
    if not job.status.terminal:
        yield f"is still {job.status}"
        return
    ends = [entry for entry in life.moves if Status(entry.changes["status"]).terminal]
    if len(ends) != 1:
        yield f"ended {len(ends)} times: {[entry.action for entry in ends]}"
    if life.moves[-1:] != ends[-1:]:
        yield "changed after its end"
    if (job.answer_text is not None) and job.status is not Status.SUCCEEDED:
        yield "has an answer and did not succeed"
    if (job.error_code is not None) != (job.status is Status.FAILED):
        yield f"has the error {job.error_code} and is {job.status}"
    if job.status is Status.CANCELLED and job.cancel_requested_at is None:
        yield "was cancelled without a request"


def _moves(life: Life, _: Limits) -> Iterator[str]:
    """Every transition is legal, and the timeline adds up to the row."""
    states = [Status(entry.changes["status"]) for entry in life.moves]
    if states[:1] != [Status.QUEUED]:
        yield f"started as {states[:1]}"
    for before, after in itertools.pairwise(states):
        if after not in TRANSITIONS[before]:
            yield f"went from {before} to {after}"
    replayed: dict[str, Any] = dict.fromkeys(timeline.REPORTED)
    for entry in life.entries:
        replayed |= entry.changes
    for name in timeline.REPORTED:
        value = getattr(life.job, name)
        if isinstance(value, datetime):
            value = value.astimezone(UTC).isoformat(timespec="microseconds")
        if replayed[name] != value:
            yield f"its timeline says {name} is {replayed[name]}, the row {value}"


def _attempts(life: Life, _: Limits) -> Iterator[str]:
    """Each attempt is claimed once and ended once, by its owner or, if the owner was lost, by a sweeper."""
    numbers = list(range(1, life.job.attempt + 1))
    if [attempt.number for attempt in life.attempts] != numbers:
        yield f"has attempts {[attempt.number for attempt in life.attempts]}, not {numbers}"
        return
    claimed = [entry for entry in life.moves if entry.changes["status"] == Status.RUNNING]
    if [entry.changes.get("attempt") for entry in claimed] != numbers:
        yield "an attempt was claimed twice or out of turn"
        return
    for attempt, claim in zip(life.attempts, claimed, strict=True):
        following = life.moves[life.moves.index(claim) + 1 :][:1]
        if claim.actor != f"worker:{attempt.worker}":
            yield f"attempt {attempt.number} is {attempt.worker}'s, claimed by {claim.actor}"
        for end in following:
            lost = end.action == Outcome.LOST
            right = end.actor.startswith("sweeper:") if lost else end.actor == claim.actor
            if not right or end.action != attempt.outcome:
                yield (
                    f"attempt {attempt.number} of {claim.actor} is {attempt.outcome}, was ended "
                    f"as {end.action} by {end.actor}"
                )
        if attempt.outcome is None or attempt.ended_at is None:
            yield f"attempt {attempt.number} has no end"


def _counters(life: Life, limits: Limits) -> Iterator[str]:
    """The counts of crashes and failures equal those of the attempts, and are within their limits."""
    job = life.job
    outcomes = Counter(attempt.outcome for attempt in life.attempts)
    if outcomes[Outcome.LOST] != job.crashes:
        yield f"lost {outcomes[Outcome.LOST]} workers, counted {job.crashes}"
    if outcomes[Outcome.RETRIED] != job.failures:
        yield f"was retried {outcomes[Outcome.RETRIED]} times, counted {job.failures}"
    if job.crashes > limits.crashes or job.failures >= job.max_attempts:
        yield f"has {job.crashes} crashes and {job.failures} of {job.max_attempts} failures"
    if job.error_code == "worker_lost" and job.crashes != limits.crashes:
        yield f"failed as lost after {job.crashes} crashes"


def _result(life: Life, _: Limits) -> Iterator[str]:
    """If the job succeeded, only its last attempt did; answer and usage belong to that attempt."""
    job = life.job
    won = [attempt.number for attempt in life.attempts if attempt.outcome is Outcome.SUCCEEDED]
    if won != ([job.attempt] if job.status is Status.SUCCEEDED else []):
        yield f"attempts {won} of {job.attempt} succeeded, and the job is {job.status}"
        return
    if job.status is not Status.SUCCEEDED:
        return
    streams = [generation for generation in life.generations if generation.attempt == job.attempt]
    if not streams or any(generation.output is None for generation in streams):
        yield "succeeded without a text"
        return
    chosen = _chosen(job, streams)
    answer = extraction.extract(_whole(chosen), ended=chosen[-1].finish_reason == "stop")
    expected = (answer.text, answer.rule) if answer else (None, None)
    if (job.answer_text, job.answer_rule) != expected:
        yield "its answer is not the one in its text"
    if job.finish_reason != chosen[-1].finish_reason:
        yield "its finish_reason is not that of its last generation"
    requested = job.options.get("samples", 1)
    if (job.votes is not None) != (requested > 1):
        yield f"asked for {requested} samples and has the votes {job.votes}"
    for name in ("input_tokens", "image_tokens", "output_tokens"):
        if getattr(job, name) != sum(getattr(generation, name) or 0 for generation in streams):
            yield f"its {name} is not the sum of its generations"


def _chosen(job: Job, streams: list[Generation]) -> list[Generation]:
    """Return the generations that lead to the answer: all of them, or those of the winning sample."""
    if not job.votes:
        return streams
    by_number = {generation.number: generation for generation in streams}
    [first, *_] = job.votes["classes"] or [{"samples": job.votes["abstained"]}]
    chain = [by_number[first["generations"][0]]]
    while (before := chain[0].continues) is not None:
        chain.insert(0, by_number[before])
    return chain


def _whole(streams: list[Generation]) -> str:
    """Return the text of an attempt; of a truncated generation, only the part that the next one continued."""
    text = ""
    for generation in streams:
        text = (
            text[: generation.valid_chars] + (generation.inserted or "") + (generation.output or "")
        )
    return text


def _traces(life: Life, _: Limits) -> Iterator[str]:
    """All generations have ended and have the same text, because greedy decoding is deterministic."""
    if life.chunks:
        yield f"has {life.chunks} trace chunks after its end"
    streams = Counter((generation.attempt, generation.number) for generation in life.generations)
    if {attempt for attempt, _ in streams} - {attempt.number for attempt in life.attempts}:
        yield "has a generation without an attempt"
    if any(
        generation.ended_at is None or generation.output is None for generation in life.generations
    ):
        yield "has a generation that has not ended"
    if life.job.options.get("samples", 1) > 1:
        return  # Samples of a vote have a temperature.
    texts = [
        generation.output or "" for generation in life.generations if generation.continues is None
    ]
    longest = max(texts, key=len, default="")
    if not all(longest.startswith(text) for text in texts):
        yield f"its generations differ; their lengths are {[len(text) for text in texts]}"


def _stops(life: Life, _: Limits) -> Iterator[str]:
    """A job that its worker cancelled during a generation records when the engine stopped."""
    job = life.job
    end = life.moves[-1] if life.moves else None
    if job.status is not Status.CANCELLED or end is None or not end.actor.startswith("worker:"):
        return
    streamed = any(generation.attempt == job.attempt for generation in life.generations)
    if streamed and (
        job.engine_stopped_at is None
        or job.cancel_requested_at is None
        or job.engine_stopped_at < job.cancel_requested_at
    ):
        yield f"cancel requested at {job.cancel_requested_at}, engine stopped at {job.engine_stopped_at}"


def _numbers(life: Life, _: Limits) -> Iterator[str]:
    """The events have unique, ordered numbers and cover each text completely."""
    claims = {
        entry.changes["attempt"]: entry.sequence_number or 0
        for entry in life.moves
        if entry.action == "claimed"
    }
    moves = [entry.sequence_number for entry in life.moves if entry.sequence_number is not None]
    indexes = {
        (generation.attempt, generation.number): event_index.unpack(generation.event_index)
        for generation in life.generations
    }
    if moves != sorted(set(moves)):
        yield f"its transitions have the event numbers {moves}"
    numbers = [entry.number for index in indexes.values() for entry in index] + moves
    if len(numbers) != len(set(numbers)) or max(numbers, default=0) > life.job.last_sequence_number:
        yield "has two events with the same number, or an event with a number that was not reserved"
    for generation in life.generations:
        index = indexes[generation.attempt, generation.number]
        if event_index.covered(index) != len(generation.output or ""):
            yield f"attempt {generation.attempt} is not told as far as it was kept"
        until = claims.get(generation.attempt + 1, life.job.last_sequence_number + 1)
        if any(not claims[generation.attempt] < entry.number < until for entry in index):
            yield f"attempt {generation.attempt} was told before its begin or after the next one's"
    for attempt in life.attempts:
        last = [
            index[-1].number
            for (number, _), index in indexes.items()
            if number == attempt.number and index
        ]
        if attempt.valid_through != max(last, default=claims[attempt.number]):
            yield f"attempt {attempt.number} is kept through {attempt.valid_through}"


CHECKS: tuple[Callable[[Life, Limits], Iterator[str]], ...] = (
    _ends,
    _moves,
    _attempts,
    _counters,
    _result,
    _traces,
    _numbers,
    _stops,
)
