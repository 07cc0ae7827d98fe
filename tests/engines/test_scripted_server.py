"""The scripted engine over HTTP, through the official client and raw requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import urllib3

from jobs import engine
from scripted import ScriptedOptions
from tests import children
from tests.e2e.stack import free_port
from tests.engines import asking, subjects
from tests.engines.subjects import Connect
from tests.scripted_server import BackgroundServer
from worker.engines.sglang import wire


@pytest.fixture
def server() -> Iterator[BackgroundServer]:
    with BackgroundServer(subjects.OPTIONS) as server:
        yield server


def post(server: BackgroundServer, path: str, body: object) -> tuple[int, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = urllib3.request("POST", server.url + path, body=data, retries=False, timeout=30)
    return answer.status, answer.data


def get(server: BackgroundServer, path: str) -> tuple[int, bytes]:
    answer = urllib3.request("GET", server.url + path, retries=False, timeout=30)
    return answer.status, answer.data


def chat(request: engine.GenerationRequest, **fields: object) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(wire.body(request, wire.EncodedImages()))
    return {**body, **fields}


def _turn(url: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def test_the_official_client_reads_a_stream(server: BackgroundServer) -> None:
    body = chat(asking.ask())
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="tiny-qvq",
            messages=body["messages"],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.endswith("}")
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(chunks) - 3


def test_the_official_client_reads_a_whole_answer(server: BackgroundServer) -> None:
    body = chat(asking.ask())
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
        answer = client.chat.completions.create(
            model="tiny-qvq", messages=body["messages"], temperature=0
        )

    assert answer.choices[0].finish_reason == "stop"
    assert (answer.choices[0].message.content or "").endswith("}")
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 100


@pytest.mark.parametrize(("behavior", "status"), [("busy", 503), ("fault", 500), ("starting", 503)])
def test_without_streaming_an_error_is_a_status(
    behavior: str, status: int, server: BackgroundServer
) -> None:
    body = chat(asking.ask(f"[[behavior:{behavior}]]"), stream=False)

    answered, data = post(server, "/v1/chat/completions", body)

    assert answered == status
    assert json.loads(data)["code"] == status


def test_a_full_queue_is_an_error_event_of_a_stream(server: BackgroundServer) -> None:
    status, data = post(server, "/v1/chat/completions", chat(asking.ask("[[behavior:busy]]")))

    events = [line for line in data.split(b"\n\n") if line]
    assert status == 200
    assert json.loads(events[0].removeprefix(b"data: "))["error"]["code"] == 503
    assert json.loads(events[1].removeprefix(b"data: "))["usage"]["prompt_tokens"] == 0
    assert events[-1] == b"data: [DONE]"


def test_a_trailing_assistant_message_is_continued_only_on_request(
    server: BackgroundServer,
) -> None:
    request = asking.ask(continuation="**Final Answer**\n\n\\boxed{")
    continued = chat(request, stream=False)
    turned = {**continued, "continue_final_message": False}

    texts = [
        json.loads(post(server, "/v1/chat/completions", body)[1])["choices"][0]["message"][
            "content"
        ]
        for body in (continued, turned)
    ]

    assert len(texts[0]) < 20
    assert len(texts[1]) > 200


def test_without_sampling_parameters_all_samples_are_equal(server: BackgroundServer) -> None:
    body = chat(asking.ask(), stream=False)
    for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "rid"):
        del body[name]

    answers = [post(server, "/v1/chat/completions", body)[1] for _ in range(2)]

    texts = [json.loads(answer)["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "change",
    [
        {"messages": []},
        {"messages": "text"},
        {"temperature": -1},
        {"max_completion_tokens": 5000},
        {"messages": [{"role": "user", "content": "x " * 9000}]},
        {"messages": [_turn("http://127.0.0.1:9/x.png")]},
        {"messages": [_turn("data:image/png;base64,%%%")]},
        {"messages": [_turn("data:image/png;base64,AAAA")]},
    ],
)
def test_a_request_that_sglang_rejects_is_rejected(
    change: dict[str, object], server: BackgroundServer
) -> None:
    status, data = post(server, "/v1/chat/completions", chat(asking.ask(), **change))

    assert status == 400
    assert json.loads(data)["type"] == "BadRequestError"


def test_a_body_that_is_not_json_is_rejected(server: BackgroundServer) -> None:
    assert post(server, "/v1/chat/completions", b"{")[0] == 400
    assert post(server, "/abort_request", b"{")[0] == 400


def test_the_state_endpoints_answer(server: BackgroundServer) -> None:
    assert get(server, "/health") == get(server, "/ready") == (200, b"")
    assert json.loads(get(server, "/server_info")[1])["max_running_requests"] == 64
    assert json.loads(get(server, "/v1/models")[1])["data"][0]["max_model_len"] == 2048
    assert json.loads(get(server, "/v1/loads")[1])["loads"][0]["num_running_reqs"] == 0
    assert get(server, "/nothing")[0] == 404


def test_metrics_count_requests_and_a_flush_clears_the_cache(
    server: BackgroundServer, connect: Connect
) -> None:
    client = connect(server.url)
    salt = asking.ask().salt
    used = [asking.bill(asking.read(client, asking.ask(salt=salt))).cached_tokens for _ in range(2)]
    assert post(server, "/flush_cache", {})[0] == 200
    used.append(asking.bill(asking.read(client, asking.ask(salt=salt))).cached_tokens)

    metrics = get(server, "/metrics")[1].decode()

    assert [bool(cached) for cached in used] == [False, True, False]
    assert 'sglang:num_requests_total{model_name="tiny-qvq"} 3\n' in metrics
    assert f'sglang:cached_tokens_total{{model_name="tiny-qvq"}} {used[1]}\n' in metrics


def test_all_streams_can_be_aborted_at_once(server: BackgroundServer, connect: Connect) -> None:
    client = connect(server.url)
    readers = [asking.Reader(client, asking.ask("[[behavior:silent]]")) for _ in range(3)]
    for reader in readers:
        reader.wait_for_text()

    post(server, "/abort_request", {"abort_all": True})

    for reader in readers:
        reader.join()
        assert isinstance(reader.error, Exception), "the client did not ask for the abort"
    assert client.load() == engine.EngineLoad(running=0, waiting=0)


def test_a_disconnected_client_is_noticed_late(connect: Connect) -> None:
    options = subjects.OPTIONS.model_copy(update={"disconnect_seconds": 3600})
    with BackgroundServer(options) as server:
        client = connect(server.url)
        reader = asking.Reader(client, asking.ask("[[behavior:silent]]"))
        reader.wait_for_text()
        reader.close()
        reader.join()

        assert client.load().running == 1
        client.abort(reader.request.rid)
        assert asking.eventually(lambda: client.load().running == 0)


def test_a_reset_for_a_disconnected_client_does_not_stop_other_streams(connect: Connect) -> None:
    options = subjects.OPTIONS.model_copy(
        update={"tokens_per_second": 40, "disconnect_seconds": 3600}
    )
    with BackgroundServer(options) as server:
        client = connect(server.url)
        reader = asking.Reader(client, asking.ask("[[behavior:reset]]"))
        reader.wait_for_text()
        reader.close()
        reader.join()

        assert asking.eventually(lambda: client.load().running == 0)
        assert asking.text(asking.read(client, asking.ask(max_output_tokens=64)))


def test_a_hundred_streams_share_one_server(connect: Connect) -> None:
    options = ScriptedOptions(tokens_per_second=1000, prefill_tokens_per_second=0, window=100)
    with BackgroundServer(options) as server:
        client = connect(server.url)
        readers = [asking.Reader(client, asking.ask(f"How many {n}?")) for n in range(100)]

        texts = {asking.text(reader.join()) for reader in readers}

    assert len(texts) == 100
    assert all(text.endswith("}") for text in texts)


def test_a_server_process_exits_cleanly_on_sigterm(tmp_path: Path, connect: Connect) -> None:
    port = free_port()
    code = f"from scripted import server; server.serve('127.0.0.1', {port}, model='named')"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path)
    client = connect(f"http://127.0.0.1:{port}")
    try:
        assert asking.eventually(lambda: _answers(client.url))
        assert client.facts().model == "named"
        reader = asking.Reader(client, asking.ask(max_output_tokens=64))
        reader.wait_for_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        reader.join()
    finally:
        children.stop(process, signal.SIGKILL)


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", f"{url}/ready", retries=False, timeout=5).status == 200
    except urllib3.exceptions.HTTPError:
        return False
