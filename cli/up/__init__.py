"""``longlook up``: the whole service on one machine, with one process supervising the others.

It locks the home directory, listens on the API's port, starts Redis and the engine, upgrades the database, and starts
the API, the delivery process and the workers. They end in reverse order. It starts no process before everything that
can make the start fail has been checked, and leaves no process behind.
"""

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
from cli.up.supervisor import StopRequested, Supervisor
from core import errors, redis_check
from core.redis_prefix import RedisPrefix
from core.redis_url import RedisURL
from core.settings import Settings

_OK: Final = 200
_POLL_SECONDS: Final = 0.05
_ENGINE_POLL_SECONDS: Final = 0.5
_WATCH_SECONDS: Final = 5.0
_REDIS_START_SECONDS: Final = 10.0
_API_START_SECONDS: Final = 60.0
#: Defaults of settings in the demo: webhooks may go to receivers on the same machine.
_DEMO: Final[Mapping[str, Any]] = {"webhook_allow": ("127.0.0.0/8",)}
_BACKLOG: Final = 1024
#: Wildcard addresses, and a local address for each of them.
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, never bound to


@dataclass(frozen=True)
class UpOptions:
    """The options besides the settings."""

    engines: EngineProcesses
    workers: int
    delivery: bool
    demo: bool


def up(
    *,
    home_path: Annotated[
        Path | None,
        typer.Option("--home", help="Directory for all data.", show_default="~/.longlook"),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API.", show_default="8700")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="tiny, scripted, or comma-separated URLs of engines.", show_default="tiny"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of worker processes.")] = 1,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start no worker.")] = False,
    no_delivery: Annotated[
        bool,
        typer.Option(
            "--no-delivery", help="Send no webhooks; they wait. For a copy of another installation."
        ),
    ] = False,
    show_demo: Annotated[
        bool,
        typer.Option("--demo", help="Ask two questions about a sample image, then keep running."),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the logs too.")] = False,
) -> None:
    """Start the whole service on this machine and run it until Ctrl-C."""
    settings = Settings.read(home=home_path, port=port)
    if show_demo:
        defaults = {
            name: value for name, value in _DEMO.items() if name not in settings.model_fields_set
        }
        settings = settings.model_copy(update=defaults)
    # Every process creates the files of the database and the logs for their owner only.
    os.umask(0o077)
    settings = settings.model_copy(update={"home": home.prepare(settings.home)})
    if show_demo and no_worker:
        raise typer.BadParameter("--demo needs a worker; leave out --no-worker")
    options = UpOptions(
        engines=engines.choose(engine, settings),
        workers=0 if no_worker else workers,
        delivery=not no_delivery,
        demo=show_demo,
    )
    with (
        home.reporting_full_disk(settings.home),
        home.locked(settings.home),
        signals.handled() as stops,
    ):
        supervisor = Supervisor(
            settings.home, working=programs.ROOT, signals=stops, verbose=verbose
        )
        graceful = _run(settings, options, supervisor)
    raise typer.Exit(output.Exit.OK if graceful else output.Exit.INTERRUPTED)


def _run(settings: Settings, options: UpOptions, supervisor: Supervisor) -> bool:
    """Run the service until a stop request; return whether it stopped gracefully, without a second request."""
    with contextlib.ExitStack() as stack:
        home.check_space(settings.home, floor_mb=settings.disk_floor_mb)
        listener = stack.enter_context(_listening(settings))
        socket_path = stack.enter_context(home.socket(settings.home))
        try:
            _serve(settings, options, supervisor, listener=listener, socket_path=socket_path)
        except StopRequested:
            output.event("stopping", "press Ctrl-C again to stop at once")
        finally:
            graceful = supervisor.stop()
    output.event("stopped")
    return graceful


def _serve(
    settings: Settings,
    options: UpOptions,
    supervisor: Supervisor,
    *,
    listener: socket.socket,
    socket_path: Path,
) -> None:
    """Start everything, report when it is ready, and supervise it. Ends only with an exception."""
    started_at = time.monotonic()
    output.event("starting", f"in {settings.home}")
    program_context = programs.ProgramContext(
        settings=settings,
        redis_url=redis.url(socket_path),
        engine_urls=options.engines.urls,
        model=options.engines.model,
        port=listener.getsockname()[1],
    )
    url = _url(settings.host, program_context.port)
    server = redis.command(redis.binary(), path=socket_path)
    supervisor.start(programs.redis(server, environ=os.environ))
    if options.engines.plan is not None:
        supervisor.start(programs.engine(options.engines.plan, environ=os.environ))
    readiness = Readiness(options.engines, settings)
    _show_key(database.prepare(settings), settings)
    supervisor.start(programs.api(program_context, listener=listener.fileno(), environ=os.environ))
    if options.delivery:
        supervisor.start(programs.delivery(program_context, environ=os.environ))
    else:
        output.event("paused", "no webhook is sent; they wait for a start without --no-delivery")
    supervisor.start(
        *(
            programs.worker(program_context, number=number, environ=os.environ)
            for number in range(1, options.workers + 1)
        )
    )
    prefix = RedisPrefix(settings)
    _await(
        supervisor,
        "Redis",
        lambda: _redis_problem(program_context.redis_url, prefix),
        seconds=_REDIS_START_SECONDS,
    )
    _await(supervisor, "The API", lambda: _api_problem(url), seconds=_API_START_SECONDS)
    output.event("ready", f"{url}  (after {time.monotonic() - started_at:.1f} s)")
    supervisor.mark_ready(except_for="engine")
    readiness.check()
    while not (readiness.any_ready if options.demo else readiness.all_ready):
        supervisor.watch(_ENGINE_POLL_SECONDS)
        readiness.check()
    supervisor.mark_ready()
    if options.demo:
        key = client.key(settings)
        demo.show(client.Client(url, key=key), key=key, pause=supervisor.watch)
    while True:
        supervisor.watch(_WATCH_SECONDS)
        readiness.check()


def _await(
    supervisor: Supervisor, name: str, problem: Callable[[], str | None], *, seconds: float
) -> None:
    """Wait until a started program works: until ``problem`` returns None instead of a sentence.

    Raises:
        core.errors.LaunchError: it does not work within ``seconds``.
    """
    until = time.monotonic() + seconds
    while (sentence := problem()) is not None:
        if time.monotonic() > until:
            raise errors.LaunchError(
                f"{name} is not ready after {seconds:.0f} s: {sentence} Its log is in the home directory."
            )
        supervisor.watch(_POLL_SECONDS)


def _redis_problem(url: str, prefix: RedisPrefix) -> str | None:
    """Return why Redis does not take what work needs, None if it does. An answer to PING proves little."""
    with RedisURL.parse(url).client(seconds=1) as connection:
        return redis_check.problem(connection, prefix)


def _api_problem(url: str) -> str | None:
    """Return why the API does not accept jobs, None if it does.

    Its socket listens from the start, so a connection alone proves nothing.
    """
    status, answer = client.probe(f"{url}/readyz", seconds=1)
    if status == _OK:
        return None
    bad = [
        f"{name} is {state}" for name, state in answer.get("checks", {}).items() if state != "ok"
    ]
    return f"{', '.join(bad)}." if bad else "It does not respond."


def _show_key(first: database.FirstKey | None, settings: Settings) -> None:
    """Show the admin key once, at the first start, and only on a terminal."""
    if first is None:
        return
    path = settings.home / client.KEY_FILE
    if first.generated and output.on_terminal():
        output.event("admin key", f"{first.key}  (shown once; stored in {path})")
    else:
        output.event("admin key", f"stored in {path}")


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """Yield the API's listening socket, which the API inherits at every start.

    Raises:
        core.errors.LaunchError: the address is in use, or does not belong to this machine.
    """
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        # Error numbers of the resolver are negative, and strerror does not know them.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else "the host name cannot be resolved"
        raise errors.LaunchError(
            f"The API cannot listen on {host} port {port}: {reason}. Choose another port with --port, or "
            "another address with LONGLOOK_HOST."
        ) from error
    with listener:
        yield listener


def _url(host: str, port: int) -> str:
    """Return the URL of the API on this machine."""
    address = _WILDCARDS.get(host, host)
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
