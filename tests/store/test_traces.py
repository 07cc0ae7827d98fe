"""A trace can be read at any time: while it grows, after its end, and when its worker was lost."""

from __future__ import annotations

import random
import threading
import uuid

from core.database import Database
from jobs.store import claims, expiry, settle, traces
from tests import factories
from tests.databases import Age


def begun(database: Database, account_id: uuid.UUID) -> claims.Claim:
    """Submit, claim and begin a job."""
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    assert factories.begin(database, claimed) is not None
    return claimed


def append(database: Database, claimed: claims.Claim, *texts: str, start: int = 0) -> None:
    """Append ``texts`` one after the other."""
    for position, text in enumerate(texts, start):
        lost = traces.append(
            database,
            owner=claimed.owner,
            pieces=[factories.make_piece(claimed, text, position=position)],
        )
        assert lost == set()


def test_a_job_that_has_not_begun_has_no_trace(database: Database, account_id: uuid.UUID) -> None:
    assert traces.read(database, factories.make_job(database, account_id)) == []


def test_a_growing_trace_is_read_as_far_as_it_is_written(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    assert [trace.text for trace in traces.read(database, claimed.job_id)] == [""]

    append(database, claimed, "Let me ", "look: 圆", " 🟢\n")

    [trace] = traces.read(database, claimed.job_id)
    assert (trace.attempt, trace.number) == (1, 0)
    assert (trace.text, trace.complete) == ("Let me look: 圆 🟢\n", False)
    assert (trace.output_tokens, trace.finish_reason, trace.ended_at) == (30, None, None)
    assert trace.first_token_at is not None


def test_the_first_piece_sets_the_jobs_first_token(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    assert factories.get_job(database, claimed.job_id).job.first_token_at is None
    piece = factories.make_piece(claimed, "Let me ")

    traces.append(database, owner=claimed.owner, pieces=[piece])
    append(database, claimed, "look", start=1)

    assert factories.get_job(database, claimed.job_id).job.first_token_at == piece.first_token_at


def test_a_piece_that_comes_twice_is_written_once(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)

    append(database, claimed, "once ")
    append(database, claimed, "once ")
    append(database, claimed, "and for all", start=1)

    assert [trace.text for trace in traces.read(database, claimed.job_id)] == ["once and for all"]


def test_the_whole_text_replaces_the_pieces_at_the_end(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    append(database, claimed, "Let me ", "look")
    ended = factories.make_ended("Let me look at it.")

    settle.succeed(database, claimed, answer=None, generation=ended)

    [trace] = traces.read(database, claimed.job_id)
    assert (trace.text, trace.complete, trace.finish_reason) == ("Let me look at it.", True, "stop")
    assert (trace.input_tokens, trace.cached_tokens, trace.image_tokens) == (50, 40, 4)
    assert (trace.output_tokens, trace.ended_at) == (11, ended.ended_at)


def test_every_attempts_trace_stays(database: Database, account_id: uuid.UUID, age: Age) -> None:
    claimed = begun(database, account_id)
    append(database, claimed, "first try")
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))
    age(10)
    second = factories.claim(database)
    factories.begin(database, second)
    append(database, second, "second")

    every = traces.read(database, claimed.job_id)

    assert [(trace.attempt, trace.text, trace.complete) for trace in every] == [
        (1, "first try", True),
        (2, "second", False),
    ]
    assert traces.read(database, claimed.job_id, attempt=2) == every[1:]
    assert traces.read(database, claimed.job_id, attempt=3) == []


def test_the_text_does_not_show_in_any_repr(database: Database, account_id: uuid.UUID) -> None:
    claimed = begun(database, account_id)
    piece = factories.make_piece(claimed, "a secret thought")
    traces.append(database, owner=claimed.owner, pieces=[piece])

    assert "secret" not in repr(piece)
    assert "secret" not in repr(factories.make_ended("a secret thought"))
    assert "secret" not in repr(traces.read(database, claimed.job_id))


def test_a_reader_never_sees_a_trace_shrink_while_it_grows_and_ends(
    database: Database, account_id: uuid.UUID
) -> None:
    claimed = begun(database, account_id)
    words = [f"word{n} " for n in range(40)]
    lengths: list[int] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            lengths.append(len(traces.read(database, claimed.job_id)[0].text))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        append(database, claimed, *words)
        settle.succeed(
            database, claimed, answer=None, generation=factories.make_ended("".join(words))
        )
    finally:
        stop.set()
        reader.join(30)

    assert lengths == sorted(lengths)
    assert traces.read(database, claimed.job_id)[0].text == "".join(words)
