"""``longlook webhooks``: list endpoints and deliveries, send again, test; and a receiver for development."""

import contextlib
import http.server
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli import client, job_output, lists, names, output, times
from core import errors, ids
from core.settings import Settings
from webhooks import signature

app = typer.Typer(help="List webhooks, send them again, receive them.", no_args_is_help=True)

EndpointId = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="we_…, or its first characters.")
]

_ENDPOINTS: Final = "/v1/webhook_endpoints"
_ROOTS: Final[dict[ids.Kind, str]] = {
    "we": _ENDPOINTS,
    "dlv": "/v1/deliveries",
    "job": "/v1/jobs",
}
_KEY: Final = "/.well-known/longlook-webhook-key"
_MOST_BYTES: Final = 2**20


@app.command("ls")
def ls(
    *,
    failed: Annotated[
        bool, typer.Option(help="List failed deliveries instead of endpoints.")
    ] = False,
    limit: lists.Limit = lists.PAGE,
    after: lists.After = None,
    as_json: output.AsJson = False,
) -> None:
    """List webhook endpoints and their health, or failed deliveries."""
    service = client.connect(Settings.read())
    last = names.find(service, "dlv" if failed else "we", after) if after else None
    page = (
        service.look("/v1/deliveries", status="failed", limit=limit, after=last)
        if failed
        else service.look(_ENDPOINTS, limit=limit, after=last)
    )
    if not output.for_people(as_json=as_json):
        output.as_json(page)
        return
    if failed:
        _deliveries(page["data"])
    else:
        _endpoints(page["data"])
    lists.more("webhooks ls --failed" if failed else "webhooks ls", page, limit=limit)


@app.command("show")
def show(
    *,
    thing: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="An endpoint (we_…), a delivery (dlv_…) or a job (job_…, @last), or its first characters.",
        ),
    ],
    after: Annotated[
        str | None,
        typer.Option(
            help="Of an endpoint or a job: only deliveries after this one.", show_default=False
        ),
    ] = None,
    as_json: output.AsJson = False,
) -> None:
    """Show an endpoint with its last deliveries, a delivery with all attempts, or the deliveries of a job."""
    service = client.connect(Settings.read())
    kind, path = _path_of(service, thing)
    if kind == "dlv":
        _show_delivery(service.look(path), as_json=as_json)
        return
    last = names.find(service, "dlv", after) if after else None
    deliveries = service.look(f"{path}/deliveries", after=last)
    endpoint = None if kind == "job" else service.look(path)
    if not output.for_people(as_json=as_json):
        shown = endpoint and endpoint | {"deliveries": deliveries["data"]}
        output.as_json(shown or deliveries)
        return
    if endpoint is not None:
        _endpoints([endpoint])
        output.line()
    _deliveries(deliveries["data"])
    if deliveries.get("has_more"):
        output.hint(f"webhooks show {thing}", {"--after": [str(deliveries["last_id"])]})


@app.command("redeliver")
def redeliver(
    *,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="dlv_…, or its first characters.")
    ],
    as_json: output.AsJson = False,
) -> None:
    """Send a delivery once more, now. Its schedule does not change."""
    service = client.connect(Settings.read())
    path = names.path("/v1/deliveries", names.find(service, "dlv", delivery))
    sent = service.act(f"{path}/redeliver")
    if output.for_people(as_json=as_json):
        output.event("ok", f"attempt {len(sent['attempts'])} of {sent['id']} is due")
    else:
        output.as_json(sent)


@app.command("recover")
def recover(
    *,
    endpoint: EndpointId,
    since: Annotated[str, typer.Option(help="The start: 2h or 3d ago, or a time with its zone.")],
    as_json: output.AsJson = False,
) -> None:
    """Send again, in the background, all that an endpoint missed since a time."""
    service = client.connect(Settings.read())
    begun = service.act(f"{_path(service, endpoint)}/recover", {"since": times.moment(since)})
    if output.for_people(as_json=as_json):
        output.event("ok", f"{begun['id']} sends again what failed since {begun['since']}")
    else:
        output.as_json(begun)


@app.command("test")
def send_test(
    *,
    endpoint: EndpointId,
    event: Annotated[str, typer.Option(help="The type of the event.")] = "job.succeeded",
    as_json: output.AsJson = False,
) -> None:
    """Send a test event, and print the receiver's response."""
    service = client.connect(Settings.read())
    tested = service.act(f"{_path(service, endpoint)}/test", {"event_type": event})
    good = tested["status_code"] is not None and 200 <= tested["status_code"] < 300  # noqa: PLR2004 - success
    if output.for_people(as_json=as_json):
        output.event("ok" if good else "failed", _result(tested))
    else:
        output.as_json(tested)
    if not good:
        raise typer.Exit(output.Exit.FAILED)


@app.command("listen")
def listen(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 for a free one.")] = 8701,
    secret: Annotated[
        str,
        typer.Option(
            help="A file with whsec_…, or - for the standard input. Default: verify by the service's public key.",
            metavar="FILE",
        ),
    ] = "",
    count: Annotated[
        int, typer.Option(min=0, help="Exit after this many messages; 0 for no limit.")
    ] = 0,
) -> None:
    """Receive webhooks on this machine, verify and print them: for development.

    The service must allow this machine: LONGLOOK_WEBHOOK_ALLOW=127.0.0.0/8.
    """
    settings = Settings.read()
    secret = secret and _secret(secret)
    key = None if secret else str(client.connect(settings).look(_KEY)["public_key"])
    verified = 0

    def receive(headers: dict[str, str], body: bytes) -> bool:
        nonlocal verified
        genuine = _print(headers, body, secrets=[secret] if secret else [], public_key=key)
        verified += genuine
        return genuine

    with server(port, receive) as receiver:
        output.event("listening", f"http://127.0.0.1:{receiver.server_port}/")
        with contextlib.suppress(KeyboardInterrupt):
            while not count or verified < count:
                receiver.handle_request()


def server(port: int, receive: Callable[[dict[str, str], bytes], bool]) -> http.server.HTTPServer:
    """Return a receiver on the loopback interface: 204 if ``receive`` accepts a message, else 400."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            size = int(length[:9]) if length.isascii() and length.isdigit() else _MOST_BYTES + 1
            if size > _MOST_BYTES:
                self.send_error(413)
                return
            body = self.rfile.read(size)
            accepted = receive({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(204 if accepted else 400)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing: ``receive`` prints the messages."""

    try:
        return http.server.HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise errors.LaunchError(
            f"Port {port} must be free; choose another one with --port."
        ) from error


_DELIVERY_COLUMNS: Final = (
    "delivery",
    "status",
    "event",
    "receiver",
    "tries",
    "last",
    "age",
    "created",
)


def endpoint_row(endpoint: output.Json) -> tuple[str, ...]:
    """Return the table row of an endpoint."""
    state = "ok"
    if endpoint["disabled_at"]:
        state = f"disabled: {endpoint['disabled_reason']}"
    elif endpoint["failing_since"]:
        state = "failing"
    events = ", ".join(endpoint["event_types"])
    return (endpoint["id"], state, endpoint["name"], endpoint["url"], events)


def delivery_row(delivery: output.Json) -> tuple[str, ...]:
    """Return the table row of a delivery."""
    attempts = delivery["attempts"]
    ended = [attempt for attempt in attempts if attempt["outcome"]]
    # A list has the newest attempts only; those that have not ended are among them.
    count = delivery.get("attempt_count", len(attempts)) - (len(attempts) - len(ended))
    last = str(ended[-1]["status_code"] or ended[-1]["error_code"]) if ended else ""
    return (
        delivery["id"],
        delivery["status"],
        delivery["event_type"],
        delivery["origin"],
        str(count),
        last,
        job_output.age(delivery["created_at"]),
        delivery["created_at"],
    )


def attempt_row(attempt: output.Json) -> tuple[str, ...]:
    """Return the table row of an attempt."""
    took = attempt["seconds"]
    return (
        str(attempt["number"]),
        attempt["kind"],
        attempt["outcome"] or attempt["state"],
        _result(attempt),
        "" if took is None else f"{took:.2f} s",
        attempt["address"] or "",
        attempt["started_at"] or attempt["due_at"],
    )


def _endpoints(listed: Sequence[output.Json]) -> None:
    output.table(
        ("endpoint", "state", "name", "url", "events"),
        map(endpoint_row, listed),
        whole=1,
        ids=("endpoint",),
    )


def _deliveries(listed: Sequence[output.Json]) -> None:
    output.table(
        _DELIVERY_COLUMNS,
        map(delivery_row, listed),
        whole=2,
        wide=("created",),
        ids=("delivery",),
    )


def _show_delivery(delivery: output.Json, *, as_json: bool) -> None:
    if not output.for_people(as_json=as_json):
        output.as_json(delivery)
        return
    _deliveries([delivery])
    output.line()
    output.table(
        ("attempt", "kind", "outcome", "response", "seconds", "address", "at"),
        map(attempt_row, delivery["attempts"]),
        whole=3,
        wide=("address",) if output.narrow() else (),
    )
    output.line()
    output.quote(output.json_text(delivery["payload"], indent=2))


def _secret(place: str) -> str:
    """Return the secret in a file or from the standard input. Other users can read the arguments of a process."""
    try:
        return (sys.stdin.read() if place == "-" else Path(place).read_text()).strip()
    except OSError as error:
        raise errors.InvalidRequest(
            f"--secret must be a readable file: {error.strerror}.", param="secret"
        ) from error


def _path(service: client.Client, endpoint: str) -> str:
    return names.path(_ENDPOINTS, names.find(service, "we", endpoint))


def _path_of(service: client.Client, thing: str) -> tuple[ids.Kind, str]:
    """Return the kind and the path of an endpoint, a delivery or a job, by its id or the first characters of it."""
    for kind, root in _ROOTS.items():
        if thing.startswith(f"{kind}_") or (kind == "job" and thing == names.LAST):
            return kind, names.path(root, names.find(service, kind, thing))
    raise errors.InvalidRequest(
        "ID must be that of an endpoint (we_…), a delivery (dlv_…) or a job (job_…, @last), or its first characters; "
        f"it is {thing!r}.",
        param="id",
    )


def _print(
    headers: dict[str, str], body: bytes, *, secrets: Sequence[str], public_key: str | None
) -> bool:
    """Verify and print a message; return whether it is genuine."""
    try:
        signature.verify(
            headers, body, at=datetime.now(UTC), secrets=secrets, public_key=public_key
        )
    except signature.NotGenuine as error:
        output.event("failed", str(error))
        return False
    try:
        message = json.loads(body)
    except ValueError:
        message = body.decode(errors="replace")
    if not output.for_people():
        output.json_line(message)
        return True
    if isinstance(message, dict):
        output.event("received", f"{message.get('type')}  {message.get('id')}")
    output.quote(output.json_text(message))
    return True


def _result(attempt: Mapping[str, Any]) -> str:
    """Return the status or error of an attempt, with its cause where the service says more."""
    code = str(attempt["status_code"] or attempt["error_code"] or "")
    detail = attempt.get("error_detail")
    return f"{code}: {output.inline(detail)}" if detail else code
