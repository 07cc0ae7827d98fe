"""``longlook webhooks``: who is told, what they were told, telling them again; and a receiver for development."""

from __future__ import annotations

import contextlib
import http.server
import json
import sys
import urllib.parse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from cli import client, output
from core import errors
from core.settings import Settings
from webhooks import signature

app = typer.Typer(help="Look at webhooks, send them again, receive them.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON, as in a pipe.")]
EndpointId = Annotated[str, typer.Argument(metavar="ENDPOINT", help="we_…")]

_ENDPOINTS: Final = "/v1/webhook_endpoints"
_KEY: Final = "/.well-known/longlook-webhook-key"
_MOST_BYTES: Final = 2**20
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}


@app.command("ls")
def ls(
    *,
    failed: Annotated[bool, typer.Option(help="Failed deliveries instead of endpoints.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="So many, newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List webhook endpoints and how they do, or the deliveries that failed."""
    service = client.connect(Settings.read())
    page = (
        service.look("/v1/deliveries", status="failed", limit=limit)
        if failed
        else service.look(_ENDPOINTS, limit=limit)
    )
    if not output.for_people(as_json=as_json):
        output.as_json(page)
    elif failed:
        output.table(DELIVERY_COLUMNS, map(delivery_row, page["data"]))
    else:
        output.table(
            ("endpoint", "state", "name", "url", "events"), map(endpoint_row, page["data"])
        )


@app.command("show")
def show(
    *,
    thing: Annotated[
        str, typer.Argument(metavar="ID", help="Of an endpoint, a delivery or a job.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show an endpoint with its last deliveries, a delivery with every try, or who was told of a job."""
    service = client.connect(Settings.read())
    kind, quoted = thing.partition("_")[0], urllib.parse.quote(thing, safe="")
    if kind == "dlv":
        _show_delivery(service.look(f"/v1/deliveries/{quoted}"), as_json=as_json)
        return
    roots = {"we": _ENDPOINTS, "job": "/v1/jobs"}
    if kind not in roots:
        raise errors.InvalidRequest(f"{thing!r} is no id of an endpoint, a delivery or a job.")
    path = f"{roots[kind]}/{quoted}"
    reported = service.look(f"{path}/deliveries")
    if kind == "job":
        if output.for_people(as_json=as_json):
            output.table(DELIVERY_COLUMNS, map(delivery_row, reported["data"]))
        else:
            output.as_json(reported)
        return
    endpoint = service.look(path)
    if not output.for_people(as_json=as_json):
        output.as_json(endpoint | {"deliveries": reported["data"]})
        return
    output.table(("endpoint", "state", "name", "url", "events"), [endpoint_row(endpoint)])
    output.line()
    output.table(DELIVERY_COLUMNS, map(delivery_row, reported["data"]))


@app.command("redeliver")
def redeliver(
    *,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="dlv_…")],
    as_json: AsJson = False,
) -> None:
    """Send a delivery once more, now. Its schedule does not move."""
    service = client.connect(Settings.read())
    sent = service.act(f"/v1/deliveries/{urllib.parse.quote(delivery, safe='')}/redeliver")
    if output.for_people(as_json=as_json):
        output.event("ok", f"try {len(sent['attempts'])} of {sent['id']} is due")
    else:
        output.as_json(sent)


@app.command("recover")
def recover(
    *,
    endpoint: EndpointId,
    since: Annotated[str, typer.Option(help="From when on: 2h, 3d, or a time with its zone.")],
    as_json: AsJson = False,
) -> None:
    """Send again, in the background, all that an endpoint has missed since a time."""
    service = client.connect(Settings.read())
    begun = service.act(f"{_path(endpoint)}/recover", {"since": moment(since)})
    if output.for_people(as_json=as_json):
        output.event("ok", f"{begun['id']} sends again what failed since {begun['since']}")
    else:
        output.as_json(begun)


@app.command("test")
def send_test(
    *,
    endpoint: EndpointId,
    event: Annotated[str, typer.Option(help="Its type.")] = "job.succeeded",
    as_json: AsJson = False,
) -> None:
    """Send an event that did not happen, and say what the receiver answered."""
    service = client.connect(Settings.read())
    reported = service.act(f"{_path(endpoint)}/test", {"event_type": event})
    good = reported["status_code"] is not None and 200 <= reported["status_code"] < 300  # noqa: PLR2004 - success
    if output.for_people(as_json=as_json):
        output.event(
            "ok" if good else "failed", str(reported["status_code"] or reported["error_code"])
        )
    else:
        output.as_json(reported)
    if not good:
        raise typer.Exit(output.Exit.FAILED)


@app.command("listen")
def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8701,
    secret: Annotated[
        str,
        typer.Option(
            help="A file with whsec_…, or - for the input; without it the service's public key is used.",
            metavar="FILE",
        ),
    ] = "",
    count: Annotated[int, typer.Option(min=0, help="End after so many; 0: go on.")] = 0,
) -> None:
    """Receive webhooks here, verify and print them: for development.

    The service has to allow this machine: LONGLOOK_WEBHOOK_ALLOW=127.0.0.0/8.
    """
    settings = Settings.read()
    secret = secret and _secret(secret)
    key = None if secret else str(client.connect(settings).look(_KEY)["public_key"])
    verified = 0

    def woken(headers: dict[str, str], body: bytes) -> bool:
        nonlocal verified
        genuine = _print(headers, body, secrets=[secret] if secret else [], public_key=key)
        verified += genuine
        return genuine

    with server(port, woken) as receiver:
        output.event("listening", f"http://127.0.0.1:{receiver.server_port}/")
        with contextlib.suppress(KeyboardInterrupt):
            while not count or verified < count:
                receiver.handle_request()


def server(port: int, woken: Callable[[dict[str, str], bytes], bool]) -> http.server.HTTPServer:
    """Return a receiver on the loopback interface, which answers 204 to what ``woken`` takes and 400 to the rest."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            size = int(length[:9]) if length.isascii() and length.isdigit() else _MOST_BYTES + 1
            if size > _MOST_BYTES:
                self.send_error(413)
                return
            body = self.rfile.read(size)
            taken = woken({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(204 if taken else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: what came is printed by whoever hears it."""

    try:
        return http.server.HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise errors.LaunchError(f"Port {port} is not free; choose another with --port.") from error


def moment(text: str, *, now: datetime | None = None) -> str:
    """Return a time such as ``2h`` ago, or one that is given as it is, for the API."""
    number, unit = text[:-1], text[-1:]
    if number.isdigit() and unit in _UNITS:
        ago = timedelta(seconds=int(number) * _UNITS[unit])
        return ((now or datetime.now(UTC)) - ago).isoformat()
    return text


DELIVERY_COLUMNS: Final = ("delivery", "status", "event", "receiver", "tries", "last", "created")


def endpoint_row(endpoint: output.Json) -> tuple[str, ...]:
    """Return an endpoint's row of the table."""
    state = "ok"
    if endpoint["disabled_at"]:
        state = f"disabled: {endpoint['disabled_reason']}"
    elif endpoint["failing_since"]:
        state = "failing"
    events = ", ".join(endpoint["event_types"])
    return (endpoint["id"], state, endpoint["name"], endpoint["url"], events)


def delivery_row(delivery: output.Json) -> tuple[str, ...]:
    """Return a delivery's row of the table."""
    attempts = delivery["attempts"]
    tried = [one for one in attempts if one["outcome"]]
    # A list shows the newest tries only; those that have not ended are among them.
    count = delivery.get("attempt_count", len(attempts)) - (len(attempts) - len(tried))
    last = str(tried[-1]["status_code"] or tried[-1]["error_code"]) if tried else ""
    return (
        delivery["id"],
        delivery["status"],
        delivery["event_type"],
        delivery["origin"],
        str(count),
        last,
        delivery["created_at"],
    )


def attempt_row(attempt: output.Json) -> tuple[str, ...]:
    """Return a try's row of the table."""
    took = attempt["seconds"]
    return (
        str(attempt["number"]),
        attempt["kind"],
        attempt["outcome"] or attempt["state"],
        str(attempt["status_code"] or attempt["error_code"] or ""),
        "" if took is None else f"{took:.2f} s",
        attempt["address"] or "",
        attempt["started_at"] or attempt["due_at"],
    )


def _show_delivery(delivery: output.Json, *, as_json: bool) -> None:
    if not output.for_people(as_json=as_json):
        output.as_json(delivery)
        return
    output.table(DELIVERY_COLUMNS, [delivery_row(delivery)])
    output.line()
    output.table(
        ("try", "kind", "outcome", "answer", "took", "address", "at"),
        map(attempt_row, delivery["attempts"]),
    )
    output.line()
    output.quote(output.json_text(delivery["payload"], indent=2))


def _secret(place: str) -> str:
    """Return the secret in a file or on the input. As an argument everybody on the machine could read it."""
    try:
        return (sys.stdin.read() if place == "-" else Path(place).read_text()).strip()
    except OSError as error:
        raise errors.InvalidRequest(
            f"--secret names a file that cannot be read: {error.strerror}.", param="secret"
        ) from error


def _path(endpoint: str) -> str:
    return f"{_ENDPOINTS}/{urllib.parse.quote(endpoint, safe='')}"


def _print(
    headers: dict[str, str], body: bytes, *, secrets: Sequence[str], public_key: str | None
) -> bool:
    """Print a message, and whether it is genuine."""
    try:
        signature.verify(
            headers, body, at=datetime.now(UTC), secrets=secrets, public_key=public_key
        )
    except signature.NotGenuine as error:
        output.event("failed", str(error))
        return False
    try:
        reported = json.loads(body)
    except ValueError:
        reported = body.decode(errors="replace")
    if not output.for_people():
        output.json_line(reported)
        return True
    if isinstance(reported, dict):
        output.event("received", f"{reported.get('type')}  {reported.get('id')}")
    output.quote(output.json_text(reported))
    return True
