"""What each account stores is counted as it comes and goes, and held to a quota."""

from __future__ import annotations

import dataclasses
import random
import threading
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from core import errors
from core.database import Database
from jobs.answers.extraction import Answer
from jobs.images import CanonicalImage
from jobs.records.accounts import StorageChange, StorageTotal
from jobs.store import claims, expiry, purge, retention, search, settle, storage, submission, traces
from jobs.store.storage import StorageKind
from tests import factories, webhooks
from tests.fakes import HandTimer
from webhooks.purge import reduce_jobs
from webhooks.storage import COUNTER

MIB = 2**20
TRACE = "Let me look at the picture again. " * 40


def used(database: Database, account_id: uuid.UUID) -> dict[StorageKind, int]:
    """Return what the account is said to store."""
    found = storage.usage(database, account_id, default_mb=0)
    return dict(found.by_kind)


def held(database: Database, account_id: uuid.UUID) -> dict[StorageKind, int]:
    """Return what the account's rows hold, counted one by one."""
    with database.reading() as transaction:
        found = storage.stored(transaction, account_id, counters=[COUNTER])
    return {kind: found[kind] for kind in StorageKind}


def submitted(number: int = 0, *, size: int = 1_000) -> CanonicalImage:
    """Return an image of ``size`` canonical bytes."""
    return factories.make_image(f"picture {number}".encode(), data=bytes([number % 256]) * size)


def answered(database: Database, account_id: uuid.UUID, number: int = 0) -> uuid.UUID:
    """Return a job that was asked about a picture of 1,000 bytes and answered."""
    job_id = factories.make_job(database, account_id, images=[(submitted(number), 4)])
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    assert settle.succeed(
        database,
        claimed,
        answer=Answer("6", "boxed"),
        generation=factories.make_ended(TRACE),
    )
    return job_id


def test_each_kind_is_counted_in_bytes(database: Database, account_id: uuid.UUID) -> None:
    assert set(used(database, account_id).values()) == {0}

    question = "Wie viele Würfel? 你好"
    factories.make_job(database, account_id, question=question, images=[(submitted(), 4)])

    queued = used(database, account_id)
    assert queued == held(database, account_id)
    assert queued[StorageKind.IMAGES] == 1_000
    assert queued[StorageKind.JOBS] >= len(question.encode())
    assert queued[StorageKind.TRACES] == queued[StorageKind.DELIVERIES] == 0

    claimed = factories.claim(database)
    factories.begin(database, claimed)
    assert settle.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended(TRACE)
    )

    ended = used(database, account_id)
    assert ended == held(database, account_id)
    # The text and the copy that searches read.
    assert ended[StorageKind.TRACES] >= 2 * len(TRACE.encode())
    assert ended[StorageKind.JOBS] > queued[StorageKind.JOBS]


def test_an_image_counts_once_for_each_account(database: Database, account_id: uuid.UUID) -> None:
    other = factories.make_account(database)
    for owner in (account_id, account_id, other):
        submission.store_image(database, account_id=owner, image=submitted())
    factories.make_job(database, account_id, images=[(submitted(), 4)])

    assert used(database, account_id)[StorageKind.IMAGES] == 1_000
    expected = {StorageKind.IMAGES: 1_000, StorageKind.RECORDS: 512}
    assert used(database, other) == dict.fromkeys(StorageKind, 0) | expected


def test_what_is_deleted_is_free_again(database: Database, account_id: uuid.UUID) -> None:
    job_id = answered(database, account_id)
    image_id = submission.store_image(database, account_id=account_id, image=submitted(1))

    assert retention.remove_job(database, job_id, account_id=account_id, actor="key:test")
    assert retention.remove_image(database, image_id, account_id=account_id)

    left = used(database, account_id)
    assert left == held(database, account_id)
    assert (left[StorageKind.IMAGES], left[StorageKind.TRACES]) == (0, 0)
    assert left[StorageKind.JOBS] == 0
    # Of a job and two images.
    assert 2 * 1024 < left[StorageKind.RECORDS] < 3 * 1024


def test_retention_frees_what_it_takes(
    database: Database, account_id: uuid.UUID, age: Callable[[float], None]
) -> None:
    answered(database, account_id)
    age(3600)
    period = timedelta(minutes=1)
    before = used(database, account_id)

    purge.batch(database, purge.Periods(trace=period), actor="sweeper:test")
    without_trace = used(database, account_id)
    purge.batch(database, purge.Periods(image=period, answer=period), actor="sweeper:test")
    without_all = used(database, account_id)

    assert without_trace == before | {StorageKind.TRACES: 0}
    assert without_all[StorageKind.IMAGES] == 0
    assert without_all[StorageKind.JOBS] == 0
    assert without_all[StorageKind.RECORDS] == before[StorageKind.RECORDS]
    assert without_all == held(database, account_id)


class Life:
    """What happens to two accounts, at random."""

    def __init__(self, database: Database, accounts: list[uuid.UUID]) -> None:
        self.database = database
        self.accounts = accounts
        self.rng = random.Random(11)
        self.jobs: list[uuid.UUID] = []

    def go_on(self) -> None:
        """Let one thing happen."""
        acts = [self.submit, self.run, self.lose, self.delete, self.upload, self.fold]
        self.rng.choice(acts)()

    def submit(self) -> None:
        """Ask about one of four pictures."""
        owner = self.rng.choice(self.accounts)
        image = submitted(self.rng.randrange(4))
        self.jobs.append(factories.make_job(self.database, owner, images=[(image, 4)]))

    def run(self) -> None:
        """Run the next job to one of its ends."""
        self.submit()
        claimed = factories.claim(self.database)
        factories.begin(self.database, claimed)
        piece = factories.make_piece(claimed, "Let me see. ")
        traces.append(self.database, owner=claimed.owner, pieces=[piece])
        ended = factories.make_ended(TRACE[: self.rng.randrange(1, len(TRACE))])
        self.rng.choice([self.succeed, self.fail, self.stop, self.release])(claimed, ended)

    def succeed(self, claimed: claims.Claim, ended: traces.GenerationEnd) -> None:
        """End it with an answer."""
        settle.succeed(self.database, claimed, answer=Answer("6", "boxed"), generation=ended)

    def fail(self, claimed: claims.Claim, ended: traces.GenerationEnd) -> None:
        """End it without one."""
        fault = settle.Failure("engine_rejected", "No.")
        settle.fail(self.database, claimed, fault, generation=ended)

    def stop(self, claimed: claims.Claim, _ended: traces.GenerationEnd) -> None:
        """Cancel it."""
        settle.stop(self.database, claimed, generation=None)

    def release(self, claimed: claims.Claim, ended: traces.GenerationEnd) -> None:
        """Give it back."""
        settle.release(self.database, claimed, generation=ended)

    def lose(self) -> None:
        """Let its worker be lost, with what was written of its trace."""
        self.submit()
        lost = factories.claim(self.database, "gone", lease=timedelta(seconds=-1))
        factories.begin(self.database, lost)
        piece = factories.make_piece(lost, "It is ")
        traces.append(self.database, owner="gone", pieces=[piece])
        expiry.sweep(self.database, actor="sweeper:test", crash_limit=3, rng=self.rng)

    def delete(self) -> None:
        """Delete a job, if it has ended."""
        if not self.jobs:
            return
        job_id = self.rng.choice(self.jobs)
        if factories.get_job(self.database, job_id).job.status.terminal:
            retention.remove_job(self.database, job_id, account_id=None, actor="key:test")

    def upload(self) -> None:
        """Upload one of the same four pictures."""
        image = submitted(self.rng.randrange(4))
        submission.store_image(
            self.database, account_id=self.rng.choice(self.accounts), image=image
        )

    def fold(self) -> None:
        """Fold what has changed."""
        storage.fold(self.database)


def test_through_any_life_the_count_is_the_sum(database: Database, account_id: uuid.UUID) -> None:
    accounts = [account_id, factories.make_account(database)]
    life = Life(database, accounts)

    for _ in range(60):
        life.go_on()
    search.rebuild(database)

    counted = [used(database, owner) for owner in accounts]
    assert counted == [held(database, owner) for owner in accounts]
    assert all(one[StorageKind.TRACES] for one in counted)


def test_notifications_and_responses_are_counted_and_removed_with_the_answer(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    job_id = webhooks.run_job(database, account_id, answer="the answer " * 100)
    webhooks.fan_out(database)
    reported = used(database, account_id)
    webhooks.try_once(database, dataclasses.replace(webhooks.OK, response_body=b"x" * 5_000))
    woken = used(database, account_id)

    assert reported[StorageKind.DELIVERIES] > 1_000
    assert woken[StorageKind.DELIVERIES] >= reported[StorageKind.DELIVERIES] + 5_000
    assert woken == held(database, account_id)

    retention.remove_job(
        database, job_id, account_id=account_id, actor="key:test", remove_copies=reduce_jobs
    )

    left = used(database, account_id)
    assert left == held(database, account_id)
    assert left[StorageKind.DELIVERIES] < reported[StorageKind.DELIVERIES]


def test_what_is_rolled_back_is_not_counted(database: Database, account_id: uuid.UUID) -> None:
    wanted = factories.make_submission(account_id, images=[(submitted(), 4), (uuid.uuid4(), 4)])

    with pytest.raises(errors.NotFound):
        submission.submit(database, wanted, key_lifetime=factories.KEY_LIFETIME)

    assert set(used(database, account_id).values()) == {0}


def test_folding_changes_nothing_but_where_it_is_read(
    database: Database, account_id: uuid.UUID
) -> None:
    answered(database, account_id)
    before = used(database, account_id)

    assert storage.fold(database) > 0
    assert storage.fold(database) == 0

    assert used(database, account_id) == before
    with database.reading() as transaction:
        assert transaction.session.query(StorageChange).count() == 0
        assert transaction.session.query(StorageTotal).count() == 4


def test_many_fold_at_once_and_each_change_counts_once(
    database: Database, account_id: uuid.UUID
) -> None:
    for number in range(20):
        submission.store_image(database, account_id=account_id, image=submitted(number))
    barrier = threading.Barrier(4)

    def fold() -> None:
        barrier.wait()
        while storage.fold(database):
            pass

    threads = [threading.Thread(target=fold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20, 30):
        submission.store_image(database, account_id=account_id, image=submitted(number))
    for thread in threads:
        thread.join()

    assert used(database, account_id)[StorageKind.IMAGES] == 30 * 1_000


def forget_the_count(database: Database) -> None:
    """Lose what was counted, as a restore without the count does."""
    with database.transaction() as transaction:
        transaction.execute(sa.delete(StorageChange))
        transaction.execute(sa.delete(StorageTotal))


def test_a_count_that_was_lost_is_corrected_by_a_recount(
    database: Database, account_id: uuid.UUID
) -> None:
    retained = answered(database, account_id, 1)
    gone = answered(database, account_id, 2)
    forget_the_count(database)
    # What goes and was not counted is not less than nothing.
    retention.remove_job(database, gone, account_id=None, actor="key:test")
    assert used(database, account_id)[StorageKind.IMAGES] == 0

    assert storage.recount(database, account_id, counters=[COUNTER])

    assert used(database, account_id) == held(database, account_id)
    assert used(database, account_id)[StorageKind.IMAGES] == 1_000
    assert factories.get_job(database, retained).job.answer_text == "6"


def test_a_recount_leaves_a_kind_that_it_does_not_count(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.fan_out(database)
    with database.transaction() as transaction:
        wrong = [
            {"account_id": account_id, "kind": kind, "bytes": 7}
            for kind in (StorageKind.DELIVERIES, StorageKind.JOBS)
        ]
        transaction.execute(sa.insert(StorageChange), wrong)
    right = held(database, account_id)

    assert storage.recount(database, account_id)

    seven_more = right[StorageKind.DELIVERIES] + 7
    assert used(database, account_id) == right | {StorageKind.DELIVERIES: seven_more}
    assert storage.recount(database, account_id, counters=[COUNTER])
    assert used(database, account_id) == right


def test_concurrent_recounts_and_new_images_correct_the_count_once(
    database: Database, account_id: uuid.UUID
) -> None:
    for number in range(5):
        submission.store_image(database, account_id=account_id, image=submitted(number))
    forget_the_count(database)
    barrier = threading.Barrier(4)
    done: list[bool] = []

    def recount() -> None:
        barrier.wait()
        done.append(storage.recount(database, account_id, counters=[COUNTER]))

    def upload() -> None:
        barrier.wait()
        for number in range(5, 15):
            submission.store_image(database, account_id=account_id, image=submitted(number))

    threads = [threading.Thread(target=recount) for _ in range(3)]
    threads.append(threading.Thread(target=upload))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert any(done)
    assert used(database, account_id)[StorageKind.IMAGES] == 15 * 1_000


def test_uploads_at_once_do_not_exceed_the_quota(database: Database, account_id: uuid.UUID) -> None:
    limit = 10 * (1_000 + 512)
    barrier = threading.Barrier(8)
    refused: list[int] = []

    def upload(first: int) -> None:
        barrier.wait()
        for number in range(first, first + 4):
            try:
                submission.store_image(
                    database, account_id=account_id, image=submitted(number), storage_limit=limit
                )
            except errors.StorageQuotaExceeded:
                refused.append(number)

    threads = [threading.Thread(target=upload, args=(4 * start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert used(database, account_id)[StorageKind.IMAGES] == 10 * 1_000
    assert len(refused) == 32 - 10


def test_the_room_of_an_account_is_read_once_a_second(
    database: Database, account_id: uuid.UUID
) -> None:
    timer = HandTimer()
    quota = storage.Quota(database, default_mb=1, timer=timer)
    assert quota.has_room(account_id)
    submission.store_image(database, account_id=account_id, image=submitted(size=MIB))

    assert quota.has_room(account_id)
    timer.seconds += 60
    assert not quota.has_room(account_id)


def test_a_full_account_is_refused_until_it_has_deleted_something(
    database: Database, account_id: uuid.UUID
) -> None:
    quota = storage.Quota(database, default_mb=1, timer=HandTimer())
    image_id = submission.store_image(
        database, account_id=account_id, image=submitted(size=MIB), storage_limit=None
    )
    other = factories.make_account(database)

    with pytest.raises(errors.StorageQuotaExceeded, match=r"stores 1\.0 MiB; its quota is 1\.0"):
        quota.check(account_id)
    assert quota.check(other) == MIB

    retention.remove_image(database, image_id, account_id=account_id)
    # At once: the timer stands still.
    assert quota.check(account_id) == MIB


def test_an_account_has_a_quota_of_its_own_or_the_one_of_all(
    database: Database, account_id: uuid.UUID
) -> None:
    timer = HandTimer()
    quota = storage.Quota(database, default_mb=4096, timer=timer)
    found = storage.accounts(database, default_mb=0)
    [name] = [one.name for one in found if one.account_id == account_id]
    submission.store_image(database, account_id=account_id, image=submitted(size=MIB))
    # Far from it nothing has to be looked at when an image is kept.
    assert quota.check(account_id) is None

    storage.limit_account(database, name, storage_mb=2)
    timer.seconds += 60
    assert quota.check(account_id) == 2 * MIB
    storage.limit_account(database, name, storage_mb=0)
    timer.seconds += 60
    assert quota.check(account_id) is None
    assert quota.usage(account_id).limit is None
    storage.limit_account(database, name, storage_mb=None)
    assert quota.usage(account_id).limit == 4096 * MIB
    with pytest.raises(errors.NotFound):
        storage.limit_account(database, "nobody", storage_mb=1)


def test_within_a_second_the_database_is_not_read_again(
    database: Database, account_id: uuid.UUID
) -> None:
    timer = HandTimer()
    quota = storage.Quota(database, default_mb=4096, timer=timer)
    quota.check(account_id)
    seen: list[object] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *event: seen.append(event))

    for _ in range(100):
        quota.check(account_id)
    assert seen == []
    timer.seconds += 60
    quota.check(account_id)
    assert seen != []


def test_a_running_job_ends_with_its_trace_whatever_the_quota_is(
    database: Database, account_id: uuid.UUID
) -> None:
    quota = storage.Quota(database, default_mb=1, timer=HandTimer())
    job_id = factories.make_job(database, account_id)
    claimed = factories.claim(database)
    factories.begin(database, claimed)
    submission.store_image(database, account_id=account_id, image=submitted(size=MIB))
    with pytest.raises(errors.StorageQuotaExceeded):
        quota.check(account_id)

    assert settle.succeed(
        database, claimed, answer=Answer("6", "boxed"), generation=factories.make_ended(TRACE)
    )

    assert traces.read(database, job_id)[0].text == TRACE
