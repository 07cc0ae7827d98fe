"""No answer grows with what receivers, callers and models choose the length of: pages end early, long texts are cut."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
import sqlalchemy as sa

from api.routes import runs
from api.schemas.deliveries import MAX_RESPONSE_CHARS
from cli import webhooks as commands
from core import ids
from core.database import Database
from jobs.store import history, settle
from tests import factories
from tests import webhooks as reported
from tests.api import worker
from tests.api.conftest import Caller, Json
from webhooks import attempts, queries, redelivery
from webhooks.policy import RESPONSE_BYTES, DeliveryStatus
from webhooks.tables import WebhookAttempt

ROOT = "/v1/webhook_endpoints"
NEW = {"name": "prod", "url": "https://receiver.example/hook", "event_types": ["job.succeeded"]}
#: Each of its characters takes six in JSON.
LOUD = dataclasses.replace(reported.DOWN, response_body=b"\x01" * RESPONSE_BYTES)


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> str:
    """Most is tried on SQLite; what counts in SQL on both."""
    return str(getattr(request, "param", "sqlite"))


def resend(
    database: Database, delivery: str, result: attempts.AttemptResult, *, times: int
) -> None:
    """Send a delivery again and again, with the same outcome."""
    delivery_id = ids.parse("dlv", delivery)
    assert delivery_id is not None
    for _ in range(times):
        redelivery.redeliver(database, delivery_id, account_id=None)
        reported.try_first(database, result)


def loud_delivery(caller: Caller, database: Database, *, resends: int) -> Json:
    """Return a delivery as a list shows it, whose receiver says a lot at each of its tries."""
    made = caller("POST", ROOT, json=NEW).get_json()
    caller.job()
    worker.finish(database)
    reported.try_first(database, LOUD)
    [listed] = caller("GET", f"{ROOT}/{made['id']}/deliveries").get_json()["data"]
    resend(database, listed["id"], LOUD, times=resends)
    [listed] = caller("GET", f"{ROOT}/{made['id']}/deliveries").get_json()["data"]
    found: Json = listed
    return found


def test_lists_of_deliveries_are_small_whatever_receivers_say(
    caller: Caller, database: Database
) -> None:
    listed = loud_delivery(caller, database, resends=30)

    for path in (
        f"/v1/jobs/{listed['job_id']}/deliveries",
        f"{ROOT}/{listed['webhook_endpoint_id']}/deliveries",
        "/v1/deliveries",
    ):
        page = caller("GET", path)
        assert len(page.data) < 8192
        [one] = page.get_json()["data"]
        assert one["attempt_count"] == 32
        numbers = [attempt["number"] for attempt in one["attempts"]]
        # The next automatic attempt is older than the newest requested one.
        assert numbers == [2, *range(33 - queries.LISTED_ATTEMPTS, 33)]
        assert {attempt["response_body"] for attempt in one["attempts"]} == {None}
        assert {attempt["request_headers"] for attempt in one["attempts"]} == {None}
        assert one["next_at"] == one["attempts"][0]["due_at"]
    assert commands.delivery_row(listed)[4] == "31"


def test_one_delivery_shows_the_newest_answers_and_says_what_is_cut(
    caller: Caller, database: Database
) -> None:
    listed = loud_delivery(caller, database, resends=12)

    shown = caller("GET", f"/v1/deliveries/{listed['id']}").get_json()

    answers = [one["response_body"] for one in shown["attempts"]]
    whole = MAX_RESPONSE_CHARS // RESPONSE_BYTES
    assert len(answers) == shown["attempt_count"] == 14
    assert sum(len(answer or "") for answer in answers) == MAX_RESPONSE_CHARS
    assert [len(answer) for answer in answers[-whole:]] == [RESPONSE_BYTES] * whole
    ended = [one for one in shown["attempts"] if one["outcome"]]
    assert [one["response_truncated"] for one in ended] == [True] * (13 - whole) + [False] * whole
    assert shown["payload"]["type"] == "job.succeeded"


def test_a_list_reads_no_answers_from_the_database(caller: Caller, database: Database) -> None:
    listed = loud_delivery(caller, database, resends=1)
    read: list[str] = []
    sa.event.listen(
        database.engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: read.append(statement),
    )

    caller("GET", "/v1/deliveries")
    assert [text for text in read if "webhook_attempts.number" in text]
    assert [
        text for text in read if "webhook_attempts.response_body" in text or ".payload" in text
    ] == []
    assert listed["status"] == DeliveryStatus.PENDING

    caller("GET", f"/v1/deliveries/{listed['id']}")
    assert [text for text in read if WebhookAttempt.__tablename__ + ".response_body" in text]


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_of_jobs_ends_before_its_texts_are_too_long(
    database: Database, *, newest_first: bool
) -> None:
    account_id = factories.make_account(database)
    share = history.MAX_PAGE_CHARS // 3
    rows: list[dict[str, object]] = [{"question": "q" * share} for _ in range(4)]
    rows += [{"question": "q", "answer_text": "a" * share, "votes": {"t": "v" * share}}]
    rows += [{"question": "q" * (history.MAX_PAGE_CHARS + 1)}, {"question": "q"}]
    made = [ids.new() for _ in rows]
    factories.insert_jobs(
        database,
        account_id,
        [{"id": job_id, **row} for job_id, row in zip(made, rows, strict=True)],
    )

    pages: list[list[uuid.UUID]] = []
    more = True
    while more:
        views, more = history.page(
            database,
            history.Filter(account_id=account_id),
            limit=100,
            after=pages[-1][-1] if pages else None,
            newest_first=newest_first,
        )
        pages.append([view.job.id for view in views])

    assert [job for page in pages for job in page] == sorted(made, reverse=newest_first)
    assert [len(page) for page in pages] == ([1, 1, 1, 2, 2] if newest_first else [2, 2, 1, 1, 1])


def test_a_job_names_the_newest_of_very_many_reruns(caller: Caller, database: Database) -> None:
    job = caller.job()
    made = [ids.new() for _ in range(history.MAX_RERUNS + 5)]
    account_id = ids.parse("acct", job["account"])
    assert account_id is not None
    original = ids.parse("job", job["id"])
    factories.insert_jobs(database, account_id, [{"id": one, "rerun_of": original} for one in made])

    shown = caller("GET", job["urls"]["self"]).get_json()

    assert shown["reruns"] == [ids.show("job", one) for one in sorted(made)[5:]]


def test_a_trace_leaves_out_old_attempts_that_are_too_long_and_names_them(
    caller: Caller, database: Database
) -> None:
    job = caller.job(max_attempts=5)
    text = "I look once more. " * (runs.MAX_TRACE_CHARS // 18 // 2 + 1)
    for _ in range(3):
        claimed = worker.start(database)
        assert settle.release(database, claimed, generation=factories.make_ended(text))
    worker.finish(database, text="It is 6.")

    trace = caller("GET", job["urls"]["trace"]).get_json()

    assert trace["omitted_attempts"] == [1, 2]
    assert [generation["attempt"] for generation in trace["generations"]] == [3, 4]
    first = caller("GET", f"{job['urls']['trace']}?attempt=1").get_json()
    assert [generation["text"] for generation in first["generations"]] == [text]
    assert first["omitted_attempts"] == []
