"""The real application behind a real socket, for commands of the command line, and the key that they use."""

from __future__ import annotations

import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
import urllib3
from pydantic import SecretStr
from typer.testing import CliRunner
from werkzeug.serving import make_server

from api.app import Service, create_app, service_of
from cli import client, main
from core import errors
from core.database import Database
from core.settings import Settings
from jobs.lifecycle import Role
from jobs.operation_runner import OperationRunner
from jobs.records.jobs import Job
from jobs.store import accounts, commands
from tests import factories
from tests.fakes import RecordingWakeup
from webhooks import purge

Json = dict[str, Any]


def settings_in(folder: Path, **more: Any) -> Settings:  # noqa: ANN401 - any setting
    """Return the settings of a service with its home in ``folder``."""
    pepper = SecretStr(factories.PEPPER.decode())
    return Settings.read({}, home=folder, pepper=pepper, disk_floor_mb=0, **more)


@contextlib.contextmanager
def served(
    database: Database, settings: Settings, wakeup: RecordingWakeup
) -> Iterator[tuple[str, Service]]:
    """Serve the API on ``database``; yield its URL and its resources."""
    app = create_app(settings, database=database, wakeup=wakeup, delivery_wakeup=RecordingWakeup())
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
    )
    thread.start()
    try:
        # Not printed: a command's output goes to the same place.
        with structlog.testing.capture_logs():
            yield f"http://127.0.0.1:{server.server_port}", service_of(app)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        service_of(app).drain()
        service_of(app).images.close()


def longlook(url: str, key: str, *words: str, code: int = 0) -> Json:
    """Run a command as a pipe sees it, expect ``code``, and return the JSON that it prints."""
    environment = {"LONGLOOK_URL": url, "LONGLOOK_API_KEY": key}
    result = CliRunner().invoke(main.make_app(words[:1]), [*words, "--json"], env=environment)
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    assert result.exit_code == code, result.output
    printed: Json = json.loads(result.stdout)
    return printed


@dataclass
class House:
    """A service with an operator, a tenant, and the thread that works on operations."""

    database: Database
    settings: Settings
    url: str
    service: Service
    operator: str
    tenant: str
    reader: str
    account_id: uuid.UUID
    runner: OperationRunner
    #: What the API wakes workers with.
    wakeup: RecordingWakeup

    def run(self, *words: str, key: str | None = None, code: int = 0) -> Json:
        """Run a command with the operator's key, or another one."""
        return longlook(self.url, key or self.operator, *words, code=code)

    def printed(self, *words: str) -> str:
        """Run a command with the operator's key; return what it prints for people."""
        environment = {"LONGLOOK_URL": self.url, "LONGLOOK_API_KEY": self.operator}
        return CliRunner().invoke(main.make_app(words[:1]), words, env=environment).stdout

    def text(self, path: str) -> str:
        """Return what the API answers to the operator at ``path``."""
        headers = {"Authorization": f"Bearer {self.operator}"}
        return urllib3.request("GET", self.url + path, headers=headers, timeout=60).data.decode()

    def get(self, path: str) -> Json:
        """Return the JSON that the API answers to the operator at ``path``."""
        answer: Json = json.loads(self.text(path))
        return answer

    def post(self, path: str, body: Json) -> Json:
        """Post to the API as the operator; an error response is raised."""
        return client.Client(self.url, key=self.operator).act(path, body)

    def work(self) -> None:
        """Work until no operation is left that could continue."""
        while self.runner.run_slice():
            pass

    def another(self, database: Database, *, owner: str) -> OperationRunner:
        """Return the thread of another process."""
        return OperationRunner(
            database,
            self.settings,
            owner=owner,
            wakeup=RecordingWakeup(),
            remove_copies=purge.reduce_jobs,
            remove_account=purge.remove_account,
        )

    def ask(self, method: str, path: str, key: str, body: Json | None = None) -> tuple[int, Json]:
        """Send a request with a key; return the status and the JSON of the answer."""
        headers = {"Authorization": f"Bearer {key}"}
        answer = urllib3.request(
            method, self.url + path, headers=headers, json=body, retries=False, timeout=60
        )
        return answer.status, json.loads(answer.data)

    def ended(self, count: int, **facts: object) -> list[uuid.UUID]:
        """Submit jobs of the tenant and cancel them; return them."""
        made = [factories.make_job(self.database, self.account_id, **facts) for _ in range(count)]
        for job_id in made:
            commands.cancel(self.database, job_id, account_id=None, actor="operator:test")
        return made

    def reruns(self) -> list[uuid.UUID | None]:
        """Return the originals of all reruns."""
        with self.database.reading() as transaction:
            wanted = sa.select(Job.rerun_of).where(Job.rerun_of.is_not(None))
            return list(transaction.session.scalars(wanted))


@contextlib.contextmanager
def house_in(database: Database, folder: Path) -> Iterator[House]:
    """Serve the API on ``database``, with keys of an operator and of a tenant."""
    settings = settings_in(folder, queued_jobs_per_account=1000)
    operator = factories.make_key(database, account="operations", role=Role.OPERATE)
    tenant = factories.make_key(database, account="tenant")
    reader = factories.make_key(database, account="tenant", role=Role.READ)
    wakeup = RecordingWakeup()
    with served(database, settings, wakeup) as (url, service):
        yield House(
            service=service,
            wakeup=wakeup,
            database=database,
            settings=settings,
            url=url,
            operator=operator,
            tenant=tenant,
            reader=reader,
            account_id=accounts.account_id(database, "tenant"),
            runner=OperationRunner(
                database,
                settings,
                owner="me",
                wakeup=RecordingWakeup(),
                remove_copies=purge.reduce_jobs,
                remove_account=purge.remove_account,
            ),
        )
