"""Jobs are found by phrases in their questions, answers and traces, by their own account, as long as these are kept."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import ids
from core.database import Database
from jobs import phrases
from jobs.answers.extraction import Answer
from jobs.lifecycle import Status
from jobs.phrases import Part
from jobs.records.jobs import Job
from jobs.records.search import SearchText
from jobs.store import (
    commands,
    contents,
    expiry,
    history,
    purge,
    retention,
    search,
    settle,
    submission,
    traces,
)
from tests import databases, factories
from tests.databases import Age

ACTOR = "key:test"
TRACE = "Let me look.\nI see 六个圆形 and one red star: 3.14 of it.\n**Final Answer** \\boxed{6}"


def found(
    database: Database, *wanted: str, account_id: uuid.UUID | None = None, limit: int = 100
) -> list[uuid.UUID]:
    """Return the jobs in which all of ``wanted`` are, oldest first."""
    requested = history.Filter(account_id=account_id, phrases=wanted)
    views, _ = history.page(database, requested, limit=limit, newest_first=False)
    return [view.job.id for view in views]


def finished(
    database: Database, account_id: uuid.UUID, *, trace: str = TRACE, **facts: object
) -> uuid.UUID:
    """Submit a job and run it to its end."""
    job_id = factories.make_job(database, account_id, **facts)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    answer = Answer(text="六个 pelicans", rule="heading")
    assert settle.succeed(database, claimed, answer=answer, generation=factories.make_ended(trace))
    return job_id


def stored(database: Database) -> list[Part]:
    """Return the parts that can be searched, of all jobs."""
    with database.reading() as transaction:
        return sorted(transaction.session.scalars(sa.select(SearchText.part)))


@pytest.mark.parametrize(
    "phrase",
    [
        "circles", "many circ", "HOW MANY", "how\n many  circles are there?",  # in the question
        "pelicans", "六个 pel",  # in the answer
        "let me", "look. I see", "六个", "个圆形", "see 六", "圆形 and one", "star: 3.14", "\\boxed{6}",  # in the trace
        "\uff33ee 六个圆",
    ],
)  # fmt: skip
def test_a_job_is_found_by_what_is_in_it(
    database: Database, account_id: uuid.UUID, phrase: str
) -> None:
    job_id = finished(database, account_id)

    assert found(database, phrase, account_id=account_id) == [job_id]
    assert found(database, phrase) == [job_id]


@pytest.mark.parametrize(
    "phrase",
    ["ircles", "many are", "star, 3.14", "star 3.14", "boxed 6", "六形", "圆个", "circles pelicans", "squares"],
)  # fmt: skip
def test_a_job_is_not_found_by_what_is_not_in_it_like_that(
    database: Database, account_id: uuid.UUID, phrase: str
) -> None:
    finished(database, account_id)

    assert found(database, phrase, account_id=account_id) == []


def test_several_phrases_may_be_in_different_parts_and_all_have_to_be_there(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = finished(database, account_id)

    assert found(database, "how many", "pelicans", "red star") == [job_id]
    assert found(database, "how many", "blue star") == []


def test_no_account_finds_a_job_of_another_one(database: Database, account_id: uuid.UUID) -> None:
    finished(database, account_id)
    other = factories.make_account(database)

    assert found(database, "red star", account_id=other) == []
    assert found(database, account_id.hex, account_id=other) == []
    assert found(database, str(account_id)) == []


def test_a_question_is_found_at_once_and_a_trace_when_its_attempt_has_ended(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    job_id = factories.make_job(database, account_id)
    assert found(database, "circles") == [job_id]
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    piece = factories.make_piece(claimed, "A zebra")
    traces.append(database, owner=claimed.owner, pieces=[piece])
    assert found(database, "zebra") == []

    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=1, rng=random.Random(1))

    assert factories.get_job(database, job_id).job.status is Status.FAILED
    assert found(database, "zebra") == [job_id]


def test_who_has_lost_the_job_leaves_nothing_to_be_found(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    factories.make_job(database, account_id)
    zombie = factories.claim(database)
    factories.begin(database, zombie)
    age(61)
    expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))

    answer = Answer(text="a yeti", rule="heading")
    assert not settle.succeed(
        database, zombie, answer=answer, generation=factories.make_ended("A zebra")
    )

    assert found(database, "zebra") == found(database, "yeti") == []


@pytest.mark.parametrize("end", ["failed", "cancelled", "retried"])
def test_whatever_the_end_what_was_said_is_found(
    database: Database, account_id: uuid.UUID, end: str
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    generation = factories.make_ended("I see a zebra")
    fault = settle.Failure("engine_fault", "It broke.", retryable=True)
    match end:
        case "failed":
            assert settle.fail(database, claimed, fault, generation=generation)
        case "cancelled":
            assert settle.stop(database, claimed, generation=generation)
        case _:
            rng = random.Random(1)
            assert settle.retry(database, claimed, fault, generation=generation, rng=rng)
            commands.cancel(database, job_id, account_id=None, actor=ACTOR)

    assert found(database, "a zebra") == [job_id]


def test_a_deleted_job_is_found_no_more_and_nothing_of_it_is_left(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = finished(database, account_id)
    other = finished(database, account_id)

    assert retention.remove_job(database, job_id, account_id=account_id, actor=ACTOR)

    assert stored(database) == [Part.ANSWER, Part.QUESTION, Part.TRACE]
    for phrase in ("circles", "pelicans", "red star"):
        assert found(database, phrase) == [other]


@pytest.mark.parametrize(
    ("periods", "gone"),
    [
        (purge.Periods(trace=timedelta(days=1)), {"red star"}),
        (purge.Periods(answer=timedelta(days=1)), {"circles", "pelicans"}),
    ],
    ids=["trace", "answer"],
)
def test_retention_takes_what_can_be_found_with_what_it_takes_away(
    database: Database,
    account_id: uuid.UUID,
    age: Age,
    periods: purge.Periods,
    gone: set[str],
) -> None:
    job_id = finished(database, account_id)
    age(2 * 86_400)

    purge.batch(database, periods, actor="sweeper:test")

    for phrase in ("circles", "pelicans", "red star"):
        assert found(database, phrase) == ([] if phrase in gone else [job_id])


def test_the_index_agrees_with_a_look_at_every_text(
    database: Database, account_id: uuid.UUID
) -> None:
    """Texts of all kinds of neighbours, against the definition: a substring, from the beginning of a word on."""
    rng = random.Random(7)
    bits = [
        "ab",
        "abc",
        "12",
        "3",
        "圆",
        "圆形",
        "形的圆",
        "る",
        " ",
        " ",
        ".",
        "-",
        "_",
        "/",
        "\n",
        "@",
        "1e5",
        ":",
    ]
    texts = ["".join(rng.choices(bits, k=rng.randint(3, 25))) for _ in range(150)]
    jobs = []
    with database.transaction() as transaction:
        for text in texts:
            jobs.append(ids.new())
            rows = factories.job_rows(account_id, [{"id": jobs[-1], "question": text}])
            transaction.execute(sa.insert(Job), rows)
            search.add(transaction, jobs[-1], Part.TRACE, text)
    tried = 0
    for text in texts:
        words = [at for at in range(len(text)) if at == 0 or not text[at - 1].isalnum()]
        start = rng.choice(words)
        wanted = text[start : start + rng.randint(2, 12)]
        try:
            spelling = phrases.Phrase.of(wanted).spelling
        except ValueError:
            continue
        tried += 1
        there = [
            job
            for job, other in zip(jobs, texts, strict=True)
            if any(spelling in piece for piece in phrases.spellings(other))
        ]
        hits = found(database, wanted, account_id=account_id, limit=1000)
        assert jobs[texts.index(text)] in hits, wanted
        assert set(hits) <= set(there), wanted
    assert tried > 75


def test_a_phrase_that_very_many_jobs_hold_is_found_page_by_page(
    database: Database, account_id: uuid.UUID
) -> None:
    rows = factories.job_rows(account_id, [{} for _ in range(1_200)])
    with database.transaction() as transaction:
        transaction.execute(sa.insert(Job), rows)
        for row in rows:
            odd = " zebra" if row is rows[600] else ""
            search.add(transaction, row["id"], Part.TRACE, f"A look at it{odd}.")
    requested = history.Filter(account_id=account_id, phrases=("look at it", "a look"))

    views, more = history.page(database, requested, limit=7, after=rows[500]["id"])

    assert [view.job.id for view in views] == [row["id"] for row in rows[499:492:-1]]
    assert more
    assert found(database, "look at it zebra", account_id=account_id) == [rows[600]["id"]]


def test_a_very_long_trace_is_searched_to_its_end(
    database: Database, account_id: uuid.UUID
) -> None:
    rng = random.Random(3)
    han = "".join(chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(120_000))
    job_id = finished(database, account_id, trace=f"{han} zebra")

    assert found(database, han[-10:] + " zebra") == [job_id]
    assert found(database, han[49_990:50_010]) == [job_id]


@pytest.fixture
def before(database: Database, account_id: uuid.UUID) -> list[uuid.UUID]:
    """Return jobs from before there was a search: finished, deleted, with a trace taken away, queued."""
    whole, deleted, traceless = (finished(database, account_id) for _ in range(3))
    retention.remove_job(database, deleted, account_id=None, actor=ACTOR)
    with database.transaction() as transaction:
        contents.remove_traces(transaction, [traceless])
    queued = factories.make_job(database, account_id)
    with database.transaction() as transaction:
        transaction.execute(sa.delete(SearchText))
    return [whole, traceless, queued]


def test_old_jobs_are_found_once_their_texts_have_been_written_anew(
    database: Database, before: list[uuid.UUID]
) -> None:
    whole, traceless, queued = before
    assert found(database, "circles") == []

    for _ in range(2):  # Once more changes nothing.
        last = None
        while (last := search.rebuild(database, after=last, limit=2)) is not None:
            pass
        assert found(database, "circles") == [whole, traceless, queued]
        assert found(database, "pelicans") == [whole, traceless]
        assert found(database, "red star") == [whole]
        assert len(stored(database)) == 6


def test_a_job_that_ends_after_its_texts_were_written_anew_is_found_by_all_of_them(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    search.rebuild(database)

    assert settle.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended("A zebra")
    )

    assert found(database, "circles", "zebra") == [job_id]
    assert stored(database) == [Part.ANSWER, Part.QUESTION, Part.TRACE]


def test_each_question_of_a_group_is_found_alone(database: Database, account_id: uuid.UUID) -> None:
    followers = [submission.Follower("Which zebras?", {})]
    leader = factories.make_job(database, account_id, followers=followers)

    views = history.group(database, leader, account_id=account_id)

    assert found(database, "circles") == [leader]
    assert found(database, "zebras") == [views[1].job.id]


@pytest.mark.parametrize("dialect", ["sqlite"])
def test_on_sqlite_the_index_is_in_step_with_the_texts(
    database: Database, account_id: uuid.UUID
) -> None:
    finished(database, account_id)
    retention.remove_job(database, finished(database, account_id), account_id=None, actor=ACTOR)

    with database.transaction() as transaction:
        check = "INSERT INTO search_index (search_index, rank) VALUES ('integrity-check', 1)"
        transaction.execute(sa.text(check))
        with pytest.raises(sa.exc.IntegrityError, match="must not be updated"):
            transaction.execute(sa.update(SearchText).values(text="other"))
    databases.empty(database)
    with database.reading() as transaction:
        rows = transaction.execute(
            sa.text("SELECT count(*) FROM search_index WHERE search_index MATCH 'text : see'")
        )
        assert rows.scalar_one() == 0
