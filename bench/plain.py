"""The plain way, as a peer for :mod:`bench.overhead`: Flask, SQLAlchemy, and Celery as in their tutorials.

A row, a task with its id, a worker thread that calls the engine and writes the answer. No lease, no fence, no
trace, no cancel, no idempotency: if Redis loses a message, its job never runs. ``celery -A`` needs an
app at import, so this module reads its environment at import.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

import flask
import orjson
import sqlalchemy as sa
import urllib3
from celery import Celery
from sqlalchemy import orm

celery = Celery("plain", broker=os.environ.get("PLAIN_BROKER"))
engine = sa.create_engine(os.environ.get("PLAIN_DATABASE", "sqlite://"), pool_size=64)
http = urllib3.PoolManager(maxsize=64)


class Base(orm.DeclarativeBase):
    """The base of the one table."""


class Job(Base):
    """A question, and its answer once there is one."""

    __tablename__ = "plain_jobs"

    id: orm.Mapped[str] = orm.mapped_column(primary_key=True)
    request: orm.Mapped[bytes]
    answer: orm.Mapped[str | None]


def create_tables() -> None:
    """Create the table; SQLite gets a write-ahead log, as in the service."""
    Base.metadata.create_all(engine)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")


def create_app() -> flask.Flask:
    """Return the API: submit a job, and read it."""
    create_tables()
    app = flask.Flask("plain")

    @app.post("/jobs")
    def submit() -> tuple[dict[str, str], int]:
        job = Job(id=uuid.uuid4().hex, request=flask.request.get_data(), answer=None)
        with orm.Session(engine, expire_on_commit=False) as session, session.begin():
            session.add(job)
        reason.delay(job.id)
        return {"id": job.id}, 202

    @app.get("/ready")
    def ready() -> dict[str, Any]:
        return {}

    @app.get("/jobs/<job_id>")
    def look(job_id: str) -> dict[str, Any]:
        with orm.Session(engine) as session:
            return {"id": job_id, "answer": session.get_one(Job, job_id).answer}

    return app


@celery.task(ignore_result=True)
def reason(job_id: str) -> None:
    """Call the engine and write its answer."""
    with orm.Session(engine) as session:
        request = session.get_one(Job, job_id).request
    url = f"{os.environ['PLAIN_ENGINE']}/v1/chat/completions"
    reply = http.request("POST", url, body=request, headers={"content-type": "application/json"})
    answer = orjson.loads(reply.data)["choices"][0]["message"]["content"]
    with orm.Session(engine) as session, session.begin():
        session.execute(sa.update(Job).where(Job.id == job_id).values(answer=answer))
