"""``/v1/batches`` and the slices that work on them; :mod:`tests.clients.test_batches` has real workers."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from api.app import create_app, service_of
from api.framework import Router
from core import ids
from core.database import Database
from core.settings import Settings
from jobs.answers.extraction import Answer
from jobs.images import ImageReader
from jobs.lifecycle import Priority
from jobs.records.files import BatchEntry, BatchStatus
from jobs.records.jobs import Job
from jobs.store import accounts, claims, expiry, files, purge, storage
from jobs.store import settle as settle_job
from jobs.store.purge import Periods
from tests import databases, factories, webhooks
from tests.api import batches, image_files, worker
from tests.api.batches import WINDOW, content, create, get, line, lines, settle
from tests.api.conftest import Caller, Json, Part
from tests.fakes import RecordingWakeup


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Few jobs of a batch at once."""
    return settings.model_copy(update={"batch_window": WINDOW})


def faults(batch: Json) -> list[tuple[Any, str, Any]]:
    """Return line, code and place of the faults of a batch."""
    return [(each["line"], each["code"], each["param"]) for each in batch["errors"]["data"]]


def sweep(database: Database) -> expiry.Expired:
    """Let jobs past their deadlines end."""
    return expiry.sweep(database, actor="sweeper:test", crash_limit=3, rng=random.Random(1))


def run(app: Router, database: Database, batch: Json) -> BatchStatus:
    """Let a worker finish all jobs of a batch, as they come."""
    while not (status := settle(app, database, batch)).terminal:
        worker.finish(database)
    return status


class TestValidation:
    def test_all_faults_of_all_lines_are_found_at_once(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(
            caller,
            [
                line("good"),
                "not JSON",
                line("", method="GET", body={"input": "x", "temperature": 9}),
                line("far", url="/v1/embeddings"),
                "",
                line("good"),
                line("model", body={"model": "gpt-5", "input": "x"}),
                line("both", body={"input": "x", "temperature": 9, "tools": [{"type": "x"}]}),
                line("streamed", body={"input": "x", "stream": True, "store": False}),
                {"custom_id": "bare"},
                "[]",
            ],
        )
        assert batch["status"] == "validating"
        assert settle(app, database, batch) is BatchStatus.FAILED

        failed = get(caller, batch)
        assert faults(failed) == [
            (2, "invalid_json_line", None),
            (3, "invalid_request_error", "custom_id"),
            (3, "invalid_request_error", "method"),
            (3, "invalid_request_error", "body.temperature"),
            (4, "invalid_request_error", "url"),
            (6, "duplicate_custom_id", "custom_id"),
            (7, "model_not_found", "body.model"),
            (8, "unsupported_parameter", "body.tools"),
            (8, "invalid_request_error", "body.temperature"),
            (9, "unsupported_parameter", "body.stream"),
            (9, "unsupported_parameter", "body.store"),
            (10, "invalid_request_error", "method"),
            (10, "invalid_request_error", "url"),
            (10, "invalid_request_error", "body"),
            (11, "invalid_request_error", None),
        ]
        assert failed["errors"]["total"] == 15
        assert failed["failed_at"] is not None
        assert (failed["output_file_id"], failed["error_file_id"]) == (None, None)
        assert batches.jobs(database) == 0

    def test_the_first_thousand_faults_are_shown_and_all_are_counted(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, ["{}"] * 600)
        settle(app, database, batch)
        failed = get(caller, batch)
        assert failed["errors"]["total"] == 600 * 4
        assert len(failed["errors"]["data"]) == 1000
        assert failed["request_counts"] == {"total": 600, "completed": 0, "failed": 0}

    def test_an_id_that_a_slice_long_before_had_is_a_fault(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, [*lines(450), line("line-3")])
        settle(app, database, batch)
        assert faults(get(caller, batch)) == [(451, "duplicate_custom_id", "custom_id")]

    @pytest.mark.parametrize("data", [b"", b"\n \n\r\n"])
    def test_a_file_without_lines_is_a_fault(
        self, app: Router, caller: Caller, database: Database, data: bytes
    ) -> None:
        # A form without content and name would be no file at all.
        batch = create(caller, data or b"\n")
        settle(app, database, batch)
        assert faults(get(caller, batch)) == [(None, "empty_file", None)]

    def test_what_is_behind_too_many_empty_lines_is_not_read(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, b"\n" * 300_000 + b"oops\n")
        settle(app, database, batch)
        assert faults(get(caller, batch)) == [(None, "too_many_lines", None)]

    def test_what_is_behind_too_many_lines_is_not_read(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, b"x\n" * 60_000)
        settle(app, database, batch)
        failed = get(caller, batch)
        assert failed["request_counts"]["total"] == 50_001
        assert failed["errors"]["total"] == 50_002

    def test_a_line_that_is_too_long_is_a_fault_of_its_own(
        self, app: Router, caller: Caller, database: Database, settings: Settings
    ) -> None:
        long = line("long", "x" * (settings.max_body_mb * 2**20))
        batch = create(caller, [line("a"), long, "oops"])
        settle(app, database, batch)
        assert faults(get(caller, batch)) == [
            (2, "line_too_long", None),
            (3, "invalid_json_line", None),
        ]

    def test_line_ends_and_marks_of_editors_do_not_matter(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        data = b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(each).encode() for each in lines(3))
        batch = create(caller, data)
        assert run(app, database, batch) is BatchStatus.COMPLETED
        done = get(caller, batch)
        assert [each["custom_id"] for each in content(caller, done["output_file_id"])] == [
            "line-0", "line-1", "line-2",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("body", "places"),
        [
            ({}, ["input_file_id", "endpoint", "completion_window"]),
            (
                {
                    "input_file_id": "file-0",
                    "endpoint": "/v1/embeddings",
                    "completion_window": "24h",
                },
                ["endpoint", "input_file_id"],
            ),
            (
                {
                    "input_file_id": "x",
                    "endpoint": "/v1/responses",
                    "completion_window": "soon",
                    "output_expires_after": {"anchor": "created_at", "seconds": 1},
                    "more": 1,
                },
                ["completion_window", "output_expires_after.seconds", "more"],
            ),
        ],
    )
    def test_faults_of_the_request_are_400_with_every_place(
        self, caller: Caller, body: Json, places: list[str]
    ) -> None:
        answer = caller("POST", "/v1/batches", json=body)
        problem = answer.get_json()
        assert answer.status_code == 400, answer.text
        named = [
            fault["pointer"].removeprefix("#/").replace("/", ".") for fault in problem["errors"]
        ]
        assert named == places

    def test_the_file_has_to_be_the_accounts_own_and_for_batches(
        self, caller: Caller, stranger: Caller
    ) -> None:
        file_id = batches.upload(caller, lines(1))
        body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "1h"}
        other = stranger("POST", "/v1/batches", json=body)
        assert (other.status_code, other.get_json()["error"]["param"]) == (400, "input_file_id")
        form: dict[str, Part | list[Part]] = {"file": b"x", "purpose": "user_data"}
        plain = caller.form("/v1/files", form).get_json()["id"]
        answer = caller("POST", "/v1/batches", json=body | {"input_file_id": plain})
        assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "input_file_id")


class TestRunning:
    def test_each_line_becomes_one_job_and_its_answer_one_line(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(10), metadata={"set": "a"})
        assert run(app, database, batch) is BatchStatus.COMPLETED

        done = get(caller, batch)
        assert done["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
        assert done["error_file_id"] is None
        assert done["errors"] is None
        assert done["metadata"] == {"set": "a"}
        for name in ("in_progress_at", "finalizing_at", "completed_at"):
            assert done[name] is not None
        assert done["cancelled_at"] is None
        output = content(caller, done["output_file_id"])
        assert [each["custom_id"] for each in output] == [f"line-{n}" for n in range(10)]
        assert len({each["id"] for each in output}) == 10
        assert {each["response"]["status_code"] for each in output} == {200}
        assert {each["response"]["body"]["object"] for each in output} == {"response"}
        assert len({each["response"]["request_id"] for each in output}) == 10
        assert batches.jobs(database) == 10
        for each in output:
            assert each["response"]["body"]["usage"] == output[0]["response"]["body"]["usage"]
        one = output[0]["response"]["body"]["usage"]
        assert done["usage"]["total_tokens"] == 10 * one["total_tokens"] > 0
        listed = caller("GET", "/v1/files?purpose=batch_output").get_json()["data"]
        assert [file["id"] for file in listed] == [done["output_file_id"]]
        assert listed[0]["expires_at"] - listed[0]["created_at"] == 30 * 86400

    def test_the_usage_grows_while_the_batch_runs(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(3))
        assert batch["usage"] is None
        totals: list[int] = []
        for _ in range(3):
            settle(app, database, batch)
            worker.finish(database)
            settle(app, database, batch)
            totals.append(get(caller, batch)["usage"]["total_tokens"])
        assert totals == [totals[0], 2 * totals[0], 3 * totals[0]]
        output = content(caller, get(caller, batch)["output_file_id"])
        assert [each["response"]["body"]["usage"]["total_tokens"] for each in output] == [
            totals[0]
        ] * 3
        assert get(caller, batch)["usage"]["total_tokens"] == totals[-1]

    def test_the_usage_of_a_batch_is_that_of_its_lines_for_answers_in_json(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        body = {"input": "x", "text": {"format": {"type": "json_object"}}}
        batch = create(caller, [line("json", body=body)])
        settle(app, database, batch)
        claimed = worker.start(database)
        ended, found = factories.make_ended("I see"), Answer('{"n": 1}', "json_object")
        assert claims.follow(
            database, claimed, ended=ended, finding=None, rid="r", stored=0, inserted=""
        )
        last = factories.make_ended('{"n": 1}', generation=1)
        assert settle_job.succeed(database, claimed, answer=found, generation=last)
        settle(app, database, batch)

        done = get(caller, batch)
        [output] = content(caller, done["output_file_id"])
        usage = output["response"]["body"]["usage"]["output_tokens_details"]
        assert done["usage"]["output_tokens_details"] == usage
        assert 0 < usage["reasoning_tokens"] < done["usage"]["output_tokens"]

    def test_jobs_are_of_low_priority_and_few_at_a_time(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(20))
        assert settle(app, database, batch) is BatchStatus.IN_PROGRESS
        assert batches.jobs(database) == WINDOW
        listed = caller("GET", "/v1/jobs").get_json()["data"]
        assert {job["priority"] for job in listed} == {"low"}
        for _ in range(2):
            worker.finish(database)
        settle(app, database, batch)
        assert batches.jobs(database) == WINDOW + 2

    def test_a_single_job_goes_before_the_batch(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        settle(app, database, create(caller, lines(20)))
        single = caller.job()
        claimed = factories.claim(database)
        assert ids.show("job", claimed.job_id) == single["id"]

    def test_a_failed_job_goes_to_the_error_file_and_is_repeated(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(3))
        settle(app, database, batch)
        worker.finish(database)
        worker.fail(database)
        worker.finish(database)
        assert run(app, database, batch) is BatchStatus.COMPLETED
        done = get(caller, batch)
        assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
        [failed] = content(caller, done["error_file_id"])
        assert failed["response"]["status_code"] == 500
        assert failed["response"]["body"]["error"]["code"] == "engine_rejected"
        assert failed["error"] is None

        answer = caller("POST", f"/v1/batches/{batch['id']}/retry")
        again = answer.get_json()
        assert answer.status_code == 200, answer.text
        assert again["retry_of"] == batch["id"]
        assert run(app, database, again) is BatchStatus.COMPLETED
        [repeated] = content(caller, get(caller, again)["output_file_id"])
        assert repeated["custom_id"] == failed["custom_id"]
        nothing = caller("POST", f"/v1/batches/{again['id']}/retry")
        assert (nothing.status_code, nothing.get_json()["error"]["code"]) == (
            409,
            "nothing_to_retry",
        )

    def test_a_batch_of_failures_only_has_no_output_file(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(2))
        settle(app, database, batch)
        worker.fail(database)
        worker.fail(database)
        assert settle(app, database, batch) is BatchStatus.COMPLETED
        done = get(caller, batch)
        assert done["output_file_id"] is None
        assert len(content(caller, done["error_file_id"])) == 2

    def test_a_line_that_is_refused_is_its_result(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        part = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        body = {"input": [{"role": "user", "content": [part]}]}
        batch = create(caller, [line("bad", body=body), line("good")])
        assert run(app, database, batch) is BatchStatus.COMPLETED
        done = get(caller, batch)
        [refused] = content(caller, done["error_file_id"])
        assert (refused["custom_id"], refused["response"]["status_code"]) == ("bad", 400)
        error = refused["response"]["body"]["error"]
        assert error["param"] == "input[0].content[0].image_url"
        assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}

    def test_an_image_file_is_an_input(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        form: dict[str, Part | list[Part]] = {"file": image_files.png(), "purpose": "vision"}
        image = caller.form("/v1/files", form).get_json()["id"]
        part = {"type": "input_image", "file_id": image}
        body = {"input": [{"role": "user", "content": [part, {"type": "input_text", "text": "?"}]}]}
        unknown = {"input": [{"role": "user", "content": [part | {"file_id": "file-" + "0" * 32}]}]}
        batch = create(caller, [line("a", body=body)])
        assert run(app, database, batch) is BatchStatus.COMPLETED
        assert get(caller, batch)["request_counts"]["completed"] == 1
        broken = create(caller, [line("a", body=unknown)])
        assert run(app, database, broken) is BatchStatus.FAILED
        assert faults(get(caller, broken))[0][2] == "body.input[0].content[0].file_id"

    def test_results_can_be_read_page_by_page_at_any_time(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(WINDOW))
        path = f"/v1/batches/{batch['id']}/results"
        settle(app, database, batch)
        assert caller("GET", path).get_json()["data"] == []
        worker.finish(database)
        worker.fail(database)
        worker.finish(database)
        settle(app, database, batch)
        first = caller("GET", f"{path}?limit=2").get_json()
        assert [each["custom_id"] for each in first["data"]] == ["line-0", "line-1"]
        assert first["has_more"] is True
        rest = caller("GET", f"{path}?limit=2&after={first['last_id']}").get_json()
        assert [each["custom_id"] for each in rest["data"]] == ["line-2"]
        assert rest["has_more"] is False
        failed = caller("GET", f"{path}?status=failed").get_json()["data"]
        assert [each["custom_id"] for each in failed] == ["line-1"]
        assert caller("GET", f"{path}?after=batch_req_1").status_code == 400
        worker.finish(database)
        run(app, database, batch)
        done = get(caller, batch)
        completed = caller("GET", f"{path}?status=completed").get_json()["data"]
        assert completed == content(caller, done["output_file_id"])


class TestEnding:
    def test_a_cancelled_batch_keeps_its_finished_lines(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(10))
        settle(app, database, batch)
        worker.finish(database)
        worker.finish(database)
        settle(app, database, batch)
        running = worker.start(database)
        path = f"/v1/batches/{batch['id']}/cancel"
        cancelling = caller("POST", path).get_json()
        assert (cancelling["status"], cancelling["output_file_id"]) == ("cancelling", None)
        assert settle(app, database, batch) is BatchStatus.CANCELLING
        worker.end(database, running)
        assert settle(app, database, batch) is BatchStatus.CANCELLED

        done = get(caller, batch)
        assert caller("POST", path).get_json() == done
        output, failed = (
            content(caller, done[name]) for name in ("output_file_id", "error_file_id")
        )
        assert len(output) + len(failed) == 10
        assert len(output) >= 2
        assert {each["error"]["code"] for each in failed} == {"batch_cancelled"}
        assert done["request_counts"] == {
            "total": 10, "completed": len(output), "failed": len(failed),
        }  # fmt: skip
        assert done["cancelling_at"] <= done["cancelled_at"]

    def test_a_batch_is_cancelled_before_it_is_read(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(3))
        caller("POST", f"/v1/batches/{batch['id']}/cancel")
        assert settle(app, database, batch) is BatchStatus.CANCELLED
        done = get(caller, batch)
        assert (done["output_file_id"], done["error_file_id"]) == (None, None)
        assert batches.jobs(database) == 0

    def test_what_has_ended_cannot_be_cancelled(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(1))
        run(app, database, batch)
        answer = caller("POST", f"/v1/batches/{batch['id']}/cancel")
        assert answer.status_code == 409
        assert answer.get_json()["error"]["code"] == "batch_not_cancellable"
        assert answer.headers["x-should-retry"] == "false"

    def test_an_expired_batch_keeps_its_finished_lines(
        self, app: Router, caller: Caller, database: Database, clock: databases.Clock
    ) -> None:
        batch = create(caller, lines(10), completion_window="1h")
        settle(app, database, batch)
        worker.finish(database)
        settle(app, database, batch)
        clock.advance(3601)
        assert settle(app, database, batch) is BatchStatus.EXPIRED
        done = get(caller, batch)
        assert len(content(caller, done["output_file_id"])) == 1
        failed = content(caller, done["error_file_id"])
        assert len(failed) == 9
        assert {each["error"]["code"] for each in failed} == {"batch_expired"}
        assert done["expired_at"] >= done["expires_at"]
        again = caller("POST", f"/v1/batches/{batch['id']}/retry").get_json()
        assert run(app, database, again) is BatchStatus.COMPLETED
        assert get(caller, again)["request_counts"]["completed"] == 9

    def test_a_line_is_late_because_of_its_batch_or_of_its_own_deadline(
        self, app: Router, caller: Caller, database: Database, clock: databases.Clock
    ) -> None:
        own = line("own", body={"input": "x", "options": {"deadline_seconds": 60}})
        batch = create(caller, [own, *lines(3)], completion_window="1h")
        settle(app, database, batch)
        with database.reading() as transaction:
            [expires_at] = transaction.execute(sa.select(BatchEntry.expires_at)).scalars()
            ends = transaction.execute(sa.select(Job.deadline_at).order_by(Job.id)).scalars().all()
        assert [end >= expires_at for end in ends] == [False, True, True, True]
        clock.advance(3610)
        assert sweep(database).overdue == 4

        assert settle(app, database, batch) is BatchStatus.EXPIRED

        failed = content(caller, get(caller, batch)["error_file_id"])
        first, *others = [each["error"] for each in failed]
        assert first is None
        assert failed[0]["response"]["body"]["error"]["code"] == "deadline_exceeded"
        assert [error["code"] for error in others] == ["batch_expired"] * 3

    def test_a_revoked_key_stops_its_batch(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(10))
        settle(app, database, batch)
        worker.finish(database)
        for row in accounts.keys(database):
            accounts.revoke_key(database, row.key_id)
        assert settle(app, database, batch) is BatchStatus.CANCELLED
        other = Caller(caller.client, factories.make_key(database))
        done = get(other, batch)
        assert done["errors"]["data"][0]["code"] == "key_revoked"
        assert len(content(other, done["output_file_id"])) == 1

    def test_the_input_file_stays_while_a_batch_needs_it(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(1))
        path = f"/v1/files/{batch['input_file_id']}"
        refused = caller("DELETE", path)
        assert (refused.status_code, refused.get_json()["error"]["code"]) == (409, "file_in_use")
        run(app, database, batch)
        assert caller("DELETE", path).status_code == 200
        assert len(content(caller, get(caller, batch)["output_file_id"])) == 1
        gone = caller("POST", f"/v1/batches/{batch['id']}/retry")
        assert gone.status_code == 409

    def test_files_expire_when_the_request_says(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        after = {"anchor": "created_at", "seconds": 7200}
        batch = create(caller, lines(1), output_expires_after=after)
        run(app, database, batch)
        file = caller("GET", f"/v1/files/{get(caller, batch)['output_file_id']}").get_json()
        assert file["expires_at"] == file["created_at"] + 7200

    def test_the_end_of_a_batch_is_an_event_and_that_of_a_line_is_none(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        account_id = accounts.account_id(database, "default")
        types = [f"batch.{name}" for name in ("completed", "failed", "expired", "cancelled")]
        webhooks.make_endpoint(database, account_id, event_types=[*types, "response.completed"])
        cancelled = create(caller, lines(1))
        caller("POST", f"/v1/batches/{cancelled['id']}/cancel")
        settle(app, database, cancelled)
        settle(app, database, create(caller, ["no JSON"]))
        run(app, database, create(caller, lines(1)))

        events = [event.type for event in webhooks.events(database)]
        assert events == ["batch.cancelled", "batch.failed", "batch.completed"]

    def test_slow_lines_of_a_batch_do_not_keep_others_from_their_turn(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        """Each line may fetch images from a slow server."""
        runner = batches.runner_of(app)
        runner.slices.timer = itertools.count(step=1.0).__next__
        for _ in range(2):
            create(caller, lines(3))
        counts: list[int] = []
        while not counts or counts[-1] < 6:
            batches.end_pauses(database)
            assert runner.run_slice()
            counts.append(batches.jobs(database))
        assert all(after - before <= 1 for before, after in itertools.pairwise([0, *counts]))


class TestRetention:
    @pytest.mark.parametrize("period", ["answer", "timeline"])
    def test_a_batch_goes_with_what_its_caller_wrote(
        self, app: Router, caller: Caller, database: Database, age: databases.Age, period: str
    ) -> None:
        batch = create(caller, lines(2), metadata={"patient": "Doe"})
        run(app, database, batch)
        periods = Periods(**{period: timedelta(days=2)})

        age(86_400)
        purge.batch(database, periods, actor="test")
        assert get(caller, batch)["metadata"] == {"patient": "Doe"}
        age(86_400 + 60)
        while purge.batch(database, periods, actor="test").more:
            pass

        assert caller("GET", f"/v1/batches/{batch['id']}").status_code == 404

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"retention_answer_days": 2})

    def test_files_of_batches_are_stored_no_longer_than_answers(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        after = {"anchor": "created_at", "seconds": 7 * 86_400}
        form: dict[str, Any] = {"file": json.dumps(line("a")).encode(), "purpose": "batch"}
        form |= {f"expires_after[{name}]": str(value) for name, value in after.items()}
        sent = caller.form("/v1/files", form).get_json()
        batch = batches.create_of(caller, sent["id"], output_expires_after=after)
        run(app, database, batch)
        written = caller("GET", f"/v1/files/{get(caller, batch)['output_file_id']}").get_json()
        for file in (sent, written):
            assert file["expires_at"] == file["created_at"] + 2 * 86_400


class TestRequests:
    def test_a_key_creates_one_batch(self, caller: Caller) -> None:
        file_id = batches.upload(caller, lines(1))
        headers = {"Idempotency-Key": "once"}
        first = batches.create_of(caller, file_id, headers=headers)
        again = batches.create_of(caller, file_id, headers=headers)
        assert again["id"] == first["id"]
        body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "2h"}
        reused = caller("POST", "/v1/batches", json=body, headers=headers)
        assert reused.status_code == 422
        assert len(caller("GET", "/v1/batches").get_json()["data"]) == 1

    def test_lists_go_page_by_page_and_hide_other_accounts(
        self, caller: Caller, stranger: Caller
    ) -> None:
        file_id = batches.upload(caller, lines(1))
        made = [batches.create_of(caller, file_id)["id"] for _ in range(3)]
        first = caller("GET", "/v1/batches?limit=2").get_json()
        rest = caller("GET", f"/v1/batches?limit=2&after={first['last_id']}").get_json()
        assert [each["id"] for each in first["data"] + rest["data"]] == made[::-1]
        assert stranger("GET", "/v1/batches").get_json()["data"] == []
        for method, path in (
            ("GET", ""), ("GET", "/results"), ("POST", "/cancel"), ("POST", "/retry"),
        ):  # fmt: skip
            assert stranger(method, f"/v1/batches/{made[0]}{path}").status_code == 404

    def test_an_account_at_its_storage_quota_creates_none(
        self, caller: Caller, database: Database
    ) -> None:
        """Each batch writes files: one key could fill the disk with batches that it cancels."""
        data = json.dumps(line("a")).encode() + b"\n" * 2**21
        new = files.NewFile(accounts.account_id(database, "default"), "batch", "lines.jsonl")
        file = files.store(database, new, [data])
        storage.limit_account(database, "default", storage_mb=1)

        body = {
            "input_file_id": ids.show("file", file.id),
            "endpoint": "/v1/responses",
            "completion_window": "24h",
        }
        refused = caller("POST", "/v1/batches", json=body)

        assert refused.status_code == 403
        assert refused.get_json()["error"]["code"] == "storage_quota_exceeded"

    def test_a_key_can_be_used_again_after_its_time(
        self, caller: Caller, clock: databases.Clock
    ) -> None:
        file_id = batches.upload(caller, lines(1))
        headers = {"Idempotency-Key": "once"}
        first = batches.create_of(caller, file_id, headers=headers)
        clock.advance(23 * 3600)
        assert batches.create_of(caller, file_id, headers=headers)["id"] == first["id"]
        clock.advance(2 * 3600)
        again = batches.create_of(caller, file_id, completion_window="2h", headers=headers)
        assert again["id"] != first["id"]


class TestLimits:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"batches_per_account": 3})

    def test_an_account_has_a_limit_of_unfinished_batches(
        self, app: Router, caller: Caller, stranger: Caller, database: Database
    ) -> None:
        file_id = batches.upload(caller, lines(1))
        [first, *_] = [batches.create_of(caller, file_id) for _ in range(3)]
        body = {"input_file_id": file_id, "endpoint": "/v1/responses", "completion_window": "24h"}
        answer = caller("POST", "/v1/batches", json=body)
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (429, "queue_full")
        create(stranger, lines(1))

        caller("POST", f"/v1/batches/{first['id']}/cancel")
        settle(app, database, first)
        assert caller("POST", "/v1/batches", json=body).status_code == 200

    def test_a_batch_is_not_read_while_its_account_is_at_its_quota(
        self, caller: Caller, database: Database, settings: Settings, decoder: ImageReader
    ) -> None:
        batch = create(caller, lines(2))
        data = [b"\n" * 2**21]
        account_id = accounts.account_id(database, "default")
        files.store(database, files.NewFile(account_id, "user_data", "large"), data)
        storage.limit_account(database, "default", storage_mb=1)

        # Another process, which has not read what the account stores.
        wakeup = RecordingWakeup()
        app = create_app(
            settings, database=database, wakeup=wakeup, delivery_wakeup=wakeup, images=decoder
        )
        assert settle(app, database, batch) is BatchStatus.VALIDATING
        shown = get(caller, batch)
        assert shown["waiting_for"] == "storage_quota_exceeded"
        assert shown["request_counts"]["total"] == 0
        storage.limit_account(database, "default", storage_mb=None)
        assert run(app, database, batch) is BatchStatus.COMPLETED
        service_of(app).drain()


def records(database: Database, account_id: uuid.UUID) -> int:
    """Return the bytes of records that the account is said to store."""
    return storage.usage(database, account_id, default_mb=0).by_kind[storage.StorageKind.RECORDS]


class TestQueue:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """A small queue."""
        return settings.model_copy(update={"queued_jobs_per_account": 6, "batch_window": 64})

    def test_half_of_the_queue_stays_free_for_single_jobs(
        self, app: Router, caller: Caller, database: Database
    ) -> None:
        batch = create(caller, lines(20))
        settle(app, database, batch)
        assert batches.jobs(database) == 3
        assert get(caller, batch)["waiting_for"] == "queue_full"
        caller.job()


def test_the_account_of_a_line_and_its_priority_are_those_of_the_key(
    app: Router, caller: Caller, database: Database
) -> None:
    settle(app, database, create(caller, [line("a", body={"input": "Why?"})]))
    claimed = factories.claim(database)
    with database.reading() as transaction:
        job = transaction.session.get_one(Job, claimed.job_id)
    assert job.account_id == accounts.account_id(database, "default")
    assert (job.priority, job.question) == (Priority.LOW, "Why?")


def test_lines_count_towards_the_quota_also_of_batches_that_have_ended(
    app: Router, caller: Caller, database: Database
) -> None:
    """A small file could otherwise become any number of rows."""
    account_id = accounts.account_id(database, "default")
    file_id = batches.upload(caller, [line("x" * 500), line("é" * 500)])
    before = records(database, account_id)
    for _ in range(2):
        batch = batches.create_of(caller, file_id, metadata={"a": "b"})
        for _ in range(2):
            batches.end_pauses(database)
            batches.runner_of(app).run_slice()
        caller("POST", f"/v1/batches/{batch['id']}/cancel")
        while not settle(app, database, batch).terminal:
            batches.finish_jobs(database)

    assert records(database, account_id) - before > 2 * (1024 + 2 * 512 + 2 * 1500)
    with database.reading() as transaction:
        counted = storage.stored(transaction, account_id)
    assert counted[storage.StorageKind.RECORDS] == records(database, account_id)
