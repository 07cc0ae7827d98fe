"""Changes of jobs by the API notify receivers and wake the delivery process."""

from __future__ import annotations

import sqlalchemy as sa

from api.app import create_app, service_of
from core.database import Database
from core.settings import Settings
from jobs.images import ImageReader
from jobs.records.jobs import Job
from jobs.store import accounts
from tests import webhooks
from tests.api import worker
from tests.api.conftest import Caller
from tests.fakes import RecordingWakeup
from webhooks.policy import Webhook


def test_a_cancel_with_a_receiver_wakes_the_delivery_process(
    settings: Settings, database: Database, decoder: ImageReader, caller: Caller
) -> None:
    wakeup = RecordingWakeup()
    app = create_app(
        settings,
        database=database,
        wakeup=RecordingWakeup(),
        delivery_wakeup=wakeup,
        images=decoder,
    )
    here = Caller(app.test_client(), caller.key)
    job = here.job()
    assert here("POST", job["urls"]["cancel"]).status_code == 200
    assert wakeup.rung == 1
    webhooks.make_endpoint(database, accounts.account_id(database, "default"))

    assert here("POST", here.job()["urls"]["cancel"]).status_code == 200

    assert wakeup.rung == 2
    assert [event.type for event in webhooks.events(database)] == ["job.cancelled"]
    service_of(app).drain()


def test_a_rerun_is_notified_like_its_original(caller: Caller, database: Database) -> None:
    webhook = Webhook(url="https://app.example/hook")
    job = caller.job()
    with database.transaction() as transaction:
        transaction.execute(sa.update(Job).values({Job.webhook: webhook.plain()}))
    worker.finish(database)

    assert caller("POST", job["urls"]["rerun"]).status_code == 202

    with database.reading() as transaction:
        stored = transaction.session.scalars(sa.select(Job.webhook).order_by(Job.id)).all()
    assert [Webhook.of(row) for row in stored] == [webhook, webhook]
