"""``longlook up``: the whole service on one machine, one process looking after the others.

In this order: the home directory, held; the API's port, listening; the database, up to date; then Redis,
the engine, the API, the delivery process and the workers. They end the other way round. Nothing is started
before all that can be refused has been looked at, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli import client, output
from cli.launch import home, redis, signals
from cli.up import database, demo, engines, programs
from cli.up.engines import EngineProcesses, Readiness
from cli.up.supervisor import StopAsked, Supervisor
from core import errors
from core.settings import Settings

_OK: Final = 200
_POLL_SECONDS: Final = 0.05
_ENGINE_POLL_SECONDS: Final = 0.5
_WATCH_SECONDS: Final = 5.0
_REDIS_START_SECONDS: Final = 10.0
_API_START_SECONDS: Final = 60.0
#: Settings of the demo where none are given: who tries webhooks receives them on the same machine.
_DEMO: Final[Mapping[str, Any]] = {"webhook_allow": ("127.0.0.0/8",)}
_BACKLOG: Final = 1024
#: Addresses that mean all of a machine's, and how one of them is reached from here.
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never bound to


@dataclass(frozen=True)
class UpOptions:
    """What is asked for beside the settings."""

    engines: EngineProcesses
    workers: int
    demo: bool


def up(
    *,
    home_path: Annotated[
        Path | None,
        typer.Option("--home", help="Directory of all state.", show_default="~/.longlook"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", show_default="8700")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="tiny, scripted, or URLs of engines separated by commas.", show_default="tiny"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start no worker.")] = False,
    show_demo: Annotated[
        bool, typer.Option("--demo", help="Ask two questions about a sample picture, then stay up.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs as well.")] = False,
) -> None:
    """Start the whole service here and keep it running until Ctrl-C."""
    settings = Settings.read(home=home_path, port=port)
    if show_demo:
        given = settings.model_fields_set
        demos = {name: value for name, value in _DEMO.items() if name not in given}
        settings = settings.model_copy(update=demos)
    # The files of the database and the logs are for their owner only, whichever process makes them.
    os.umask(0o077)
    settings = settings.model_copy(update={"home": home.prepare(settings.home)})
    if show_demo and no_worker:
        raise typer.BadParameter("--demo needs a worker")
    requested = UpOptions(
        engines=engines.choose(engine, settings),
        workers=0 if no_worker else workers,
        demo=show_demo,
    )
    with home.room(settings.home), home.held(settings.home), signals.watched() as stops:
        supervisor = Supervisor(
            settings.home, working=programs.ROOT, signals=stops, verbose=verbose
        )
        given_time = _run(settings, requested, supervisor)
    raise typer.Exit(output.Exit.OK if given_time else output.Exit.INTERRUPTED)


def _run(settings: Settings, requested: UpOptions, supervisor: Supervisor) -> bool:
    """Run the service until it is asked to stop; return whether it was given the time it needs for that."""
    with contextlib.ExitStack() as stack:
        home.check_space(settings.home, floor_mb=settings.disk_floor_mb)
        listener = stack.enter_context(_listening(settings))
        socket_path = stack.enter_context(home.socket(settings.home))
        try:
            _serve(settings, requested, supervisor, listener=listener, socket_path=socket_path)
        except StopAsked:
            output.event("stopping", "Ctrl-C again ends everything at once")
        finally:
            given_time = supervisor.stop()
    output.event("stopped")
    return given_time


def _serve(
    settings: Settings,
    requested: UpOptions,
    supervisor: Supervisor,
    *,
    listener: socket.socket,
    socket_path: Path,
) -> None:
    """Start everything, say when it is ready, then look after it. Ends with an exception only."""
    began_at = time.monotonic()
    output.event("starting", f"in {settings.home}")
    wiring = programs.ProgramContext(
        settings=settings,
        redis_url=redis.url(socket_path),
        engine_urls=requested.engines.urls,
        model=requested.engines.model,
        port=listener.getsockname()[1],
    )
    url = _url(settings.host, wiring.port)
    server = redis.command(redis.binary(), path=socket_path)
    supervisor.start(programs.redis(server, environ=os.environ))
    if requested.engines.plan is not None:
        supervisor.start(programs.engine(requested.engines.plan, environ=os.environ))
    readiness = Readiness(requested.engines, settings)
    _show_key(database.prepare(settings), settings)
    supervisor.start(programs.api(wiring, listener=listener.fileno(), environ=os.environ))
    supervisor.start(programs.delivery(wiring, environ=os.environ))
    supervisor.start(
        *(
            programs.worker(wiring, number=number, environ=os.environ)
            for number in range(1, requested.workers + 1)
        )
    )
    _await(supervisor, "Redis", lambda: redis.answers(socket_path), seconds=_REDIS_START_SECONDS)
    _await(supervisor, "The API", lambda: _accepts(url), seconds=_API_START_SECONDS)
    output.event("ready", f"{url}  (after {time.monotonic() - began_at:.1f} s)")
    supervisor.prove(but="engine")
    readiness.look()
    while not (readiness.any_ready if requested.demo else readiness.all_ready):
        supervisor.watch(_ENGINE_POLL_SECONDS)
        readiness.look()
    supervisor.prove()
    if requested.demo:
        key = client.key(settings)
        demo.show(client.Client(url, key=key), key=key, pause=supervisor.watch)
    while True:
        supervisor.watch(_WATCH_SECONDS)
        readiness.look()


def _await(
    supervisor: Supervisor, what: str, answers: Callable[[], bool], *, seconds: float
) -> None:
    """Wait until something answers that has been started.

    Raises:
        core.errors.LaunchError: it does not within ``seconds``.
    """
    until = time.monotonic() + seconds
    while not answers():
        if time.monotonic() > until:
            raise errors.LaunchError(
                f"{what} does not answer after {seconds:.0f} s; its log is in the home directory."
            )
        supervisor.watch(_POLL_SECONDS)


def _accepts(url: str) -> bool:
    """Whether the API takes jobs. The socket listens from the start, so this waits for the answer itself."""
    status, _ = client.probe(f"{url}/readyz", seconds=1)
    return status == _OK


def _show_key(first: database.FirstKey | None, settings: Settings) -> None:
    """Show the admin key at the first start: the one time that it is shown, and only to a person."""
    if first is None:
        return
    path = settings.home / client.KEY_FILE
    if first.made and output.for_people():
        output.event("admin key", f"{first.key}  (shown once; kept in {path})")
    else:
        output.event("admin key", f"kept in {path}")


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Yield the API's socket, listening; it is the API's from its start on, and again after a restart.

    Raises:
        core.errors.LaunchError: the address is taken, or none of this machine's.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # The resolver's numbers are below zero, and no system's.
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else "it is not the name of an address"
        raise errors.LaunchError(
            f"The API cannot listen on {host} port {port}: {why}. Choose another port with --port, or "
            "another address with LONGLOOK_HOST."
        ) from error
    with listener:
        yield listener


def _url(host: str, port: int) -> str:
    """Return the URL under which this machine reaches the API."""
    reached = _ANYWHERE.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
