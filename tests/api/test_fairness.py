"""What accounts share in the API: one that holds or queues all it can delays no other one's next call."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.revocation import Revocation
from api.serving import current
from api.streams.follow import Streams
from core import ids
from core.database import Database
from core.settings import Settings
from core.shares import Shares
from jobs.events.live import Subscriber
from jobs.images import ImageReader
from jobs.lifecycle import Role
from jobs.phrases import Part
from jobs.records.search import SearchText
from jobs.store import accounts, commands
from tests import databases, factories
from tests.api import image_files, wire
from tests.api.conftest import Caller
from tests.children import wait_for_names
from tests.fakes import redis_prefix
from tests.integration import sandbox_targets

Send = Callable[[Caller, bytes], TestResponse]


@pytest.fixture
def decoder() -> Iterator[ImageReader]:
    """Return the real decoders, which hang over some images."""
    images = ImageReader.start(
        # Neither those that hang nor those that wait may be given up before the others are decoded.
        Settings.read({}, sandbox_processes=2, max_image_mb=1, sandbox_seconds=150),
        target=sandbox_targets.DECODE_OR_HANG,
    )
    yield images
    images.close()


#: All routes on which images come in.
_SENDS: tuple[Send, ...] = (
    lambda caller, image: caller("POST", "/v1/images", data=image, content_type="image/png"),
    lambda caller, image: caller("POST", "/v1/images", json={"data": image_files.data_url(image)}),
    lambda caller, image: caller.form("/v1/images", {"file": image}),
    lambda caller, image: caller.submit(image=image),
    lambda caller, image: caller.form("/v1/jobs", {"image": image, "question": "How many?"}),
    lambda caller, image: caller(
        "POST",
        "/v1/groups",
        json={"questions": ["How many?"], "images": [{"data": image_files.data_url(image)}]},
    ),
)


def test_images_that_hang_leave_a_decoder_to_another_account(
    caller: Caller, stranger: Caller, decoder: ImageReader
) -> None:
    with ThreadPoolExecutor(2 * len(_SENDS)) as threads:
        hanging = [
            threads.submit(send, caller, sandbox_targets.hanging(image_files.png(), salt=salt))
            for salt, send in enumerate(2 * _SENDS)
        ]
        wait_for_names(sandbox_targets.BEGUN, count=2)
        served = [send(stranger, image_files.png()).status_code for send in _SENDS]
        held, done = decoder.shares.held, [one for one in hanging if one.done()]
        decoder.close()

    assert served == [201, 201, 201, 202, 202, 202]
    assert (held, done) == (2, [])
    assert {one.result().status_code for one in hanging} == {503}


def account_of(database: Database, job_id: str) -> uuid.UUID:
    """Return whose job it is."""
    return factories.get_job(database, parsed("job", job_id)).job.account_id


def parsed(kind: ids.Kind, shown: str) -> uuid.UUID:
    """Return the id that is ``shown``."""
    found = ids.parse(kind, shown)
    assert found is not None
    return found


_SEARCHES = (
    "/v1/jobs?q=circles",
    "/v1/jobs?q=status:failed",
    "/v1/jobs?status=failed",
    "/v1/jobs?q=meta.case:1",
    "/v1/queue",
)


@pytest.fixture
def database(database_url: str, clock: databases.Clock) -> Iterator[Database]:
    """Return a database whose searches and waits get all the time that a busy machine takes."""
    with contextlib.closing(
        Database(database_url, clock=clock, pool_seconds=60, search_seconds=60)
    ) as opened:
        yield opened


@pytest.mark.parametrize("role", [Role.READ, Role.SUBMIT])
def test_searches_leave_room_to_another_account_and_to_all_that_is_no_search(
    client: FlaskClient, caller: Caller, stranger: Caller, database: Database, role: Role
) -> None:
    job = caller.job()
    reader = Caller(client, factories.make_key(database, role=role))
    account_id = account_of(database, job["id"])
    with contextlib.ExitStack() as held, ThreadPoolExecutor(16) as threads:
        for _ in range(2):
            held.enter_context(database.searching(account_id))
        queued = [threads.submit(reader, "GET", path) for path in 2 * _SEARCHES]
        served = [stranger("GET", path).status_code for path in _SEARCHES]
        plain = [reader("GET", path).status_code for path in ("/v1/jobs", f"/v1/jobs/{job['id']}")]
        accepted, ready = caller.submit().status_code, client.get("/livez").status_code
        done = [one for one in queued if one.done()]
        held.close()
        answers = [one.result(60).status_code for one in queued]

    assert served == [200] * len(_SEARCHES)
    assert (plain, accepted, ready, done) == ([200, 200], 202, 200, [])
    assert answers == [200] * len(queued)


def test_reads_of_a_streams_past_leave_room_to_another_account(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    revocation = Revocation(database)
    streams = Streams(
        database,
        subscriber=Subscriber("redis://127.0.0.1:1/0", redis_prefix),
        shares=Shares(8, name="streams"),
        revocation=revocation,
    )
    key = factories.make_key(database)
    principal = accounts.authenticate(database, key, peppers=[factories.PEPPER])
    assert principal is not None
    key_id = principal.key_id
    followed = [caller.job()["id"], stranger.job()["id"]]
    (mine, account_id), (other, other_id) = [
        (parsed("job", job_id), account_of(database, job_id)) for job_id in followed
    ]
    for job_id in (mine, other):
        commands.cancel(database, job_id, account_id=None, actor="key:test")
    with contextlib.ExitStack() as held, ThreadPoolExecutor(1) as threads:
        for _ in range(3):
            held.enter_context(streams.replays.hold(account_id, seconds=0))
        queued = threads.submit(
            b"".join, streams.follow(mine, account_id=account_id, key_id=key_id, after=0)
        )
        reported = b"".join(streams.follow(other, account_id=other_id, key_id=key_id, after=0))
        done = queued.done()
        held.close()
        late = queued.result(60)
    revocation.close()
    streams.close()

    assert b"job.finished" in reported
    assert not done
    assert b"job.finished" in late


def test_an_account_that_uses_all_connections_it_can_leaves_some_to_another(
    caller: Caller, stranger: Caller, database: Database
) -> None:
    job = caller.job()
    account_id = account_of(database, job["id"])
    with contextlib.ExitStack() as held, current.running(wire.Held(account_id)):
        while database.connections.take(account_id):
            held.callback(database.connections.give_back, account_id)
        free = database.connections.capacity - database.connections.held
        with ThreadPoolExecutor(1) as threads:

            def look() -> int:
                with current.running(wire.Held(account_id)):
                    return caller("GET", f"/v1/jobs/{job['id']}").status_code

            waiting = threads.submit(look)
            with current.running(wire.Held(uuid.uuid4())):
                served = [stranger("GET", "/v1/jobs").status_code, stranger.submit().status_code]
            done = waiting.done()
            held.close()
            assert waiting.result(60) == 200

    assert (free, served, done) == (5, [200, 202], False)


def test_metrics_show_how_full_each_share_is(
    caller: Caller, operator: Caller, database: Database, decoder: ImageReader
) -> None:
    account_id = account_of(database, caller.job()["id"])
    taken = [database.searches.take(account_id) for _ in range(5)]
    for _ in range(sum(taken)):
        database.searches.give_back(account_id)
    with decoder.shares.hold(account_id, seconds=0), database.searching(account_id):
        shown = operator("GET", "/metrics").text.splitlines()

    assert 'longlook_share_places{resource="image_decoders",state="held"} 1.0' in shown
    assert 'longlook_share_places{resource="image_decoders",state="free"} 2.0' in shown
    assert 'longlook_share_places{resource="searches",state="held"} 1.0' in shown
    assert 'longlook_share_waiting{resource="searches"} 0.0' in shown
    assert 'longlook_share_refused_total{resource="searches"} 3.0' in shown
    for name in (
        "streams_and_waits",
        "replays",
        "image_downloads",
        "endpoint_tests",
        "database_connections",
        "database_writers",
    ):
        assert f'longlook_share_refused_total{{resource="{name}"}} 0.0' in shown


class TestSearchesWithoutAPlace:
    """With searches that wait for no time."""

    @pytest.fixture
    def database(self, database_url: str, clock: databases.Clock) -> Iterator[Database]:
        """Return a database whose searches wait for no time."""
        with contextlib.closing(
            Database(database_url, clock=clock, searches=2, search_seconds=1e-3)
        ) as opened:
            yield opened

    def test_the_metrics_of_the_process_are_shown_all_the_same(
        self, operator: Caller, database: Database
    ) -> None:
        for account_id in (uuid.uuid4(), uuid.uuid4()):
            assert database.searches.take(account_id)
        shown = operator("GET", "/metrics")

        assert shown.status_code == 200
        assert "longlook_database_up 1.0" in shown.text
        assert "longlook_queue_depth" not in shown.text
        assert 'longlook_share_places{resource="searches",state="held"} 2.0' in shown.text


class TestSearchesThatHoldAllTheyCan:
    """With few connections, of which searches may have half."""

    @pytest.fixture
    def database(self, database_url: str, clock: databases.Clock) -> Iterator[Database]:
        """Return a database with six connections."""
        with contextlib.closing(
            Database(
                database_url,
                clock=clock,
                pool_size=3,
                # Keys are read on these connections too: calls of many threads wait for each other.
                pool_seconds=30,
                searches=3,
                search_seconds=120,
            )
        ) as opened:
            yield opened

    def test_while_searches_hold_all_they_can_jobs_are_accepted_and_the_service_is_ready(
        self, client: FlaskClient, caller: Caller, database: Database
    ) -> None:
        account_id = account_of(database, caller.job()["id"])
        reader = Caller(client, factories.make_key(database, role=Role.READ))
        with contextlib.ExitStack() as held, ThreadPoolExecutor(24) as threads:
            for one in (account_id, account_id, uuid.uuid4()):
                transaction = held.enter_context(database.searching(one))
                transaction.execute(sa.text("SELECT count(*) FROM jobs"))
            searches = [
                threads.submit(reader, "GET", '/v1/jobs?q="are there many how"') for _ in range(24)
            ]
            accepted = [caller.submit().status_code for _ in range(3)]
            ready = client.get("/readyz")
            done = [search.done() for search in searches]
            held.close()
            found = [search.result(180).status_code for search in searches]

        assert accepted == [202] * 3
        assert (ready.status_code, ready.get_json()["checks"]["database"]) == (200, "ok")
        assert not any(done)
        assert found == [200] * 24


class TestASearchPastItsDeadline:
    """With a deadline that is over at once."""

    @pytest.fixture
    def database(self, database_url: str, clock: databases.Clock) -> Iterator[Database]:
        """Return a database whose searches get no time."""
        with contextlib.closing(Database(database_url, clock=clock, search_seconds=1e-6)) as opened:
            yield opened

    def test_it_is_ended_and_logged(self, caller: Caller, database: Database) -> None:
        job = caller.job()
        job_id, account_id = ids.parse("job", job["id"]), account_of(database, job["id"])
        text = {"job_id": job_id, "account_id": account_id, "part": Part.TRACE, "text": "let me"}
        with database.transaction() as transaction:
            transaction.execute(sa.insert(SearchText), [text] * 2_000)

        answer = caller("GET", "/v1/jobs?q=let")

        assert (answer.status_code, answer.get_json()["error"]["code"]) == (422, "search_too_broad")
        assert "Retry-After" not in answer.headers
        assert "`created:<7d`" in answer.get_json()["error"]["message"]
        assert caller("GET", "/v1/jobs").status_code == 200
