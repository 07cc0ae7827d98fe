"""Batches whose files hold what no database stores, or that end before their files are read."""

from __future__ import annotations

import collections
import contextlib
import json
from datetime import timedelta

import pytest

from api.app import service_of
from api.framework import Router
from core import errors
from core.database import Database
from core.settings import Settings
from core.spool import IN_MEMORY_BYTES
from jobs.records.files import BatchStatus
from jobs.store import accounts, storage
from jobs.store import batches as batches_in_store
from tests import databases
from tests.api import batches, image_files, worker
from tests.api.batches import WINDOW, create, get, line, lines, settle
from tests.api.conftest import Caller, Json, Part

BOTH = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
NUL = "a\0b"


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """Most is tried on SQLite; what counts in SQL on both."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Few jobs of a batch at once, and little room for large bodies."""
    return settings.model_copy(update={"batch_window": WINDOW, "max_body_mb": 4, "spool_mb": 12})


@BOTH
@pytest.mark.parametrize(
    "odd",
    [
        line("a", body={"input": "?", "model": NUL}),
        line("a", body={"input": "?", NUL: 1}),
        line("a", body={"input": "?", "previous_response_id": NUL}),
        line("a", body={"input": "?", "metadata": {NUL: NUL}}),
        line("a", body={"input": "?", "options": {NUL: 1}}),
        line("a") | {NUL: 1},
        line(NUL),
    ],
    ids=["model", "field", "response", "metadata", "option", "member", "custom_id"],
)
def test_a_batch_whose_file_has_nul_fails_with_the_fault(
    app: Router, caller: Caller, database: Database, odd: Json
) -> None:
    """PostgreSQL stores no NUL, and a batch that cannot store its faults would be read for ever."""
    batch = create(caller, [odd])

    assert settle(app, database, batch) is BatchStatus.FAILED
    failed = get(caller, batch)
    assert failed["errors"]["total"] >= 1
    assert {fault["line"] for fault in failed["errors"]["data"]} == {1}
    assert "\0" not in json.dumps(failed["errors"], ensure_ascii=False)


def test_a_batch_does_not_repeat_a_model_that_can_be_none(
    app: Router, caller: Caller, database: Database
) -> None:
    batch = create(caller, [line("a", body={"input": "?", "model": "m" * 2**20})])
    settle(app, database, batch)

    assert get(caller, batch)["model"] is None


@BOTH
@pytest.mark.parametrize("number", ["ffffffff", "80000000", "-0000001", "+0000001", "0_000001"])
def test_results_after_a_number_that_no_line_has_are_refused(caller: Caller, number: str) -> None:
    batch = create(caller, lines(1))
    after = batch["id"].replace("batch_", "batch_req_") + number

    answer = caller("GET", f"/v1/batches/{batch['id']}/results", query_string={"after": after})

    assert answer.status_code == 400
    assert answer.get_json()["error"]["param"] == "after"


@pytest.mark.parametrize("ending", [BatchStatus.CANCELLED, BatchStatus.EXPIRED])
def test_a_batch_that_ends_while_its_file_is_read_has_run_nothing(
    app: Router,
    caller: Caller,
    database: Database,
    clock: databases.Clock,
    ending: BatchStatus,
) -> None:
    """With the first of its lines in an error file, a retry would look like one of the whole batch."""
    batch = create(caller, [*lines(250), line("line-0")], completion_window="1h")
    batches.runner_of(app).run_slice()
    assert get(caller, batch)["request_counts"]["total"] >= 1
    if ending is BatchStatus.CANCELLED:
        caller("POST", f"/v1/batches/{batch['id']}/cancel")
    else:
        clock.advance(3601)

    assert settle(app, database, batch) is ending
    ended = get(caller, batch)
    assert ended["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (ended["output_file_id"], ended["error_file_id"]) == (None, None)
    assert ended[f"{ending.value}_at"] is not None
    path = f"/v1/batches/{batch['id']}"
    assert caller("GET", f"{path}/results").get_json()["data"] == []
    retried = caller("POST", f"{path}/retry")
    assert (retried.status_code, retried.get_json()["error"]["code"]) == (409, "nothing_to_retry")


def test_the_lines_of_a_batch_that_failed_take_no_storage(
    app: Router, caller: Caller, database: Database
) -> None:
    account_id = accounts.account_id(database, "default")
    kind = storage.StorageKind.RECORDS
    batch = create(caller, [*lines(300), "oops"])
    batches.runner_of(app).run_slice()
    during = storage.usage(database, account_id, default_mb=0).by_kind[kind]
    assert settle(app, database, batch) is BatchStatus.FAILED

    after = storage.usage(database, account_id, default_mb=0).by_kind[kind]
    assert after <= during - 200 * 512
    with database.reading() as transaction:
        assert storage.stored(transaction, account_id)[kind] == after


def test_a_page_of_batches_ends_before_its_faults_are_too_many(
    app: Router, caller: Caller, database: Database
) -> None:
    """One key could otherwise have pages of tens of megabytes built, again and again."""
    file_id = batches.upload(caller, ["{}"] * 300)
    made = [create(caller, lines(1))]
    settle(app, database, made[0])
    caller("POST", f"/v1/batches/{made[0]['id']}/cancel")
    for _ in range(7):
        made.append(batches.create_of(caller, file_id))
        while not settle(app, database, made[-1]).terminal:
            pass
        assert len(get(caller, made[-1])["errors"]["data"]) == 1000

    seen: list[list[str]] = []
    path, more = "/v1/batches?limit=100", True
    while more:
        listed = caller("GET", path).get_json()
        seen.append([batch["id"] for batch in listed["data"]])
        path, more = f"/v1/batches?limit=100&after={listed['last_id']}", listed["has_more"]

    assert [len(each) for each in seen] == [5, 3]
    assert [batch_id for page in seen for batch_id in page] == [
        batch["id"] for batch in reversed(made)
    ]


def test_files_of_images_are_not_read_before_their_line_becomes_a_job(
    app: Router, caller: Caller, database: Database
) -> None:
    """One batch could otherwise have the thread of all accounts' batches read gigabytes of images."""
    form: dict[str, Part | list[Part]] = {
        "file": image_files.png() + bytes(IN_MEMORY_BYTES),
        "purpose": "vision",
    }
    part = {"type": "input_image", "file_id": caller.form("/v1/files", form).get_json()["id"]}
    body = {"input": [{"role": "user", "content": [part, {"type": "input_text", "text": "?"}]}]}
    batch = create(caller, [line("a", body=body)])
    spool = service_of(app).spool
    taken: collections.Counter[int] = collections.Counter()
    for party in range(20):
        with contextlib.suppress(errors.Overloaded):
            while True:
                spool.take(party, IN_MEMORY_BYTES // 2)
                taken[party] += IN_MEMORY_BYTES // 2

    settle(app, database, batch)
    waiting = get(caller, batch)
    assert (waiting["status"], waiting["waiting_for"]) == ("in_progress", "overloaded")
    for party, size in taken.items():
        spool.give_back(party, size)
    settle(app, database, batch)
    assert batches.jobs(database) == 1
    assert spool.held == 0


@BOTH
def test_a_retry_whose_lines_are_removed_before_it_reads_them_fails(
    app: Router, caller: Caller, database: Database
) -> None:
    batch = create(caller, lines(2))
    settle(app, database, batch)
    worker.fail(database)
    worker.fail(database)
    assert settle(app, database, batch) is BatchStatus.COMPLETED
    again = caller("POST", f"/v1/batches/{batch['id']}/retry").get_json()
    while batches_in_store.purge(database, timedelta(0))[1]:
        pass

    assert settle(app, database, again) is BatchStatus.FAILED

    failed = get(caller, again)
    assert failed["errors"]["data"][0]["code"] == "batch_gone"
    assert failed["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
