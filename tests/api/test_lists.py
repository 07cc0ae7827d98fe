"""The history of jobs by pages and filters, and the queue."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from urllib.parse import urlencode

from flask.testing import FlaskClient

from core.database import Database, utcnow
from jobs.lifecycle import Role
from jobs.store import accounts
from tests import databases, factories
from tests.api import image_files, worker
from tests.api.asking import faults
from tests.api.conftest import Caller


class TestLists:
    def listed(self, caller: Caller, query: str = "") -> list[str]:
        answer = caller("GET", f"/v1/jobs?{query}")
        assert answer.status_code == 200, answer.text
        return [job["id"] for job in answer.get_json()["data"]]

    def test_pages_follow_each_other_by_cursor_in_both_orders(self, caller: Caller) -> None:
        jobs = [caller.job(question=f"Number {number}?")["id"] for number in range(5)]
        for order, expected in (("desc", jobs[::-1]), ("asc", jobs)):
            found: list[str] = []
            cursor, more = "", True
            while more:
                page = caller("GET", f"/v1/jobs?limit=2&order={order}{cursor}").get_json()
                found += [job["id"] for job in page["data"]]
                assert (page["object"], page["first_id"], page["last_id"]) == (
                    "list", page["data"][0]["id"], page["data"][-1]["id"],
                )  # fmt: skip
                cursor, more = f"&after={page['last_id']}", page["has_more"]
            assert found == expected

    def test_an_empty_list_has_no_ids(self, caller: Caller) -> None:
        page = caller("GET", "/v1/jobs").get_json()
        assert page == {
            "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
        }  # fmt: skip

    def test_jobs_are_found_by_status(self, caller: Caller, database: Database) -> None:
        finished = caller.job()["id"]
        worker.finish(database)
        queued = caller.job()["id"]
        cancelled = caller.job()
        caller("POST", cancelled["urls"]["cancel"])
        assert self.listed(caller, "status=succeeded") == [finished]
        assert self.listed(caller, "status=queued&status=succeeded") == [queued, finished]

    def test_jobs_are_found_by_time(self, caller: Caller, clock: databases.Clock) -> None:
        first = caller.job()
        clock.advance(60)
        second = caller.job()
        at = second["created_at"]
        unix = datetime.fromisoformat(at).timestamp()
        assert self.listed(caller, f"created_after={at}") == [second["id"]]
        assert self.listed(caller, f"created_after={unix - 1:.3f}") == [second["id"]]
        assert self.listed(caller, f"created_before={at}") == [first["id"]]
        assert self.listed(caller, "created_after=2020-01-01T00:00:00%2B02:00&limit=1&order=asc") == [
            first["id"]
        ]  # fmt: skip

    def test_jobs_are_found_by_metadata(self, caller: Caller) -> None:
        one = caller.job(metadata={"case": "1", "site": "a"})["id"]
        two = caller.job(metadata={"case": "2", "site": "a"})["id"]
        assert self.listed(caller, "metadata[site]=a") == [two, one]
        assert self.listed(caller, "metadata[site]=a&metadata[case]=1") == [one]
        assert self.listed(caller, "metadata[nothing]=1") == []

    def test_jobs_are_found_by_image(self, caller: Caller) -> None:
        job = caller.job(image=image_files.png(seed=1))
        caller.job(image=image_files.png(seed=2))
        image = job["images"][0]
        assert self.listed(caller, f"image={image['id']}") == [job["id"]]
        assert self.listed(caller, f"image={image['sha256']}") == [job["id"]]

    def test_jobs_are_found_by_qualifiers_that_all_have_to_hold(
        self, caller: Caller, database: Database, clock: databases.Clock
    ) -> None:
        failed = caller.job(metadata={"case": "4:2"})
        worker.fail(database)
        queued = caller.job(metadata={"case": "4:2"})
        sha256 = queued["images"][0]["sha256"]
        clock.advance(3600)
        young = caller.job()

        def requested(query: str) -> list[str]:
            return self.listed(caller, urlencode({"q": query}))

        assert requested("status:failed error:engine_rejected") == [failed["id"]]
        assert requested("error:timeout error:worker_lost") == []
        assert requested('meta.case:"4:2"') == [queued["id"], failed["id"]]
        assert requested(f"image:{sha256} created:>30m status:queued") == [queued["id"]]
        assert requested("created:<30m") == [young["id"]]
        assert self.listed(caller, urlencode({"q": "created:>30m", "status": "queued"})) == [
            queued["id"]
        ]

    def test_jobs_are_found_by_phrases_in_question_answer_and_trace(
        self, caller: Caller, stranger: Caller, database: Database
    ) -> None:
        job = caller.job(question="Wie viele Kreise?")["id"]
        worker.finish(database, text="我看到六个圆形。 Six of them.", answer="six")
        caller.job()

        for query in ("kreise", '"看到六个"', '"six of them" kreise', "six status:succeeded"):
            assert self.listed(caller, urlencode({"q": query})) == [job], query
            assert self.listed(stranger, urlencode({"q": query})) == [], query
        assert self.listed(caller, urlencode({"q": '"of six"'})) == []
        refused = caller("GET", "/v1/jobs?" + urlencode({"q": "六"}))
        assert refused.status_code == 422
        assert "q: Character 1: The phrase is too short" in refused.text

    def test_every_fault_of_a_query_has_its_place(self, caller: Caller) -> None:
        answer = caller("GET", "/v1/jobs?" + urlencode({"q": "status:odd finding:odd"}))

        assert answer.status_code == 422
        kinds = "loop, paraphrase_loop, budget, converged, language, verify, no_answer, refusal"
        reported = [(fault["parameter"], fault["detail"]) for fault in answer.get_json()["errors"]]
        assert reported == [
            (
                "q",
                "Character 1: The status must be one of queued, running, succeeded, failed, cancelled.",
            ),
            ("q", f"Character 12: The finding must be one of {kinds}."),
        ]

    def test_a_query_and_a_parameter_cannot_ask_for_the_same(self, caller: Caller) -> None:
        query = urlencode({"q": "status:failed", "status": "queued"})
        answer = caller("GET", f"/v1/jobs?{query}")
        assert answer.status_code == 422
        assert "q: A parameter already sets these filters: statuses." in answer.text

    def test_a_listed_job_is_the_job_without_what_costs_a_query_each(self, caller: Caller) -> None:
        job = caller.job()
        listed = caller("GET", "/v1/jobs").get_json()["data"][0]
        assert listed == job | {"queue": None}


def test_the_queue_position_counts_who_is_claimed_first(caller: Caller) -> None:
    caller.job()
    low = caller.job(priority="low")
    high = caller.job(priority="high")
    caller.job()
    positions = [
        caller("GET", job["urls"]["self"]).get_json()["queue"]["position"] for job in (low, high)
    ]
    assert positions == [4, 1]


def test_a_submission_behind_a_long_queue_says_that_it_was_not_counted(
    caller: Caller, database: Database
) -> None:
    account = accounts.account_id(database, "default")
    long_ago = utcnow() - timedelta(days=1)
    factories.insert_jobs(database, account, [{"ordering_at": long_ago} for _ in range(150)])
    job = caller.job()
    assert job["queue"] == {
        "position": 101,
        "at_least": True,
        "eta_seconds": None,
        "paused": False,
    }
    shown = caller("GET", job["urls"]["self"]).get_json()
    assert shown["queue"] == {
        "position": 151,
        "at_least": False,
        "eta_seconds": None,
        "paused": False,
    }


def test_a_long_wait_in_the_queue_is_polled_less_often(
    caller: Caller, database: Database, clock: databases.Clock
) -> None:
    for _ in range(20):
        caller.job()
        claimed = worker.start(database)
        clock.advance(40)
        worker.end(database, claimed)
    job = caller.job()
    answer = caller("GET", job["urls"]["self"])
    assert answer.get_json()["queue"] == {
        "position": 1,
        "at_least": False,
        "eta_seconds": 40,
        "paused": False,
    }
    assert answer.headers["Retry-After"] == "10"


def test_rows_made_by_others_are_shown_as_well(caller: Caller, database: Database) -> None:
    account = accounts.account_id(database, "default")
    factories.insert_jobs(database, account, [{}])
    answer = caller("GET", "/v1/jobs")
    assert answer.get_json()["data"][0]["options"]["max_output_tokens"] is None


def test_every_list_names_a_wrong_cursor_with_the_other_faults(
    client: FlaskClient, database: Database
) -> None:
    admin = Caller(client, factories.make_key(database, role=Role.ADMIN))
    lists = [
        path
        for path, item in client.get("/openapi.json").get_json()["paths"].items()
        for parameter in item.get("get", {}).get("parameters", [])
        if parameter["name"] == "after" and "last_id" in parameter["description"]
    ]
    assert len(lists) > 10
    for path in lists:
        answer = admin("GET", re.sub(r"\{\w+\}", "x", path) + "?after=x&limit=0")
        assert set(faults(answer)) == {"after", "limit"}, path
