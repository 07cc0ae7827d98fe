"""Each way in which a receiver can fail, over real sockets: each ends as promised, with its row and next attempt."""

from __future__ import annotations

import contextlib
import gzip
import ipaddress
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.database import Database
from core.outbound_proxy import OutboundProxy
from net.client import GuardedClient
from tests import certificates, databases, factories, webhooks
from tests.certificates import Authority
from tests.connect_proxy import proxying
from tests.databases import Age
from tests.receivers import answering, receiving, receiving_on_one_port
from webhooks import policy
from webhooks.policy import AttemptOutcome, AttemptState, DeliveryStatus
from webhooks.sender import Sender
from webhooks.signer import SecretSigner

LOOPBACK = ("127.0.0.0/8", "::1/128")
#: For those that do not answer in time, for those whose head does, and for others, as long as a busy machine may need.
SHORT, MIDDLE, LONG = 0.6, 2.5, 30.0
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
#: What fifty million zeros are, compressed.
BOMB = gzip.compress(bytes(50_000_000))
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BROKEN = "The body of the response is malformed or ended early."
LATE = "The body of the response did not end in time."
DRIP = b"HTTP/1.1 200 OK\r\ncontent-length: 16000\r\n\r\n"

Place = Callable[[Authority], AbstractContextManager[str]]


@contextlib.contextmanager
def web(
    status: int, *, host: str = "127.0.0.1", answer: bytes = b"", **headers: str
) -> Iterator[str]:
    with receiving() as receiver:
        receiver.status, receiver.answer = status, answer
        receiver.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        yield receiver.url.replace("127.0.0.1", host)


@contextlib.contextmanager
def tls(
    authority: Authority,
    *,
    host: str = "localhost",
    trusted: bool = True,
    **facts: Any,  # noqa: ANN401 - of the certificate
) -> Iterator[str]:
    if not trusted:
        folder = authority.folder / "others"
        folder.mkdir(exist_ok=True)
        authority = Authority.make(folder)
    with certificates.serving(authority.issue(host, **facts)) as port:
        yield f"https://localhost:{port}/"


@contextlib.contextmanager
def plain(_: Authority) -> Iterator[str]:
    """Serve plain HTTP at an https URL."""
    with receiving() as receiver:
        yield receiver.url.replace("http:", "https:")


@contextlib.contextmanager
def silent(_: Authority) -> Iterator[str]:
    """Take what is sent and say nothing."""
    with receiving() as receiver:
        receiver.held.clear()
        yield receiver.url


@dataclass(frozen=True)
class Case:
    """A receiver, what may be reached, and how the first attempt ends."""

    place: Place
    code: str | None
    status: int | None = None
    #: Bytes of the body that are stored; None: some, the clock decides.
    answer: int | None = 0
    allow: tuple[str, ...] = LOOPBACK
    #: Seconds until the next attempt, at least and at most; None: there is none.
    wait: tuple[float, float] | None = (4.0, 6.0)
    seconds: float = LONG
    #: What the row says besides the code.
    detail: str | None = None


CASES = {
    "200": Case(lambda _: web(200, answer=b"thanks"), None, 200, 6, wait=None),
    "204": Case(lambda _: web(204), None, 204, wait=None),
    "301": Case(lambda _: web(301, location="http://127.0.0.1:1/"), "redirected", 301),
    "400": Case(lambda _: web(400, answer=b"no"), "refused", 400, 2),
    "410": Case(lambda _: web(410), "gone", 410, wait=None),
    "429, an hour": Case(lambda _: web(429, retry_after="3600"), "refused", 429, wait=(3590, 3610)),
    "500": Case(lambda _: web(500), "refused", 500),
    "503, a second": Case(lambda _: web(503, retry_after="1"), "refused", 503),
    "5 MB": Case(lambda _: web(200, answer=b"x" * 5_000_000), None, 200, 16384, wait=None),
    "50 MB in 48 kB": Case(
        lambda _: web(200, answer=BOMB, content_encoding="gzip"), None, 200, 16384, wait=None
    ),
    "silence": Case(silent, "timed_out", seconds=SHORT),
    "drip from the first byte": Case(
        lambda _: answering(b"", drip=True), "timed_out", seconds=SHORT
    ),
    "refused": Case(lambda _: contextlib.nullcontext("http://127.0.0.1:9/"), "unreachable"),
    # A head that is whole counts, whatever becomes of the body.
    "half an answer": Case(lambda _: answering(HALF), None, 200, 4, wait=None, detail=BROKEN),
    "chunks without an end": Case(
        lambda _: answering(CHUNKED + b"4\r\nhalf\r\n"), None, 200, 4, wait=None, detail=BROKEN
    ),
    "chunks of no size": Case(
        lambda _: answering(CHUNKED + b"4\r\nhalf\r\nxyz\r\n"),
        None,
        200,
        4,
        wait=None,
        detail=BROKEN,
    ),
    "a body that never comes": Case(
        lambda _: answering(HEAD + b"content-length: 100\r\n\r\n", hold=True),
        None,
        200,
        wait=None,
        seconds=MIDDLE,
        detail=LATE,
    ),
    "a body without a length and an end": Case(
        lambda _: answering(HEAD + b"\r\nhalf", hold=True),
        None,
        200,
        4,
        wait=None,
        seconds=MIDDLE,
        detail=LATE,
    ),
    "one length twice": Case(
        lambda _: answering(HEAD + b"content-length: 2, 2\r\n\r\nok", hold=True),
        None,
        200,
        2,
        wait=None,
    ),
    "two lengths": Case(
        lambda _: answering(HEAD + b"content-length: 2, 3\r\n\r\nok"), None, 200, 2, wait=None
    ),
    "300 headers": Case(
        lambda _: answering(HEAD + b"x-a: b\r\n" * 300 + b"\r\nok"), None, 200, 2, wait=None
    ),
    "drip": Case(
        lambda _: answering(DRIP + b"x", drip=True),
        None,
        200,
        None,
        wait=None,
        seconds=MIDDLE,
        detail=LATE,
    ),
    "half a refusal": Case(
        lambda _: answering(HALF.replace(b"200 OK", b"500 No")), "refused", 500, 4, detail=BROKEN
    ),
    "half a head": Case(lambda _: answering(HEAD + b"content-length: 2\r\n"), "answer_broken"),
    "a head without an end": Case(
        lambda _: answering(HEAD + b"x-a: b\r\n" * 40_000), "answer_broken"
    ),
    "good certificate": Case(tls, None, 204, wait=None),
    "expired": Case(
        lambda authority: tls(authority, days=-1),
        "tls_failed",
        detail="The certificate of the server expired on {yesterday}",
    ),
    "not yet valid": Case(
        lambda authority: tls(authority, age=-1),
        "tls_failed",
        detail="The certificate of the server is not valid before {tomorrow}",
    ),
    "another's name": Case(
        lambda authority: tls(authority, host="a.example", names=("b.example",)),
        "tls_failed",
        detail="The certificate of the server is not for localhost: it is for a.example, b.example.",
    ),
    "another's authority": Case(
        lambda authority: tls(authority, trusted=False),
        "tls_failed",
        detail="The authority that issued the certificate of the server (CN=tests) is not trusted",
    ),
    "its own authority": Case(
        lambda authority: tls(authority, self_signed=True),
        "tls_failed",
        detail="The certificate of the server is self-signed, and not trusted.",
    ),
    "no TLS": Case(plain, "tls_failed", detail="The server does not speak TLS on this port."),
    "no such name": Case(
        lambda _: contextlib.nullcontext("https://name.invalid/"), "name_not_resolved"
    ),
    "name of a private place": Case(
        lambda _: web(200, host="localhost"), "address_forbidden", allow=()
    ),
    "IPv6-mapped": Case(
        lambda _: web(200, host="[::ffff:127.0.0.1]"), "address_forbidden", allow=()
    ),
    "IPv6-mapped, allowed": Case(
        lambda _: web(200, host="[::ffff:127.0.0.1]"), None, 200, wait=None
    ),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def account_id(database: Database) -> uuid.UUID:
    return factories.make_account(database)


def try_next(database: Database, egress: GuardedClient, *, seconds: float = LONG) -> None:
    """Make the one attempt that is due."""
    [claimed] = webhooks.claim(database)
    Sender(
        database,
        signer=SecretSigner(database, vault=webhooks.VAULT),
        egress=egress,
        seconds=seconds,
        rng=random.Random(5),
        give_up=threading.Event(),
    ).send(claimed)


def dated(detail: str | None) -> str:
    """Return a detail with the dates that it has now."""
    yesterday, tomorrow = (
        f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (-1, 1)
    )
    return (detail or "").format(yesterday=yesterday, tomorrow=tomorrow)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_receiver_ends_as_promised_with_its_row(
    database: Database, account_id: uuid.UUID, authority: Authority, case: Case
) -> None:
    egress = GuardedClient(case.allow, context=authority.context())
    details = {dated(case.detail)}
    with case.place(authority) as url:
        # Midnight may lie between.
        details.add(dated(case.detail))
        webhooks.make_endpoint(database, account_id, url=url)
        webhooks.run_job(database, account_id)
        try_next(database, egress, seconds=case.seconds)
    egress.close()

    first, *further = webhooks.attempts(database)
    [reported] = webhooks.all_deliveries(database)
    delivered = case.code is None
    assert first.outcome is (AttemptOutcome.DELIVERED if delivered else AttemptOutcome.FAILED)
    assert (first.error_code, first.status_code) == (case.code, case.status)
    if case.answer is None:
        assert first.response_body
    else:
        assert len(first.response_body or b"") == case.answer <= policy.RESPONSE_BYTES
    if case.detail is None:
        assert first.error_detail is None
    else:
        assert (first.error_detail or "").startswith(tuple(details))
    assert first.seconds is not None
    # Cut in time: the drip would go on for minutes.
    late = case.code == "timed_out" or case.detail == LATE
    assert (first.seconds >= case.seconds) if late else (first.seconds < LONG)
    assert first.ended_at is not None
    if case.wait is None:
        ends = DeliveryStatus.DELIVERED if delivered else DeliveryStatus.FAILED
        assert (reported.status, further, first.next_at) == (ends, [], None)
        return
    [again] = further
    assert reported.status is DeliveryStatus.PENDING
    assert again.due_at == first.next_at
    # Told from the moment of the answer, which lies between these two.
    assert again.due_at >= first.ended_at + timedelta(seconds=case.wait[0])
    assert again.due_at <= databases.now(database) + timedelta(seconds=case.wait[1])


def test_a_name_that_becomes_private_between_two_attempts_is_refused_at_the_connect(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    turning = ["127.0.0.2"]
    egress = GuardedClient(
        ["127.0.0.2/32"], look_up=lambda _host, _port: [ipaddress.ip_address(turning[-1])]
    )
    with receiving_on_one_port("127.0.0.2", "127.0.0.1") as (outside, inside):
        port = int(outside.url.rsplit(":", 1)[1].partition("/")[0])
        outside.status = 404
        webhooks.make_endpoint(database, account_id, url=f"http://turning.example:{port}/hook")
        webhooks.run_job(database, account_id)

        try_next(database, egress)
        turning.append("127.0.0.1")
        age(10)
        # The connection that was kept leads where it led when it was checked.
        try_next(database, egress)
        outside.hang_up()
        age(400)
        try_next(database, egress)

        assert len(outside.got) == 2
        assert inside.got == []
    egress.close()
    rows = [
        (row.error_code, row.address)
        for row in webhooks.attempts(database)
        if row.state is AttemptState.ENDED
    ]
    assert rows == [
        ("refused", "127.0.0.2"),
        ("refused", "127.0.0.2"),
        ("address_forbidden", "127.0.0.1"),
    ]


def test_a_receiver_that_moves_while_it_fails_is_reached_at_its_new_address(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    addresses = ["127.0.0.2"]
    egress = GuardedClient(
        LOOPBACK, look_up=lambda _host, _port: [ipaddress.ip_address(addresses[-1])]
    )
    with receiving_on_one_port("127.0.0.2", "127.0.0.3") as (old, new):
        port = int(old.url.rsplit(":", 1)[1].partition("/")[0])
        old.status = 503
        webhooks.make_endpoint(database, account_id, url=f"http://moved.example:{port}/hook")
        webhooks.run_job(database, account_id)

        try_next(database, egress)
        addresses.append("127.0.0.3")
        age(10)
        # The server that failed has kept its connection open.
        try_next(database, egress)

        assert (len(old.got), len(new.took)) == (1, 1)
    egress.close()


def test_a_proxy_that_does_not_work_uses_up_no_attempt(
    database: Database, account_id: uuid.UUID, age: Age
) -> None:
    with proxying() as proxy, receiving() as receiver:
        egress = GuardedClient(
            LOOPBACK, proxy=OutboundProxy.parse(f"http://127.0.0.1:{proxy.port}")
        )
        webhooks.make_endpoint(database, account_id, url=receiver.url)
        webhooks.run_job(database, account_id)
        proxy.answer = b"HTTP/1.1 407 No\r\n\r\n"
        for _ in range(policy.TRIP + 1):
            try_next(database, egress)
            assert webhooks.claim(database) == []
            age(61)
        proxy.answer = b""

        try_next(database, egress)
        egress.close()

    assert len(receiver.took) == 1
    [attempt] = webhooks.attempts(database)
    assert (attempt.number, attempt.outcome) == (1, AttemptOutcome.DELIVERED)
