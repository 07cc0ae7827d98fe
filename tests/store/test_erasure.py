"""Unique words in every place where a job's content is stored are in no file of the database after an erasure."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database
from jobs import filters
from jobs.answers.extraction import Answer
from jobs.filters import Filter
from jobs.lifecycle import Role, Status
from jobs.records.accounts import Account
from jobs.records.jobs import Job
from jobs.store import (
    accounts,
    erased_accounts,
    erasure,
    history,
    retention,
    search,
    settle,
    submission,
    traces,
)
from jobs.store import purge as retention_purge
from tests import databases, factories, webhooks
from tests.databases import ROOT, Age
from webhooks import attempts, purge, redelivery, secrets
from webhooks.endpoints import StoredSecret
from webhooks.policy import AttemptOutcome, Webhook

ACTOR = "operator:test"
#: A part that all words share, and that nothing else has.
CANARY = "zanzibarcanary"
PLACES = (
    *("question", "choice", "metakey", "metavalue", "key", "trace", "answer"),
    *("url", "response", "image"),
)
_ERASE = """
import sys
from core import ids
from core import errors, ids
from core.database import Database
from jobs.filters import Filter
from jobs.store import accounts, erasure
from webhooks import purge
erasure.BATCH = 2
database = Database(sys.argv[1])
account_id = accounts.account_id(database, "customer")
erasure.erase_account(
    database, account_id, actor="operator:child",
    remove_copies=purge.reduce_jobs, remove_account=purge.remove_account,
    progress=lambda jobs: print(jobs, flush=True),
)
"""


def word(place: str) -> str:
    """Return the word of a place. It starts with the place: an index stores what words begin with only once."""
    return f"{place}{CANARY}"


def run_job(database: Database, account_id: uuid.UUID, *, salt: str = "") -> uuid.UUID:
    """Run a job to its end that has a canary word in each place, and deliver its webhooks."""
    image = factories.make_image(f"{word('image')}{salt}".encode())
    webhook = Webhook(url=f"https://a.example/{word('url')}")
    job_id = factories.make_job(
        database,
        account_id,
        question=f"How many {word('question')}?",
        images=[(image, 4)],
        options={"answer_format": {"type": "choice", "options": [word("choice"), "no"]}},
        metadata={word("metakey"): word("metavalue"), "case": "1"},
        idempotency_key=f"{word('key')}{salt}",
        fingerprint="f",
        webhook=webhook.plain(),
    )
    claimed = factories.claim(database)
    assert claimed.job_id == job_id
    factories.begin(database, claimed)
    text = f"I see {word('trace')}."
    traces.append(database, owner=claimed.owner, pieces=[factories.make_piece(claimed, text)])
    answer = Answer(word("answer"), "boxed")
    assert settle.succeed(
        database, claimed, answer=answer, generation=factories.make_ended(f"{text} {answer.text}")
    )
    webhooks.fan_out(database)
    for claim in webhooks.claim(database):
        delivered = attempts.AttemptResult(
            outcome=AttemptOutcome.DELIVERED,
            headers={},
            status_code=200,
            response_body=word("response").encode(),
            error_code=None,
            seconds=0.1,
            address="192.0.2.1",
            retry_after=None,
        )
        assert attempts.settle(database, claim, delivered, rng=webhooks.RNG) is not None
    return job_id


def found(database: Database) -> set[str]:
    """Return the places whose words the files of the database have; on PostgreSQL, all its rows."""
    if database.dialect == "sqlite":
        path = str(database.url.database)
        stored = b"".join(
            file.read_bytes() for file in (Path(path), Path(f"{path}-wal")) if file.exists()
        )
        stored = stored.lower()
        return {place for place in PLACES if word(place).encode() in stored}
    with database.reading() as transaction:
        tables = transaction.execute(
            sa.text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
        ).scalars()
        rows = [
            str(text)
            for name in tables.all()
            for text in transaction.execute(
                sa.text(f'SELECT CAST(t AS text) FROM "{name}" t')
            ).scalars()
        ]
    stored_text = "\n".join(rows)
    return {
        place
        for place in PLACES
        if word(place) in stored_text or word(place).encode().hex() in stored_text
    }


def finish(database: Database) -> None:
    """Do what the background does after an erasure."""
    cleaning = search.Cleaning(database)
    while cleaning.step():
        pass
    assert not cleaning.needed()


def test_each_place_is_searched(database: Database, account_id: uuid.UUID) -> None:
    run_job(database, account_id)

    assert found(database) == set(PLACES)


@pytest.mark.parametrize("how", ["delete", "retention", "query", "account"])
def test_no_word_of_a_removed_job_is_left(
    database: Database, account_id: uuid.UUID, age: Age, how: str
) -> None:
    job_id = run_job(database, account_id)

    match how:
        case "delete":
            assert retention.remove_job(
                database, job_id, account_id=None, actor=ACTOR, remove_copies=purge.reduce_jobs
            )
        case "retention":
            age(86_400.0 * 31)
            days = timedelta(days=30)
            periods = retention_purge.Periods(image=days, trace=days, answer=days, timeline=days)
            retention_purge.batch(database, periods, actor=ACTOR)
            purge.batch(database, periods)
        case "query":
            requested = filters.parse("meta.case:1", now=database.clock())
            [removed] = erasure.erase_jobs(
                database, requested, actor=ACTOR, remove_copies=purge.reduce_jobs
            )
            assert (removed.jobs, removed.images) == (1, 1)
        case _:
            done = erasure.erase_account(
                database,
                account_id,
                actor=ACTOR,
                remove_copies=purge.reduce_jobs,
                remove_account=purge.remove_account,
            )
            assert (done.jobs, done.images, done.running) == (1, 1, 0)
    finish(database)

    assert found(database) == set()
    left = factories.get_job(database, job_id).job
    assert (left.status, left.output_tokens, left.metadata_) == (Status.SUCCEEDED, 11, {})
    assert left.options["answer_format"] == {"type": "choice"}


def test_an_erasure_leaves_what_other_jobs_need(database: Database, account_id: uuid.UUID) -> None:
    shared = factories.make_image(b"shared")
    for case in ("1", "2"):
        factories.make_job(database, account_id, images=[(shared, 4)], metadata={"case": case})
        assert settle.stop(database, factories.claim(database), generation=None) is not None
    requested = filters.parse("meta.case:1", now=database.clock())

    removed = list(
        erasure.erase_jobs(database, requested, actor=ACTOR, remove_copies=purge.reduce_jobs)
    )

    assert [(batch.jobs, batch.images) for batch in removed] == [(1, 0)]
    others = filters.parse("meta.case:2", now=database.clock())
    assert len(history.erasable(database, others, limit=10)) == 1


def test_a_key_can_be_used_again_after_an_erasure(
    database: Database, account_id: uuid.UUID
) -> None:
    first = run_job(database, account_id)
    assert retention.remove_job(database, first, account_id=None, actor=ACTOR)

    assert run_job(database, account_id) != first


def test_an_unsent_notification_keeps_its_url_until_it_is_sent(
    database: Database, account_id: uuid.UUID
) -> None:
    url = f"https://a.example/{word('url')}"
    job_id = factories.make_job(database, account_id, webhook=Webhook(url=url).plain())
    assert settle.stop(database, factories.claim(database), generation=None)
    assert retention.remove_job(
        database, job_id, account_id=None, actor=ACTOR, remove_copies=purge.reduce_jobs
    )

    webhooks.fan_out(database)
    [claim] = webhooks.claim(database)

    assert claim.url == url
    assert attempts.settle(database, claim, webhooks.OK, rng=webhooks.RNG) is not None
    finish(database)
    assert found(database) == set()


def test_an_account_with_a_running_job_is_erased_once_it_has_ended(
    database: Database, account_id: uuid.UUID
) -> None:
    factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.make_job(database, account_id)

    def erase() -> erasure.AccountErased:
        return erasure.erase_account(
            database,
            account_id,
            actor=ACTOR,
            remove_copies=purge.reduce_jobs,
            remove_account=purge.remove_account,
        )

    first = erase()
    assert settle.stop(database, claimed, generation=None)
    second = erase()

    assert (first.jobs, first.cancelled, first.running) == (1, 2, 1)
    assert (second.jobs, second.running) == (1, 0)
    assert erase() == erasure.AccountErased()


def test_what_a_request_stores_during_or_after_the_erasure_of_its_account_does_not_stay(
    database: Database, account_id: uuid.UUID
) -> None:
    """A request may have been accepted before its key was revoked, and wait for images."""

    def remove_account(database: Database, account_id: uuid.UUID) -> int:
        # The last step before the names.
        if not late:
            late.append(factories.make_job(database, account_id))
        return purge.remove_account(database, account_id)

    late: list[uuid.UUID] = []
    erasure.erase_account(
        database,
        account_id,
        actor=ACTOR,
        remove_copies=purge.reduce_jobs,
        remove_account=remove_account,
    )

    assert factories.get_job(database, late[0]).job.question is None
    with pytest.raises(errors.Unauthenticated):
        factories.make_job(database, account_id)
    with pytest.raises(errors.Unauthenticated):
        submission.store_image(database, account_id=account_id, image=factories.make_image())
    with pytest.raises(errors.Unauthenticated):
        webhooks.make_endpoint(database, account_id)
    with pytest.raises(errors.Unauthenticated):
        secrets.rotate_default(
            database, account_id, secret=StoredSecret(sealed=b"sealed", redacted="…")
        )
    assert history.unfinished(database, Filter(account_id=account_id), limit=1) == []


def test_a_key_that_is_created_during_or_after_the_erasure_of_its_account_does_not_work(
    database: Database,
) -> None:
    account_id = factories.make_account(database, "customer")

    def create(name: str) -> str:
        key = accounts.new_key()
        accounts.create_key(
            database, key, pepper=factories.PEPPER, account=name, role=Role.SUBMIT, name="late"
        )
        return key

    def remove_account(database: Database, account_id: uuid.UUID) -> int:
        if not late:
            late.append(create("customer"))
        return purge.remove_account(database, account_id)

    late: list[str] = []
    erasure.erase_account(
        database,
        account_id,
        actor=ACTOR,
        remove_copies=purge.reduce_jobs,
        remove_account=remove_account,
    )

    assert accounts.authenticate(database, late[0], peppers=[factories.PEPPER]) is None
    rows = [row for row in accounts.keys(database) if row.account_id == account_id]
    assert {row.name for row in rows} == {""}
    for name in (ids.show("acct", account_id), erased_accounts.name(account_id)):
        with pytest.raises(errors.NotFound, match="There is no such account"):
            create(name)
    assert [row for row in accounts.keys(database) if row.account_id == account_id] == rows


def test_no_account_gets_the_name_of_an_erased_one(database: Database) -> None:
    account_id = factories.make_account(database, "customer")

    with pytest.raises(errors.NotFound):
        factories.make_account(database, erased_accounts.name(account_id))

    erasure.erase_account(
        database,
        account_id,
        actor=ACTOR,
        remove_copies=purge.reduce_jobs,
        remove_account=purge.remove_account,
    )


def test_an_erasure_that_is_killed_continues_and_its_counts_add_up(
    database: Database,
) -> None:
    account_id = factories.make_account(database, "customer")
    other = factories.make_account(database, "other")
    jobs = [run_job(database, account_id, salt=f"{number:02}") for number in range(9)]
    kept = run_job(database, other)
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _ERASE, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "2\n"
        child.send_signal(signal.SIGKILL)
    databases.wait_until_idle(database)
    with database.reading() as transaction:
        erased = transaction.scalar(
            sa.select(sa.func.count()).where(
                Job.account_id == account_id, Job.data_removed_at.is_not(None)
            )
        )

    done = erasure.erase_account(
        database,
        account_id,
        actor=ACTOR,
        remove_copies=purge.reduce_jobs,
        remove_account=purge.remove_account,
    )

    assert erased >= 2
    assert erased + done.jobs == len(jobs)
    assert factories.get_job(database, kept).job.question is not None
    with database.reading() as transaction:
        name = transaction.scalar(sa.select(Account.name).where(Account.id == account_id))
    assert name.startswith("erased-acct_")
    with contextlib.suppress(LookupError):
        assert accounts.account_id(database, "other") == other


def test_a_delivery_whose_url_was_removed_is_not_sent_again(
    database: Database, account_id: uuid.UUID
) -> None:
    job_id = run_job(database, account_id)
    [delivery] = webhooks.all_deliveries(database)
    assert redelivery.redeliver(database, delivery.id, account_id=None) is not None
    [again] = webhooks.claim(database)
    assert attempts.settle(database, again, webhooks.OK, rng=webhooks.RNG) is not None
    assert retention.remove_job(
        database, job_id, account_id=None, actor=ACTOR, remove_copies=purge.reduce_jobs
    )

    with pytest.raises(errors.Conflict, match="URL of this delivery was removed"):
        redelivery.redeliver(database, delivery.id, account_id=None)

    assert [one.url for one in webhooks.all_deliveries(database)] == ["https://a.example"]
