"""The API's metrics: who may have them, what they count, and that the page of metrics lists them all."""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

from flask.testing import FlaskClient
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from core import ids
from core.database import Database
from core.metrics import ShareMetrics, new_registry
from core.settings import Settings
from jobs import metrics
from jobs.answers import votes
from jobs.findings import Action, Finding, FindingKind
from jobs.images import ImageReader
from jobs.lifecycle import Priority
from jobs.store import batches, pauses, storage, submission, workers
from tests import factories
from tests.api import batches as batch_files
from tests.api import worker
from tests.api.conftest import Caller
from tests.databases import Age
from tests.fakes import RecordingWakeup
from webhooks.metrics import DeliveryMetrics

ROOT = Path(__file__).parents[2]
_ROW = re.compile(
    r"^\| `(longlook_\w+)` \| (\w+) \| ([^|]*)\| (API|both|delivery) \|", re.MULTILINE
)
_CODE = re.compile(r"^\| `(\w+)` \| ", re.MULTILINE)


class Scrape:
    """What ``/metrics`` showed at one moment."""

    def __init__(self, text: str) -> None:
        self.families: dict[str, Metric] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def __call__(self, generation: str, **labels: str) -> float | None:
        """Return a sample's value, None when it is not there."""
        for family in self.families.values():
            for one in family.samples:
                if one.name == generation and one.labels == labels:
                    return one.value
        return None

    def own(self) -> Iterator[tuple[str, str]]:
        """Yield name and type of the service's own metrics, as they are written in queries."""
        for family in self.families.values():
            if family.name.startswith("longlook_"):
                total = "_total" if family.type == "counter" else ""
                yield family.name + total, family.type


def scrape(operator: Caller) -> Scrape:
    answer = operator("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain")
    return Scrape(answer.text)


def test_metrics_are_for_operators(client: FlaskClient, caller: Caller, operator: Caller) -> None:
    assert client.get("/metrics").status_code == 401
    assert caller("GET", "/metrics").status_code == 403
    assert operator("GET", "/metrics").status_code == 200


def test_metrics_can_be_made_public_and_say_what_was_built(
    settings: Settings, database: Database, decoder: ImageReader
) -> None:
    public = settings.model_copy(update={"metrics_public": True, "revision": "abc123"})
    app = create_app(public, database=database, wakeup=RecordingWakeup(), images=decoder)

    shown = Scrape(app.test_client().get("/metrics").text)

    assert shown("longlook_database_up") == 1
    version = importlib.metadata.version("longlook")
    assert shown("longlook_build_info", version=version, revision="abc123") == 1


def test_without_a_database_the_processs_own_metrics_are_shown(
    settings: Settings, decoder: ImageReader, tmp_path: Path
) -> None:
    public = settings.model_copy(update={"metrics_public": True})
    database = Database(f"sqlite:///{tmp_path}/no/such.db")
    app = create_app(public, database=database, wakeup=RecordingWakeup(), images=decoder)
    client = app.test_client()
    client.get("/livez")

    shown = Scrape(client.get("/metrics").text)

    database.close()
    live = {"route": "/livez", "method": "GET", "code": "200"}
    assert shown("longlook_http_requests_total", **live) == 1
    assert shown("longlook_database_up") == 0
    assert shown("longlook_jobs_running") is None


def test_a_paused_job_is_not_old_but_another_one_is(
    caller: Caller, operator: Caller, database: Database
) -> None:
    caller.job()
    account_id = ids.parse("acct", str(caller.job(priority="low")["account"]))

    def ages() -> dict[str, bool]:
        shown = scrape(operator)
        return {
            priority: shown("longlook_queue_oldest_age_seconds", priority=priority) != 0
            for priority in ("normal", "low")
        }

    def pause(account_id: uuid.UUID | None, priority: Priority | None) -> None:
        pauses.pause(
            database, account_id=account_id, priority=priority, actor="operator", reason=None
        )

    assert ages() == {"normal": True, "low": True}
    pause(None, Priority.LOW)
    assert ages() == {"normal": True, "low": False}
    pause(account_id, None)
    assert ages() == {"normal": False, "low": False}
    assert scrape(operator)("longlook_queue_depth", priority="normal", state="due") == 1
    pauses.resume(database, account_id=account_id, priority=None, actor="operator")
    assert ages() == {"normal": True, "low": False}


def test_the_gauges_show_queue_and_workers(
    caller: Caller, operator: Caller, database: Database
) -> None:
    caller.job()
    caller.job(priority="high")
    worker.start(database)
    engine = workers.EngineState("http://engine", "resting")
    worker_heartbeat = workers.WorkerHeartbeat("w", "h", 1, "1", slots=4, engines=(engine,))
    workers.beat(database, worker_heartbeat, alive=timedelta(minutes=1))

    shown = scrape(operator)

    assert shown("longlook_queue_depth", priority="normal", state="due") == 1
    assert shown("longlook_queue_depth", priority="high", state="due") == 0
    assert shown("longlook_queue_depth", priority="normal", state="waiting") == 0
    assert (shown("longlook_queue_oldest_age_seconds", priority="normal") or 0) > 0
    assert shown("longlook_queue_oldest_age_seconds", priority="high") == 0
    assert shown("longlook_jobs_running") == 1
    assert shown("longlook_workers", state="live") == 1
    assert shown("longlook_worker_slots") == 4
    assert shown("longlook_engines", state="resting") == 1
    assert shown("longlook_worker_busy", worker="w") == 0
    age = shown("longlook_worker_heartbeat_age_seconds", worker="w")
    assert age is not None
    assert age >= 0


def test_limits_quotas_and_redis_are_shown(
    settings: Settings, database: Database, decoder: ImageReader
) -> None:
    few = settings.model_copy(update={"metrics_public": True, "queued_jobs_total": 7})
    client = create_app(
        few, database=database, wakeup=RecordingWakeup(), images=decoder
    ).test_client()
    account_id = factories.make_account(database, "stores")
    before = Scrape(client.get("/metrics").text)
    image = factories.make_image(data=bytes(2**20))
    submission.store_image(database, account_id=account_id, image=image)

    def states(storage_mb: int) -> dict[str, float | None]:
        storage.limit_account(database, "stores", storage_mb=storage_mb)
        shown = Scrape(client.get("/metrics").text)
        return {
            state: shown("longlook_storage_accounts", state=state) for state in storage.QuotaState
        }

    assert before("longlook_limit", limit="queued_jobs_total") == 7
    assert before("longlook_redis_up") == 1
    assert before("longlook_storage_bytes") == 0
    assert (Scrape(client.get("/metrics").text)("longlook_storage_bytes") or 0) >= 2**20
    others = database_accounts(database) - 1
    assert states(100) == {"ok": others + 1, "near": 0, "full": 0, "unlimited": 0}
    assert states(1) == {"ok": others, "near": 0, "full": 1, "unlimited": 0}
    assert states(0) == {"ok": others, "near": 0, "full": 0, "unlimited": 1}
    submission.store_image(
        database, account_id=account_id, image=factories.make_image(data=bytes(900 * 2**10))
    )
    assert states(2) == {"ok": others, "near": 1, "full": 0, "unlimited": 0}


def database_accounts(database: Database) -> int:
    """Return the number of accounts."""
    return len(storage.accounts(database, default_mb=1))


def test_a_worker_that_fell_silent_is_missed_for_a_while_and_then_no_more(
    operator: Caller, database: Database, age: Age
) -> None:
    workers.beat(
        database, workers.WorkerHeartbeat("w", "h", 1, "1", slots=4), alive=timedelta(minutes=1)
    )

    age(61)
    noticed = scrape(operator)
    age(15 * 60)
    over = scrape(operator)

    heartbeat = "longlook_worker_heartbeat_age_seconds"
    assert (noticed(heartbeat, worker="w") or 0) >= 61
    assert noticed("longlook_workers", state="silent") == 1
    assert over(heartbeat, worker="w") is None
    assert over("longlook_worker_busy", worker="w") is None
    assert over("longlook_workers", state="silent") == 0
    [listed] = operator("GET", "/v1/queue").get_json()["workers"]
    assert (listed["id"], listed["state"]) == ("w", "silent")


def test_batches_are_counted_by_state_and_by_what_they_wait_for(
    operator: Caller, caller: Caller, database: Database, age: Age
) -> None:
    for count in (1, 2, 3):
        batch_files.create(caller, batch_files.lines(count))
    for cause in ("server_error", "queue_full"):
        held = batches.claim(database, owner="a", lease=timedelta(minutes=1))
        assert held is not None
        batches.release(database, held, pause=timedelta(hours=1), waiting_for=cause)
    age(400)

    shown = scrape(operator)

    assert shown("longlook_batches", state="validating") == 3
    assert shown("longlook_batches", state="finalizing") == 0
    assert shown("longlook_batches_waiting", cause="failing") == 1
    assert shown("longlook_batches_waiting", cause="blocked") == 1
    assert (shown("longlook_batch_oldest_due_seconds") or 0) >= 400
    assert (shown("longlook_storage_kind_bytes", kind="files") or 0) > 3 * 512


def test_requests_are_counted_by_rule_and_jobs_by_what_became_of_them(
    caller: Caller, operator: Caller
) -> None:
    job = caller.job(priority="high")
    caller("POST", job["urls"]["cancel"])
    caller("GET", "/no/such/path")
    caller.client.open("/v1/jobs", method="BREW")

    shown = scrape(operator)

    count = "longlook_http_requests_total"
    assert shown(count, route="/v1/jobs", method="POST", code="202") == 1
    assert shown(count, route="/v1/jobs/<job_id>/cancel", method="POST", code="200") == 1
    assert shown(count, route="none", method="GET", code="404") == 1
    assert shown(count, route="none", method="other", code="405") == 1
    assert shown("longlook_jobs_submitted_total", priority="high") == 1
    assert (
        shown("longlook_jobs_finished_total", priority="high", outcome="cancelled", error_code="")
        == 1
    )
    assert job["id"] not in operator("GET", "/metrics").text


def test_an_image_is_a_miss_once_and_then_a_hit_by_its_file_and_by_its_id(
    caller: Caller, operator: Caller
) -> None:
    image = caller.image()
    caller.job()
    body = {"question": "How many?", "images": [{"image_id": image["id"]}]}
    caller("POST", "/v1/jobs", json=body)
    caller("POST", "/v1/jobs", json=body | {"images": [{"image_id": "img_unknown"}]})

    shown = scrape(operator)

    count = "longlook_cache_requests_total"
    assert shown(count, cache="image", result="miss") == 1
    assert shown(count, cache="image", result="hit") == 2
    assert shown("longlook_image_bytes_count") == 2


def names(counting: Callable[..., object], database: Database, **more: str) -> set[str]:
    """Return the names of what a process of a kind counts."""
    registry = new_registry()
    counting(database, registry=registry, **more)
    return {family.name for family in registry.collect()}


def test_the_page_of_metrics_lists_each_metric_and_no_other(
    caller: Caller, operator: Caller, database: Database
) -> None:
    caller.job()
    found = Finding(FindingKind.LOOP, generation=0, start=0, end=1, action=Action.STOPPED)
    agreed = (votes.AnswerClass("6", (0, 1)),)
    tally = votes.Tally(
        requested=3, begun=2, classes=agreed, abstained=(), generations={0: 0, 1: 1}
    )
    worker.end(database, worker.start(database), found=[found], tally=tally)
    caller.job()
    worker.fail(database)
    worker_heartbeat = workers.WorkerHeartbeat("w", "h", 1, "1", slots=4)
    workers.beat(database, worker_heartbeat, alive=timedelta(minutes=1))
    operator("GET", "/metrics")  # So that its own labels are there.
    api = scrape(operator)
    of_worker = names(metrics.JobMetrics, database, model="tiny-qvq")
    of_worker |= {family.name for family in ShareMetrics(list).collect()}
    of_delivery = names(DeliveryMetrics, database) - of_worker
    page = _ROW.findall((ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8"))

    reported = {(name, kind) for name, kind, _, where in page if where != "delivery"}
    assert reported == set(api.own())
    assert {name.removesuffix("_total") for name, _, _, where in page if where == "delivery"} == {
        name for name in of_delivery if name.startswith("longlook_")
    }
    for name, _, labels, where in page:
        if where == "delivery":
            continue
        family = api.families[name.removesuffix("_total")]
        used = {label for generation in family.samples for label in generation.labels} - {"le"}
        assert used == set(re.findall(r"`(\w+)`", labels)), name
        assert (where == "both") is (name.removesuffix("_total") in of_worker), name


def test_each_documented_code_of_a_failed_job_has_its_label() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    table = page.split("`error.code` of a failed job", 1)[1].split("\n\n", 1)[0]

    assert set(_CODE.findall(table)) <= metrics.CODES
