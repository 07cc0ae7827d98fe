"""How tries are claimed and end: fair, few at once, on a schedule, each by one owner."""

from __future__ import annotations

import collections
import contextlib
import itertools
import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from jobs import delivery, errors
from jobs.database import Database
from jobs.delivery import DeliveryStatus, EventType, Kind, TryOutcome, TryState, Webhook
from jobs.lifecycle import Status
from jobs.outbox import WebhookEndpoint, WebhookLane
from jobs.store import deliveries, endpoints, events, purge, redeliveries, tellings, tries
from tests import factories, races, webhooks
from tests.databases import Age

SLOW = tries.Result(TryOutcome.FAILED, error_code="refused", status_code=503,
                    retry_after=timedelta(hours=1))  # fmt: skip


def endpoint_now(database: Database, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    found = endpoints.get(database, endpoint.id, account_id=None)
    assert found is not None
    return found


def tell(database: Database, account_id: uuid.UUID, *, times: int = 1) -> None:
    """Let something happen that listeners of job.cancelled hear of; quicker than a job's whole life."""
    for _ in range(times):
        with database.transaction() as transaction:
            events.of_account(
                transaction,
                account_id=account_id,
                event_type=EventType.JOB_CANCELLED,
                data={"omitted": []},
            )


def make_proven(database: Database, *lanes: uuid.UUID, failures: int = 0) -> None:
    with database.transaction() as transaction:
        transaction.execute(
            sa.update(WebhookLane)
            .where(WebhookLane.id.in_(lanes))
            .values(delivered_at=transaction.now(), failures=failures)
        )


def test_a_delivered_try_ends_its_delivery(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED

    [told] = webhooks.all_deliveries(database)
    assert (told.status, told.error_code, told.attempts) == (DeliveryStatus.DELIVERED, None, 1)
    assert told.delivered_at is not None
    [attempt] = webhooks.attempts(database)
    assert (attempt.state, attempt.outcome) == (TryState.ENDED, TryOutcome.DELIVERED)
    assert (attempt.status_code, attempt.answer, attempt.url) == (
        200,
        b"thanks",
        "https://receiver.example/hook",
    )
    assert deliveries.pause(database) is None
    assert deliveries.backlog(database) == deliveries.Backlog(0, None)


def test_failures_follow_the_schedule_to_its_end(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)

    for planned in delivery.SCHEDULE[1:]:
        settled = webhooks.try_once(database, webhooks.DOWN)
        assert settled.status is DeliveryStatus.PENDING
        pause = deliveries.pause(database)
        assert pause is not None
        assert planned * 0.8 - timedelta(seconds=1) <= pause <= planned * 1.2
        assert webhooks.claim(database) == webhooks.claim(database, slow=True) == []
        age(planned.total_seconds() * 1.2 + 1)
    assert webhooks.try_once(database, webhooks.DOWN).status is DeliveryStatus.FAILED

    rows = webhooks.attempts(database)
    assert [row.number for row in rows] == list(range(1, 11))
    assert [row.step for row in rows] == list(range(10))
    assert all(row.next_at == after.due_at for row, after in itertools.pairwise(rows))
    assert rows[-1].next_at is None
    assert deliveries.pause(database) is None


def test_a_receiver_may_ask_for_more_time_but_not_for_ever() -> None:
    rng = random.Random(3)

    assert delivery.wait(1, rng=rng, retry_after=timedelta(hours=1)) == timedelta(hours=1)
    assert delivery.wait(1, rng=rng, retry_after=timedelta(days=30)) == timedelta(hours=24)
    assert delivery.wait(2, rng=rng, retry_after=timedelta(seconds=1)) >= timedelta(minutes=4)


def test_a_longer_wait_that_was_asked_for_is_kept(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, SLOW)

    age(3500)
    assert webhooks.claim(database) == []
    age(200)
    assert len(webhooks.claim(database)) == 1


def test_lanes_have_their_turns_and_few_tries_at_once(
    database: Database, account_id: uuid.UUID
) -> None:
    one = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id, times=6)
    two = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id)
    make_proven(database, one.id, two.id)

    first = webhooks.claim(database, limit=2)
    rest = webhooks.claim(database, limit=10)

    assert {claimed.lane_id for claimed in first} == {one.id, two.id}
    assert [claimed.lane_id for claimed in rest] == [one.id] * (delivery.LANE_ROOM - 1)
    assert webhooks.claim(database) == []
    tries.settle(database, rest[0], webhooks.OK, rng=webhooks.RNG)
    assert [claimed.lane_id for claimed in webhooks.claim(database)] == [one.id]


def test_a_lane_that_was_served_last_waits_for_the_others(
    database: Database, account_id: uuid.UUID
) -> None:
    lanes = [
        webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"]).id
        for _ in range(3)
    ]
    make_proven(database, *lanes)
    tell(database, account_id, times=3)

    served = [webhooks.claim(database, limit=1)[0].lane_id for _ in range(6)]

    assert set(served[:3]) == set(lanes)
    assert served[3:] == served[:3]


def test_a_lane_that_proved_nothing_gets_one_try_at_a_time(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id, times=3)

    [first] = webhooks.claim(database)
    assert webhooks.claim(database) == []

    tries.settle(database, first, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 2


def test_a_lane_that_fails_again_and_again_is_slow_until_it_takes_something(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id, times=8)
    for _ in range(delivery.TRIP):
        [claimed] = webhooks.claim(database)
        tries.settle(database, claimed, webhooks.DOWN, rng=webhooks.RNG)

    assert webhooks.claim(database) == []
    [slow] = webhooks.claim(database, slow=True)
    assert webhooks.claim(database, slow=True) == []
    tries.settle(database, slow, webhooks.OK, rng=webhooks.RNG)
    assert webhooks.claim(database, slow=True) == []
    assert len(webhooks.claim(database)) == delivery.LANE_ROOM


def make_lanes(
    database: Database, account_id: uuid.UUID, number: int, *, failures: int = 0
) -> None:
    """Let an account have so many receivers that have something to be told, each at a place of its own."""
    with database.transaction() as transaction:
        for count in range(number):
            lane_id, origin = delivery.lane(account_id, f"https://{count}.example/")
            events.open_lane(transaction, lane_id, account_id=account_id, origin=origin)
            transaction.execute(
                sa.update(WebhookLane).where(WebhookLane.id == lane_id).values(failures=failures)
            )
            events.write(
                transaction,
                account_id=account_id,
                event_type=EventType.JOB_CANCELLED,
                data={"omitted": []},
                targets=[events.Target(lane_id, None, f"https://{count}.example/")],
            )


def test_thousands_of_new_receivers_leave_threads_to_other_accounts_and_to_those_that_do_well(
    database: Database, account_id: uuid.UUID
) -> None:
    others = [factories.make_account(database) for _ in range(2)]
    for owner in (account_id, *others):
        make_lanes(database, owner, delivery.SLOTS)
    well = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    make_proven(database, well.id)
    tell(database, account_id)

    claimed = webhooks.claim(database, limit=delivery.SLOTS)

    served = collections.Counter(one.account_id for one in claimed if one.lane_id != well.id)
    assert well.id in {one.lane_id for one in claimed}
    assert served.total() == delivery.UNPROVEN
    assert set(served.values()) == {delivery.UNPROVEN // 3}
    # The rest is for those that do well, and for one new receiver when another has answered.
    tell(database, account_id)
    assert [one.lane_id for one in webhooks.claim(database)] == [well.id]
    new = next(one for one in claimed if one.lane_id != well.id)
    tries.settle(database, new, webhooks.OK, rng=webhooks.RNG)
    assert len(webhooks.claim(database)) == 1


def test_one_accounts_new_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    make_lanes(database, account_id, delivery.SLOTS)

    assert len(webhooks.claim(database, limit=delivery.SLOTS)) == delivery.UNPROVEN_EACH
    assert webhooks.claim(database) == []
    other = factories.make_account(database)
    make_lanes(database, other, 2)
    assert [one.account_id for one in webhooks.claim(database)] == [other] * 2


def test_one_accounts_slow_receivers_have_a_part_of_the_threads(
    database: Database, account_id: uuid.UUID
) -> None:
    other = factories.make_account(database)
    make_lanes(database, account_id, delivery.SLOW_SLOTS, failures=delivery.TRIP)
    assert len(webhooks.claim(database, limit=delivery.SLOW_SLOTS, slow=True)) == delivery.SLOW_EACH

    make_lanes(database, other, 2, failures=delivery.TRIP)

    assert [one.account_id for one in webhooks.claim(database, slow=True)] == [other] * 2


def test_a_try_has_one_owner_and_ends_once(database: Database, account_id: uuid.UUID) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [claimed] = webhooks.claim(database)

    assert webhooks.claim(database) == []
    assert tries.settle(database, claimed, webhooks.OK, rng=webhooks.RNG) is not None
    assert tries.settle(database, claimed, webhooks.DOWN, rng=webhooks.RNG) is None
    assert tries.landed(database, claimed)
    assert [row.outcome for row in webhooks.attempts(database)] == [TryOutcome.DELIVERED]


def test_a_try_whose_sender_is_gone_is_made_again_and_the_late_sender_is_refused(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [late] = webhooks.claim(database)
    assert tries.expire(database) == 0
    age(61)

    assert tries.expire(database) == 1
    assert tries.settle(database, late, webhooks.OK, rng=webhooks.RNG) is None
    assert not tries.landed(database, late)
    [again] = webhooks.claim(database)

    assert (again.event_id, again.step, again.number) == (late.event_id, 0, 2)
    assert [row.outcome for row in webhooks.attempts(database)] == [TryOutcome.LOST, None]


def test_a_try_over_which_senders_are_lost_again_and_again_is_made_less_and_less_often(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    waits = []
    for _ in range(delivery.LOSSES_FORGIVEN + 2):
        assert len(webhooks.claim(database)) == 1
        age(61)
        tries.expire(database)
        pause = deliveries.pause(database)
        assert pause is not None
        waits.append(max(pause, timedelta()))
        age(waits[-1].total_seconds())

    *first, sixth, seventh = waits
    assert first == [timedelta()] * delivery.LOSSES_FORGIVEN
    assert timedelta() < sixth < seventh
    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED


def test_a_try_that_was_not_made_is_put_off_and_leaves_no_row(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [claimed] = webhooks.claim(database)

    tries.put_off(database, claimed, wait=timedelta(minutes=1))

    assert webhooks.claim(database) == []
    assert tries.settle(database, claimed, webhooks.OK, rng=webhooks.RNG) is None
    age(61)
    assert tries.expire(database) == 0
    [again] = webhooks.claim(database)
    assert (again.attempt_id, again.step, again.number) == (claimed.attempt_id, 0, 1)


def test_a_try_that_somebody_else_has_is_not_put_off(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [late] = webhooks.claim(database)
    age(61)
    tries.expire(database)

    tries.put_off(database, late, wait=timedelta(minutes=1))

    assert [row.state for row in webhooks.attempts(database)] == [TryState.ENDED, TryState.DUE]
    assert len(webhooks.claim(database)) == 1


def test_410_disables_an_endpoint_and_the_others_are_told(
    database: Database, account_id: uuid.UUID
) -> None:
    gone = webhooks.make_endpoint(database, account_id)
    other = webhooks.make_endpoint(database, account_id, event_types=["endpoint.disabled"])
    webhooks.run_job(database, account_id)
    webhooks.run_job(database, account_id)

    settled = webhooks.try_first(database, webhooks.GONE)

    assert (settled.status, settled.disabled) == (DeliveryStatus.FAILED, "gone")
    assert endpoint_now(database, gone).disabled_reason == "gone"
    told = {claimed.lane_id: claimed for claimed in webhooks.claim(database)}
    assert told[other.id].event_type == "endpoint.disabled"
    assert told[gone.id].barred == "endpoint_disabled"
    assert told[other.id].barred is None


def test_410_of_a_jobs_own_url_ends_that_delivery_alone(
    database: Database, account_id: uuid.UUID
) -> None:
    for _ in range(2):
        webhooks.run_job(database, account_id, webhook=Webhook(url="http://a.example/"))

    assert webhooks.try_first(database, webhooks.GONE).status is DeliveryStatus.FAILED

    first, second = webhooks.all_deliveries(database)
    assert (first.status, first.error_code) == (DeliveryStatus.FAILED, "gone")
    assert second.status is DeliveryStatus.PENDING
    assert [claimed.barred for claimed in webhooks.claim(database)] == [None]


def test_what_is_due_to_a_disabled_endpoint_fails_and_is_not_held_against_it(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")

    skipped = tries.Result(TryOutcome.SKIPPED, error_code="endpoint_disabled")
    assert webhooks.try_once(database, skipped).status is DeliveryStatus.FAILED

    assert endpoint_now(database, endpoint).failing_since is None
    [told] = webhooks.all_deliveries(database)
    assert told.error_code == "endpoint_disabled"


def test_five_days_of_nothing_but_failures_disable_an_endpoint(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    reasons = []
    for _ in range(6):
        tell(database, account_id)
        reasons.append(webhooks.try_first_of_any(database, webhooks.DOWN).disabled)
        age(86_400)

    assert reasons == [None] * 5 + ["failing"]
    disabled = endpoint_now(database, endpoint)
    assert (disabled.disabled_reason, disabled.disabled_at is None) == ("failing", False)
    enabled = endpoints.enable(database, endpoint.id, account_id=account_id)
    assert enabled is not None
    assert (enabled.disabled_at, enabled.failing_since) == (None, None)


@pytest.mark.parametrize("between", ["success", "silence"])
def test_a_success_or_a_long_silence_begins_the_count_anew(
    database: Database, account_id: uuid.UUID, age: Age, between: str
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id)
    webhooks.try_first_of_any(database, webhooks.DOWN)
    age(86_400)
    if between == "success":
        tell(database, account_id)
        webhooks.try_first_of_any(database, webhooks.OK)
    age(4.5 * 86_400)
    tell(database, account_id)

    assert webhooks.try_first_of_any(database, webhooks.DOWN).disabled is None

    assert endpoint_now(database, endpoint).disabled_at is None


def test_a_resend_goes_to_a_disabled_endpoint_and_touches_neither_schedule_nor_health(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.DOWN)
    with database.transaction() as transaction:
        endpoints.disable(transaction, endpoint, reason="requested")
    before = endpoint_now(database, endpoint)
    [told] = webhooks.all_deliveries(database)
    planned = tellings.get(database, told.id, account_id=account_id)

    assert redeliveries.redeliver(database, told.id, account_id=account_id) is not None
    [resend] = webhooks.claim(database)
    assert (resend.kind, resend.barred, resend.event_id) == (Kind.MANUAL, None, told.event_id)
    settled = tries.settle(database, resend, webhooks.GONE, rng=webhooks.RNG)

    assert settled == tries.Settled(DeliveryStatus.PENDING, None, None)
    after = endpoint_now(database, endpoint)
    assert (after.failing_since, after.disabled_at) == (before.failing_since, before.disabled_at)
    view = tellings.get(database, told.id, account_id=account_id)
    assert view is not None
    assert planned is not None
    assert view.next_at == planned.next_at is not None
    assert [attempt.kind for attempt in view.attempts] == ["automatic", "automatic", "manual"]


def test_a_resend_that_is_delivered_ends_the_schedule(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.DOWN)
    [told] = webhooks.all_deliveries(database)
    redeliveries.redeliver(database, told.id, account_id=None)

    assert webhooks.try_once(database, webhooks.OK).status is DeliveryStatus.DELIVERED
    assert deliveries.pause(database) is None
    [told] = webhooks.all_deliveries(database)
    assert told.status is DeliveryStatus.DELIVERED


def test_a_delivery_is_sent_again_so_often_and_not_more(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    webhooks.try_once(database, webhooks.GONE)
    [told] = webhooks.all_deliveries(database)
    for _ in range(redeliveries.MOST_TRIES - told.attempts):
        redeliveries.redeliver(database, told.id, account_id=account_id)

    with pytest.raises(errors.Conflict):
        redeliveries.redeliver(database, told.id, account_id=account_id)

    while claimed := webhooks.claim(database):
        tries.settle(database, claimed[0], webhooks.DOWN, rng=webhooks.RNG)
    endpoints.recover(database, endpoint.id, account_id=None, since=told.created_at)
    assert redeliveries.recover(database).resent == 0


def test_another_account_finds_nothing_to_resend_test_or_recover(
    database: Database, account_id: uuid.UUID
) -> None:
    stranger = factories.make_account(database)
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    [told] = webhooks.all_deliveries(database)
    now = told.created_at

    assert redeliveries.redeliver(database, told.id, account_id=stranger) is None
    assert tellings.get(database, told.id, account_id=stranger) is None
    tested = redeliveries.test(
        database, endpoint.id, account_id=stranger, event_type="job.failed", data={}
    )
    assert tested is None
    assert endpoints.recover(database, endpoint.id, account_id=stranger, since=now) is None
    assert endpoints.get(database, endpoint.id, account_id=stranger) is None
    assert not endpoints.delete(database, endpoint.id, account_id=stranger)
    assert tellings.of_account(database, account_id=stranger, limit=5) == ([], False)


def test_all_that_failed_since_a_time_is_recovered_in_the_background(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=["job.cancelled"])
    tell(database, account_id, times=4)
    webhooks.try_first(database, webhooks.OK)
    for _ in range(2):
        webhooks.try_first(database, webhooks.DOWN)
    since = webhooks.all_deliveries(database)[0].created_at
    asked = endpoints.recover(database, endpoint.id, account_id=account_id, since=since)
    assert asked is not None

    batches = [redeliveries.recover(database, limit=1) for _ in range(4)]

    assert [batch.resent for batch in batches] == [1, 1, 0, 0]
    assert [batch.more for batch in batches] == [True, True, True, False]
    done = tellings.recovery(database, asked.id, account_id=account_id)
    assert done is not None
    assert (done.resent, done.ended_at is None) == (2, False)
    resent = [row for row in webhooks.attempts(database) if row.kind is Kind.RECOVER]
    assert len(resent) == 2
    assert {row.state for row in resent} == {TryState.DUE}


def test_a_test_is_an_event_of_its_own_and_ends_with_its_one_try(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    delivery_id = redeliveries.test(
        database, endpoint.id, account_id=account_id, event_type="job.failed", data={"test": True}
    )
    assert delivery_id is not None

    settled = webhooks.try_once(database, webhooks.DOWN)

    assert settled == tries.Settled(DeliveryStatus.FAILED, None, None)
    view = tellings.get(database, delivery_id, account_id=account_id)
    assert view is not None
    assert (view.event.type, view.event.job_id) == ("job.failed", None)
    assert [attempt.kind for attempt in view.attempts] == [Kind.TEST]
    assert endpoint_now(database, endpoint).failing_since is None


def test_deliveries_are_read_by_job_and_by_endpoint_in_pages(
    database: Database, account_id: uuid.UUID
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id, event_types=list(EventType))
    job_id = webhooks.run_job(database, account_id)
    webhooks.run_job(database, account_id)

    first, more = tellings.of_job(database, job_id, limit=1)
    second, no_more = tellings.of_job(database, job_id, limit=1, after=first[0].delivery.id)

    assert [view.event.type for view in (*first, *second)] == ["job.started", "job.succeeded"]
    assert (more, no_more) == (True, False)
    newest, more = tellings.of_endpoint(database, endpoint.id, limit=3)
    assert (len(newest), more) == (3, True)
    assert newest[0].origin == "https://receiver.example"
    none, _ = tellings.of_endpoint(
        database, endpoint.id, limit=3, statuses=[DeliveryStatus.DELIVERED]
    )
    assert none == []


@pytest.mark.parametrize("dialect", ["postgresql"])  # SQLite has one writer at a time.
@pytest.mark.parametrize("verb", ["claim", "settle", "expire", "update", "recover", "enable"])
def test_no_job_waits_for_those_who_tell_of_others(
    database: Database, account_id: uuid.UUID, verb: str
) -> None:
    endpoint = webhooks.make_endpoint(database, account_id)
    webhooks.run_job(database, account_id)
    held = [] if verb == "claim" else webhooks.claim(database)
    endpoints.recover(database, endpoint.id, account_id=None, since=endpoint.created_at)
    written, over = threading.Event(), threading.Event()
    other = Database(database.url.render_as_string(hide_password=False))

    def stop(_: sa.Connection) -> None:
        written.set()
        over.wait(30)

    sa.event.listen(other.engine, "commit", stop)
    verbs: dict[str, Callable[[], object]] = {
        "claim": lambda: webhooks.claim(other),
        "settle": lambda: tries.settle(other, held[0], webhooks.GONE, rng=webhooks.RNG),
        "expire": lambda: tries.expire(other),
        "update": lambda: endpoints.update(
            other, endpoint.id, account_id=None, event_types=["job.failed"]
        ),
        "enable": lambda: endpoints.enable(other, endpoint.id, account_id=None),
        "recover": lambda: redeliveries.recover(other),
    }
    with contextlib.closing(other), ThreadPoolExecutor(1) as pool:
        try:
            telling = pool.submit(verbs[verb])
            assert written.wait(30)
            # Its rows are locked until the end of its transaction, and this one does not wait for it.
            job_id = webhooks.run_job(database, account_id)
        finally:
            over.set()
        telling.result()

    assert factories.get_job(database, job_id).job.status is Status.SUCCEEDED
    assert len(webhooks.events(database)) >= 2


def test_what_is_resent_while_it_is_purged_goes_or_is_sent_and_nobody_fails(
    database: Database, account_id: uuid.UUID
) -> None:
    webhooks.make_endpoint(database, account_id)
    for _ in range(6):
        webhooks.run_job(database, account_id)
        webhooks.try_once(database, webhooks.GONE)
        with database.transaction() as transaction:
            transaction.execute(
                sa.update(WebhookEndpoint).values(disabled_at=None, disabled_reason=None)
            )
    told = webhooks.all_deliveries(database)
    periods = purge.Periods(event=timedelta(0))

    def resend() -> int:
        made = [redeliveries.redeliver(database, one.id, account_id=None) for one in told]
        return sum(attempt_id is not None for attempt_id in made)

    def take_away() -> int:
        return sum(
            purge.batch(database, periods, actor="sweeper:test", limit=1).timelines for _ in told
        )

    resent, *purged = races.race(resend, take_away, take_away)

    # Each of them is sent again or gone, never both.
    left = {one.id for one in webhooks.all_deliveries(database)}
    due = {row.delivery_id for row in webhooks.attempts(database) if row.state is TryState.DUE}
    assert len(left) == len(told) - sum(purged)
    assert len(due) == resent
    assert due <= left
