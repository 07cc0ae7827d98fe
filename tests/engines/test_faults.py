"""Each thing that goes wrong between the client and SGLang is the fault that the worker has a rule for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core import errors
from tests.e2e.stack import free_port
from tests.engines import asking, raw_peer, subjects
from tests.engines.raw_peer import RawPeer
from tests.engines.subjects import Connect
from tests.scripted_server import BackgroundServer


@pytest.fixture
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer(subjects.OPTIONS) as server:
        yield server


@pytest.mark.parametrize(
    ("behavior", "fault", "message"),
    [
        ("busy", errors.EngineBusy, "no room"),
        ("early_abort", errors.EngineBusy, "before it began"),
        ("starting", errors.EngineUnavailable, "not ready"),
        ("refuse", errors.EngineRejected, "does not accept"),
        ("fault", errors.EngineFault, "failed in the middle"),
        ("evicted", errors.EngineFault, "failed in the middle"),
        ("reset", errors.EngineLost, "in the middle of"),
        ("cut_off", errors.EngineFault, "no end"),
        ("bare_abort", errors.EngineFault, "without a request"),
    ],
)
def test_a_mishap_of_the_engine_is_the_right_fault(
    behavior: str,
    fault: type[errors.EngineError],
    message: str,
    server: BackgroundServer,
    connect: Connect,
) -> None:
    client = connect(server.url)

    with pytest.raises(fault, match=message):
        asking.read(client, asking.ask(f"[[behavior:{behavior}]] What is there?"))

    assert asking.text(asking.read(client, asking.ask())), "the client can be used afterwards"


@pytest.mark.parametrize(
    ("code", "body", "fault", "message"),
    [
        (
            400,
            b'{"message":"The input is longer than the model\'s context length"}',
            "R",
            "context",
        ),
        (400, b'{"message":"Image count 9 exceeds limit 8 per request."}', "R", "number of images"),
        (400, b'{"error":{"message":"Could not decode image: it"}}', "R", "cannot read the image"),
        (400, b'{"message":"Failed to compile json grammar: at #/a"}', "R", "Schema of the answer"),
        (413, b"too large", "R", "does not accept"),
        (422, b'{"detail":[]}', "R", "does not accept"),
        (401, b'{"error":"Unauthorized"}', "U", "LONGLOOK_ENGINE_API_KEY"),
        (403, b"", "U", "LONGLOOK_ENGINE_API_KEY"),
        (404, b"", "U", "not an engine"),
        (302, b"", "U", "not an engine"),
        (503, b'{"message":"warming up"}', "U", "not ready"),
        (503, b'{"message":"The request queue is full."}', "B", "no room"),
        (429, b"", "B", "no room"),
        (500, b'{"message":"decompression bomb"}', "F", "status 500"),
    ],
)
def test_a_status_is_the_right_fault(
    code: int, body: bytes, fault: str, message: str, connect: Connect
) -> None:
    faults = {
        "R": errors.EngineRejected,
        "U": errors.EngineUnavailable,
        "B": errors.EngineBusy,
        "F": errors.EngineFault,
    }
    with RawPeer(raw_peer.answering(raw_peer.status(code, body))) as peer:
        client = connect(peer.url)
        with pytest.raises(faults[fault], match=message) as raised:
            asking.read(client, asking.ask())

    assert b"decode image: it" not in raised.value.message.encode(), "its words stay inside"


def test_nothing_listens(connect: Connect) -> None:
    client = connect(f"http://127.0.0.1:{free_port()}")

    with pytest.raises(errors.EngineUnavailable, match="cannot be reached"):
        asking.read(client, asking.ask())
    with pytest.raises(errors.EngineUnavailable):
        client.facts()
    with pytest.raises(errors.EngineUnavailable):
        client.load()
    client.abort("0" * 32)


def test_a_host_without_a_name_cannot_be_reached(connect: Connect) -> None:
    client = connect("http://engine.invalid:30000")

    with pytest.raises(errors.EngineUnavailable, match="cannot be reached"):
        asking.read(client, asking.ask())


def test_an_engine_that_hangs_up_before_its_head_is_lost(connect: Connect) -> None:
    with RawPeer(raw_peer.answering()) as peer:
        with pytest.raises(errors.EngineLost, match="closed the connection"):
            asking.read(connect(peer.url), asking.ask())

        assert peer.connections == 1, "a fresh connection is not tried again"


def test_what_is_no_http_is_unavailable(connect: Connect) -> None:
    with (
        RawPeer(raw_peer.answering(b"220 mail.example SMTP\r\n")) as peer,
        pytest.raises(errors.EngineUnavailable),
    ):
        asking.read(connect(peer.url), asking.ask())


def test_silence_before_the_head_is_a_fault(connect: Connect) -> None:
    with RawPeer(raw_peer.holding()) as peer:
        client = connect(peer.url, first_token_seconds=0.05)

        with pytest.raises(errors.EngineFault, match=r"silent for 0\.05 s"):
            asking.read(client, asking.ask())


def test_silence_between_the_head_and_the_first_event_is_measured_as_before_the_head(
    connect: Connect,
) -> None:
    with RawPeer(raw_peer.holding(raw_peer.STREAM)) as peer:
        client = connect(peer.url, first_token_seconds=0.05)

        with pytest.raises(errors.EngineFault, match=r"silent for 0\.05 s"):
            asking.read(client, asking.ask())


def test_silence_between_two_events_is_a_fault(connect: Connect) -> None:
    with RawPeer(raw_peer.holding(raw_peer.STREAM + raw_peer.word(b"Let"))) as peer:
        client = connect(peer.url, token_seconds=0.05)

        with pytest.raises(errors.EngineFault, match=r"silent for 0\.05 s"):
            asking.read(client, asking.ask())


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"10\r\ndata: {",
        raw_peer.chunk(b"data: {]\n\n"),
        raw_peer.chunk(b"data: 7\n\n"),
        raw_peer.chunk(raw_peer.EVENT % (b"", b'"tool_calls"')),
        raw_peer.chunk(raw_peer.DONE) + raw_peer.LAST,
        b"not a chunk\r\n",
    ],
)
def test_a_stream_that_breaks_after_some_text_is_a_fault(tail: bytes, connect: Connect) -> None:
    response = raw_peer.STREAM + raw_peer.word(b"Let") + tail
    with RawPeer(raw_peer.answering(response)) as peer, pytest.raises(errors.EngineFault):
        asking.read(connect(peer.url), asking.ask())


def test_what_came_before_a_fault_is_handed_out(connect: Connect) -> None:
    with RawPeer(raw_peer.answering(raw_peer.STREAM + raw_peer.word(b"Let"))) as peer:
        reader = asking.Reader(connect(peer.url), asking.ask())

        assert asking.text(reader.join()) == "Let"
        assert isinstance(reader.error, errors.EngineFault)


def test_an_engine_that_dies_while_it_answers_is_a_fault(
    server: BackgroundServer, connect: Connect
) -> None:
    reader = asking.Reader(connect(server.url), asking.ask("[[behavior:silent]] What is there?"))
    reader.wait_for_text()

    server.stop()

    reader.join()
    assert isinstance(reader.error, errors.EngineFault)


def test_a_wrong_key_differs_from_a_right_one(connect: Connect) -> None:
    with BackgroundServer(subjects.OPTIONS, api_key="right") as server:
        wrong = connect(server.url, api_key="wrong")
        with pytest.raises(errors.EngineUnavailable, match="LONGLOOK_ENGINE_API_KEY"):
            asking.read(wrong, asking.ask())
        with pytest.raises(errors.EngineUnavailable, match="LONGLOOK_ENGINE_API_KEY"):
            wrong.facts()

        right = connect(server.url, api_key="right")
        assert asking.text(asking.read(right, asking.ask()))
        assert right.facts().model == "tiny-qvq"
