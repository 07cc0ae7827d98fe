"""Batches whose files hold what no database stores, or that end before their files are read."""

from __future__ import annotations

import json

import pytest

from api.framework import Router
from core.database import Database
from core.settings import Settings
from jobs.records.files import BatchStatus
from jobs.store import accounts, storage
from tests import databases
from tests.api import batches
from tests.api.batches import WINDOW, create, get, line, lines, settle
from tests.api.conftest import Caller, Json

BOTH = pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
NUL = "a\0b"


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """Most is tried on SQLite; what counts in SQL on both."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Few jobs of a batch at once."""
    return settings.model_copy(update={"batch_window": WINDOW})


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
