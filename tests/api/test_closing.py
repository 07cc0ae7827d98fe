"""The end of an application: it lets go of all that it held."""

from __future__ import annotations

from api.app import create_app, service_of
from core.database import Database
from core.settings import Settings
from tests import factories
from tests.api.conftest import Caller
from tests.e2e.stack import eventually
from tests.fakes import RecordingWakeup
from tests.redis_servers import RedisServer


def test_a_closed_service_has_no_connection_to_redis_any_more(
    settings: Settings, database: Database, redis_server: RedisServer
) -> None:
    before = redis_server.clients()
    own = settings.model_copy(update={"redis_url": redis_server.url})
    wakeups = [RecordingWakeup() for _ in range(2)]
    app = create_app(own, database=database, wakeup=wakeups[0], delivery_wakeup=wakeups[1])
    caller = Caller(app.test_client(), factories.make_key(database))
    job = caller.job()
    stream = caller("GET", job["urls"]["events"], buffered=False)
    assert any(b"job.queued" in part for part in stream.response)
    # What requests are counted in, and what streams hear by.
    assert eventually(lambda: len(redis_server.clients() - before) == 2)

    service_of(app).close()
    stream.close()

    assert eventually(lambda: not redis_server.clients() - before)
    assert all(wakeup.closed for wakeup in wakeups)
