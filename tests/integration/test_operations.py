"""Operations on many jobs, from the command line and the API to the database, on both databases."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import uuid
from collections.abc import Hashable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from core import errors, ids
from core.database import Database, Transaction
from jobs.lifecycle import Priority, Role, Status
from jobs.records.jobs import Job
from jobs.records.operations import Operation, OperationJob
from jobs.records.timeline import TimelineEntry
from jobs.store import accounts, erasure, purge
from tests import factories, operating
from tests.operating import House, house_in
from webhooks import purge as webhook_purge


@pytest.fixture
def house(database: Database, tmp_path: Path) -> Iterator[House]:
    """Return a service with an operator and a tenant."""
    with house_in(database, tmp_path) as served:
        yield served


def test_jobs_are_rerun_by_a_query_once(house: House) -> None:
    made = house.ended(3)
    house.ended(1, metadata={"keep": "yes"})
    query = ("status:cancelled", "rerun:none", "image:" + "0" * 64)
    assert house.run("jobs", "rerun", *query)["matched"] == 0

    preview = house.run("jobs", "rerun", "status:cancelled", "rerun:none", "--dry-run")
    assert preview["matched"] == 4
    assert house.reruns() == []

    operation = house.run("jobs", "rerun", "status:cancelled", "rerun:none")
    assert (operation["status"], operation["total"]) == ("queued", None)
    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["total"], shown["done"]) == ("succeeded", 4, 4)
    assert set(made) < set(house.reruns())
    assert len(house.reruns()) == 4
    again = house.run("jobs", "rerun", "status:cancelled", "rerun:none")
    assert again["matched"] == 0
    listed = house.run("jobs", "ls", f"operation:{operation['id']}")["data"]
    assert {job["status"] for job in listed} == {"queued"}
    assert len(listed) == 4
    [entry] = house.run("operations", "ls")["data"]
    assert entry["id"] == operation["id"]


def test_each_timeline_names_the_operation_and_the_key(house: House) -> None:
    queued = factories.make_job(house.database, house.account_id)

    operation = house.run("jobs", "cancel", "status:queued")
    house.work()

    with house.database.reading() as transaction:
        entry = transaction.session.scalars(
            sa.select(TimelineEntry).where(
                TimelineEntry.job_id == queued, TimelineEntry.action == "cancelled"
            )
        ).one()
    assert entry.actor.startswith("key:key_")
    assert entry.changes["operation"] == operation["id"]
    assert entry.changes["key_name"] == "test"


def test_jobs_are_deleted_and_the_others_are_counted(house: House) -> None:
    ended = house.ended(2)
    waiting = factories.make_job(house.database, house.account_id)

    operation = house.run("jobs", "rm", "created:<1h")
    house.work()

    shown = house.run("operations", "show", operation["id"], "--left")
    assert (shown["total"], shown["done"], shown["skipped"]) == (3, 2, 1)
    assert shown["reasons"] == {"not_finished": 1}
    assert [job["job_id"] for job in shown["left"]] == [ids.show("job", waiting)]
    with house.database.reading() as transaction:
        texts = transaction.session.scalars(sa.select(Job.question).where(Job.id.in_(ended))).all()
    assert texts == [None, None]


def test_waits_end_by_a_query(house: House) -> None:
    waiting = [factories.make_job(house.database, house.account_id) for _ in range(2)]
    with house.database.transaction() as transaction:
        transaction.update(
            Job, Job.id == waiting[0], not_before=transaction.now(timedelta(hours=1))
        )

    operation = house.run("jobs", "run-now", "status:queued", key=house.tenant)
    house.work()

    shown = house.run("operations", "show", operation["id"], key=house.tenant)
    assert (shown["done"], shown["skipped"], shown["reasons"]) == (1, 1, {"already_due": 1})


def test_an_id_still_names_one_job(house: House) -> None:
    [job_id] = house.ended(1)
    shown = ids.show("job", job_id)

    again = house.run("jobs", "rerun", shown)
    assert again["rerun_of"] == shown
    assert house.run("jobs", "run-now", str(again["id"]))["status"] == "queued"
    assert house.run("jobs", "cancel", str(again["id"]))["status"] == "cancelled"
    assert house.run("jobs", "rm", shown)["id"] == shown


def test_many_jobs_need_their_number(house: House) -> None:
    factories.insert_jobs(house.database, house.account_id, [{} for _ in range(101)])

    with pytest.raises(errors.InvalidRequest, match="101 jobs match"):
        house.run("jobs", "cancel", "status:queued")
    with pytest.raises(errors.Conflict, match="more than the 100"):
        house.run("jobs", "cancel", "status:queued", "--confirm", "100")
    operation = house.run("jobs", "cancel", "status:queued", "--yes")
    house.work()
    assert house.run("operations", "show", operation["id"])["done"] == 101


def test_more_jobs_than_confirmed_at_the_start_change_nothing(house: House) -> None:
    factories.insert_jobs(house.database, house.account_id, [{} for _ in range(3)])
    operation = house.run("jobs", "cancel", "status:queued", "--confirm", "3")
    # A job that an API on another host submitted before, and that becomes visible now.
    early = uuid.UUID(int=ids.new().int - (60_000 << 80))
    factories.insert_jobs(house.database, house.account_id, [{"id": early}])

    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["done"]) == ("failed", 0)
    assert shown["error"]["code"] == "too_many_jobs"


def test_a_repeated_request_returns_the_same_operation(house: House) -> None:
    house.ended(1)
    words = ("jobs", "rerun", "status:cancelled", "--idempotency-key", "monday")

    first = house.run(*words)
    house.work()
    second = house.run(*words)

    assert second["id"] == first["id"]
    assert len(house.reruns()) == 1
    with pytest.raises(errors.IdempotencyKeyReused):
        house.run("jobs", "rm", "status:cancelled", "--idempotency-key", "monday")


def test_a_tenant_acts_on_its_own_jobs_only(house: House) -> None:
    other = factories.make_account(house.database)
    foreign = factories.make_job(house.database, other)
    own = factories.make_job(house.database, house.account_id)

    operation = house.run("jobs", "cancel", "status:queued", key=house.tenant)
    house.work()

    with house.database.reading() as transaction:
        rows = transaction.execute(sa.select(Job.id, Job.status))
        statuses = {row.id: row.status for row in rows}
    assert statuses == {foreign: Status.QUEUED, own: Status.CANCELLED}
    with pytest.raises(errors.InsufficientScope):
        house.run("jobs", "cancel", "status:queued", "--account", "operations", key=house.tenant)
    stranger = factories.make_key(house.database, account="stranger")
    with pytest.raises(errors.NotFound):
        house.run("operations", "show", operation["id"], key=stranger)


def test_an_operator_may_choose_an_account(house: House) -> None:
    other = factories.make_account(house.database)
    factories.make_job(house.database, other)
    factories.make_job(house.database, house.account_id)

    operation = house.run("jobs", "cancel", "status:queued", "--account", "tenant")
    house.work()

    assert house.run("operations", "show", operation["id"])["total"] == 1


def test_a_read_key_cannot_act(house: House) -> None:
    house.ended(1)
    for verb in ("rerun", "cancel", "rm", "run-now"):
        with pytest.raises(errors.InsufficientScope):
            house.run("jobs", verb, "created:<1h", key=house.reader)
    operation = house.run("jobs", "rerun", "created:<1h", key=house.tenant)
    with pytest.raises(errors.InsufficientScope):
        house.run("operations", "cancel", operation["id"], key=house.reader)
    assert house.run("operations", "show", operation["id"], key=house.reader)["status"] == "queued"


def test_a_cancelled_operation_changes_no_further_job(house: House) -> None:
    factories.insert_jobs(house.database, house.account_id, [{} for _ in range(60)])
    operation = house.run("jobs", "cancel", "status:queued", "--yes")
    assert house.runner.run_slice()
    assert house.runner.run_slice()

    house.run("operations", "cancel", operation["id"])
    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["done"], shown["total"]) == ("cancelled", 50, 60)


def test_a_revoked_key_stops_its_operations(house: House) -> None:
    house.ended(1)
    operation = house.run("jobs", "rerun", "created:<1h", key=house.tenant)
    with house.database.reading() as transaction:
        row = transaction.session.get_one(Operation, ids.parse("op", operation["id"]))
    accounts.revoke_key(house.database, row.key_id)

    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["error"]["code"]) == ("cancelled", "key_revoked")
    assert house.reruns() == []


def test_reruns_wait_for_room_in_the_queue_and_leave_half_of_it(
    house: House, tmp_path: Path
) -> None:
    house.ended(3)
    settings = operating.settings_in(tmp_path, queued_jobs_per_account=2)
    narrow = dataclasses.replace(house, settings=settings).another(house.database, owner="narrow")
    factories.make_job(house.database, house.account_id)
    factories.make_job(house.database, house.account_id)
    operation = house.run("jobs", "rerun", "status:cancelled")

    while narrow.run_slice():
        pass

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["waiting_for"], shown["done"]) == ("running", "queue_full", 0)


def test_a_rerun_has_the_highest_priority_of_the_key(house: House) -> None:
    house.ended(1, priority=Priority.HIGH)
    house.run("jobs", "rerun", "status:cancelled", key=house.tenant)
    house.work()
    with house.database.reading() as transaction:
        priorities = transaction.session.scalars(
            sa.select(Job.priority).where(Job.rerun_of.is_not(None))
        ).all()
    assert priorities == [Priority.NORMAL]


VERBS = ("rerun", "cancel", "rm", "run-now")


@pytest.mark.parametrize("verb", VERBS)
def test_a_mistyped_id_acts_on_no_job(house: House, verb: str) -> None:
    [job_id] = house.ended(1)
    shown = ids.show("job", job_id)
    # Every job has the mistyped ids in its question.
    texts = f"job_ {shown[:-1]} {shown}0 {shown.replace('job', 'grp')} @last job_019O"
    house.ended(2, question=texts)
    waiting = factories.make_job(house.database, house.account_id, question=texts)

    for word in ("job_", "job_019O", shown[:9], f"{shown}0", shown.upper(), "job_ffffff", "@first",
                 "@last", f"grp_{shown[4:]}", f"job_ {shown[4:]}"):  # fmt: skip
        with pytest.raises(errors.RequestError):
            house.run("jobs", verb, word, "--yes")
    for words in ((f"{shown}0", "created:<1d"), (shown, shown), ("status:queued", "@last")):
        with pytest.raises(errors.InvalidRequest, match="is an ID"):
            house.run("jobs", verb, *words, "--yes")

    assert house.run("operations", "ls")["data"] == []
    assert house.run("jobs", "show", ids.show("job", waiting))["status"] == "queued"
    assert house.reruns() == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_query_without_a_qualifier_is_always_confirmed(house: House, verb: str) -> None:
    house.ended(1, question="pelican")
    factories.make_job(house.database, house.account_id, question="pelican")

    with pytest.raises(errors.InvalidRequest, match="2 jobs match"):
        house.run("jobs", verb, "pelican")
    with pytest.raises(errors.Conflict, match="without a qualifier"):
        house.post("/v1/operations", {"action": "cancel", "query": "pelican"})
    assert house.run("operations", "ls")["data"] == []

    house.run("jobs", verb, "pelican", "--yes")
    house.work()
    [operation] = house.run("operations", "ls")["data"]
    assert (operation["status"], operation["total"]) == ("succeeded", 2)
    assert house.run("jobs", verb, "pelican", "status:running")["matched"] == 0


def test_an_id_in_the_query_of_an_operation_is_refused_by_the_api_too(house: House) -> None:
    for query in ("job_0190", "status:queued @last", '"grp_0190ab"'):
        with pytest.raises(errors.InvalidRequest, match="is an ID"):
            house.post("/v1/operations", {"action": "cancel", "query": query, "confirm": 1000})
    preview = {"action": "cancel", "query": "key_value", "dry_run": True}
    assert house.post("/v1/operations", preview)["confirmation_required"] is True


def test_a_query_without_terms_is_refused(house: House) -> None:
    with pytest.raises(errors.InvalidRequest, match="at least one term"):
        house.run("jobs", "rm", " ", " ")


def test_two_processes_share_an_operation_without_doing_a_job_twice(house: House) -> None:
    made = house.ended(8)
    other = house.another(house.database, owner="other")
    house.run("jobs", "rerun", "status:cancelled")
    house.run("jobs", "rerun", "status:cancelled", "rerun:none")

    for runner in itertools.cycle((house.runner, other)):
        if not runner.run_slice():
            break

    # The first operation reruns each job; the second one, of the same jobs, finds them rerun.
    assert sorted(map(str, house.reruns())) == sorted(map(str, made))


def erase(house: House) -> erasure.AccountErased:
    """Erase the tenant."""
    return erasure.erase_account(
        house.database,
        house.account_id,
        actor="operator:test",
        remove_copies=webhook_purge.reduce_jobs,
        remove_account=webhook_purge.remove_account,
    )


def test_an_erasure_ends_the_operations_on_an_account(house: House) -> None:
    house.ended(2, metadata={"case": "1"})
    factories.make_job(house.database, house.account_id)
    operation = house.run("jobs", "rerun", "meta.case:1", "--account", "tenant")
    everywhere = house.run("jobs", "cancel", "status:queued")

    assert erase(house).running == 0
    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["total"], shown["query"]) == ("cancelled", None, "")
    assert house.run("operations", "show", everywhere["id"])["status"] == "succeeded"
    assert house.reruns() == []


def test_an_erasure_leaves_no_text_of_the_account_in_operations(house: House) -> None:
    accounts.create_key(
        house.database,
        key := accounts.new_key(),
        pepper=factories.PEPPER,
        account="tenant",
        role=Role.SUBMIT,
        name="zanzibar",
    )
    house.ended(1)
    words = ("--idempotency-key", "zanzibar")
    house.run("jobs", "rerun", "status:cancelled", *words, key=key)
    house.work()
    house.run("jobs", "cancel", "status:queued", key=key)
    house.work()

    assert erase(house).running == 0

    with house.database.reading() as transaction:
        kept = transaction.session.scalars(sa.select(Operation)).all()
        entries = transaction.session.scalars(sa.select(TimelineEntry)).all()
    texts = {(row.query, row.key_name, row.idempotency_key, row.fingerprint) for row in kept}
    assert texts == {("", "", None, None)}
    assert not [entry for entry in entries if "zanzibar" in str(entry.changes)]
    assert len([entry for entry in entries if "operation" in entry.changes]) == 2


def test_old_operations_are_removed_with_their_jobs(house: House) -> None:
    house.ended(2)
    old = house.run("jobs", "rerun", "status:cancelled")
    house.work()
    new = house.run("jobs", "cancel", "status:queued")
    house.work()
    running = house.run("jobs", "rerun", "status:cancelled")
    with house.database.transaction() as transaction:
        transaction.update(
            Operation,
            Operation.id == ids.parse("op", old["id"]),
            finished_at=transaction.now(timedelta(days=-31)),
        )
    periods = purge.Periods(timeline=timedelta(days=30))

    purged = purge.batch(house.database, periods, actor="sweeper:test")

    assert (purged.operations, purged.more) == (1, False)
    assert purge.batch(house.database, periods, actor="sweeper:test") == purge.Purged()
    left = {entry["id"] for entry in house.run("operations", "ls")["data"]}
    assert left == {new["id"], running["id"]}
    with house.database.reading() as transaction:
        of = set(transaction.session.scalars(sa.select(OperationJob.operation_id)))
    assert of == {ids.parse("op", new["id"])}


def test_a_long_list_of_jobs_takes_several_steps(house: House) -> None:
    factories.insert_jobs(house.database, house.account_id, [{} for _ in range(1_001)])
    operation = house.run("jobs", "cancel", "status:queued", "--yes")
    while house.run("operations", "show", operation["id"])["total"] is None:
        assert house.runner.run_slice()
    house.run("operations", "cancel", operation["id"])
    with house.database.transaction() as transaction:
        transaction.update(
            Operation, Operation.id.is_not(None), finished_at=transaction.now(timedelta(days=-31))
        )
    periods = purge.Periods(timeline=timedelta(days=30))

    first = purge.batch(house.database, periods, actor="sweeper:test")
    second = purge.batch(house.database, periods, actor="sweeper:test")

    assert (first.operations, first.more) == (0, True)
    assert (second.operations, second.more) == (1, False)


class Slow(Database):
    """A database whose searches reach their deadline."""

    @contextlib.contextmanager
    def searching(self, account_id: Hashable) -> Iterator[Transaction]:
        with super().searching(account_id):
            raise errors.SearchTooSlow("The database took longer than 5 s and was stopped.")
            yield


def test_a_search_for_the_jobs_that_takes_too_long_ends_the_operation(
    house: House, database_url: str
) -> None:
    house.ended(1)
    operation = house.run("jobs", "rerun", "status:cancelled")
    with contextlib.closing(Slow(database_url)) as slow:
        runner = house.another(slow, owner="slow")
        assert runner.run_slice()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["error"]["code"]) == ("failed", "search_too_broad")
    assert house.reruns() == []


def test_the_search_for_the_jobs_waits_for_a_place_among_the_searches(
    house: House, database_url: str
) -> None:
    house.ended(1)
    operation = house.run("jobs", "rerun", "status:cancelled")
    with contextlib.closing(Database(database_url, searches=1, search_seconds=0.1)) as full:
        runner = house.another(full, owner="full")
        with full.searching(None):
            assert runner.run_slice()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["waiting_for"]) == ("running", "overloaded")


def test_a_stored_query_that_is_not_valid_any_more_ends_the_operation(house: House) -> None:
    house.ended(1)
    operation = house.run("jobs", "rerun", "status:cancelled")
    with house.database.transaction() as transaction:
        transaction.update(Operation, Operation.id.is_not(None), query="retired:1")

    house.work()

    shown = house.run("operations", "show", operation["id"])
    assert (shown["status"], shown["error"]["code"]) == ("failed", "invalid_request_error")
