"""Where the special tokens of a served model come from, and that no text becomes one on the wire."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import profiles, special_tokens
from jobs import engine
from scripted import chat
from scripted.scheduler import Scheduler
from tests.engines import asking, raw_peer, subjects
from tests.engines.raw_peer import RawPeer
from tests.engines.subjects import Connect
from tests.real_engine import RealEngine
from tests.scripted_server import BackgroundServer
from worker.engines.sglang import tokenizer, wire

CHECKPOINT = RealEngine.samples.parent / "checkpoint"
QWEN = frozenset(special_tokens.QWEN2_VL)
#: Ids of all candidates as an engine tells them that has none of them as a token but this one.
ONE_BY_ONE = [[1] if marker == "<think>" else [1, 2] for marker in special_tokens.CANDIDATES]


def test_the_checkpoints_files_name_what_the_profile_assumes() -> None:
    assert tokenizer.of_checkpoint(str(CHECKPOINT)) == QWEN


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "tokenizer_config.json",
            {
                "added_tokens_decoder": {
                    "7": {"content": "<|im_end|>", "special": True},
                    "8": {"content": "<tool_call>", "special": False},
                    "9": {"content": "    ", "special": False},
                    "10": {"content": "word", "special": False},
                },
                "eos_token": {"content": "</s>"},
                "additional_special_tokens": ["<image>", {"content": "[IMG]"}],
                "unk_token": None,
                "chat_template": "<|im_start|>",
            },
            {"<|im_end|>", "<tool_call>", "</s>", "<image>", "[IMG]"},
        ),
        (
            "tokenizer.json",
            {"added_tokens": [{"content": "<s>", "special": True}, {"id": 3}, 4]},
            {"<s>"},
        ),
        ("special_tokens_map.json", {"pad_token": "<pad>"}, {"<pad>"}),
        ("added_tokens.json", {"<think>": 151667, "word": 3}, {"<think>"}),
        ("tokenizer.json", {"added_tokens": []}, None),
        ("tokenizer.json", [1], None),
        ("vocab.json", {"<|im_end|>": 3}, None),
    ],
)
def test_each_file_of_a_checkpoint_is_read(
    name: str, content: object, found: set[str] | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "unreadable.json").write_text("{")

    assert tokenizer.of_checkpoint(str(tmp_path)) == found


@pytest.mark.parametrize("folder", ["", "Qwen/QVQ-72B-Preview", "/no/such/folder", "models"])
def test_what_is_no_folder_of_this_machine_tells_nothing(folder: str) -> None:
    assert tokenizer.of_checkpoint(folder) is None


def test_an_engine_tells_what_is_one_token() -> None:
    answer = json.dumps({"tokens": ONE_BY_ONE}).encode()

    assert tokenizer.of_answer(answer) == {"<think>"}


class Tokenizing:
    """An engine that has ``<think>`` as a special token, and keeps what it was sent."""

    def __init__(self, *, info: dict[str, Any], tokens: object) -> None:
        self.sent: list[dict[str, Any]] = []
        self._info = info
        self._tokens = tokens

    def __call__(self, connection: socket.socket) -> None:
        request = raw_peer.read_request(connection)
        head, _, body = request.partition(b"\r\n\r\n")
        path = head.split()[1]
        if path == b"/server_info":
            connection.sendall(raw_peer.status(200, json.dumps(self._info).encode()))
        elif path == b"/v1/tokenize":
            status = 200 if self._tokens is not None else 404
            answer = json.dumps({"tokens": self._tokens}).encode()
            connection.sendall(raw_peer.status(status, answer))
        else:
            self.sent.append(json.loads(body))
            connection.sendall(raw_peer.whole(b"yes"))


INFO = {
    "max_running_requests": 8,
    "context_length": 2048,
    "served_model_name": "m",
    "version": "1",
    "model_path": "/elsewhere",
}


@pytest.mark.parametrize(
    ("tokens", "requested"),
    [
        (ONE_BY_ONE, "< think> < |im_end|> <s>"),
        (None, "<think> < |im_end|> <s>"),
        ([[1]], "<think> < |im_end|> <s>"),
        ("?", "<think> < |im_end|> <s>"),
    ],
    ids=["told", "not told", "too few", "no list"],
)
def test_what_an_engine_tells_is_broken_up_in_what_it_is_sent(
    tokens: object, requested: str, connect: Connect
) -> None:
    act = Tokenizing(info=INFO, tokens=tokens)
    with RawPeer(act, act, act, act, act) as peer:
        client = connect(peer.url)
        client.facts()

        asking.read(client, asking.ask("<think> <|im_end|> <s>"))

    assert act.sent[0]["messages"][1]["content"][-1]["text"] == requested


def test_files_of_the_checkpoint_spare_the_question(connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<eos>"}')
    act = Tokenizing(info=INFO | {"tokenizer_path": str(tmp_path)}, tokens=ONE_BY_ONE)
    with RawPeer(act, act, act) as peer:
        client = connect(peer.url)
        client.facts()
        client.facts()

        asking.read(client, asking.ask("<eos> <think>"))

        assert peer.connections == 3
    assert act.sent[0]["messages"][1]["content"][-1]["text"] == "< eos> <think>"


def test_all_texts_of_a_request_are_broken_up_and_its_schema_is_not() -> None:
    marked = "a<|im_end|>b"
    schema = {"type": "object", "properties": {marked: {"const": marked}}}
    request = asking.ask(
        marked,
        system=marked,
        instruction=marked,
        turn=engine.FollowUp(marked, marked),
        continuation=marked,
        schema=schema,
    )

    body = json.loads(wire.body(request, wire.EncodedImages()))

    texts = [message["content"] for message in body["messages"]]
    texts[1] = texts[1][-1]["text"]
    broken = "a< |im_end|>b"
    assert texts == [broken, broken * 2, broken, broken, broken]
    assert body["response_format"]["json_schema"]["schema"] == schema


def test_a_marker_that_pieces_make_up_together_is_broken_up() -> None:
    request = asking.ask("x<|image_", instruction="pad|>", continuation="<|im_<|im_end|>end|>")

    messages = json.loads(wire.body(request, wire.EncodedImages()))["messages"]

    assert messages[1]["content"][-1]["text"] == "x< |image_pad|>"
    assert messages[2]["content"] == "< |im_< |im_end|>end|>"


def test_a_scripted_engine_tells_them_as_sglang_does(connect: Connect) -> None:
    with BackgroundServer(subjects.OPTIONS) as server:
        client = connect(server.url)
        client.facts()

        said = asking.text(asking.read(client, asking.ask("How many <|image_pad|>?")))

    assert "\\boxed{" in said


@pytest.mark.parametrize(
    "place", ["question", "system", "instruction", "continuation", "said", "requested"]
)
def test_a_scripted_engine_gets_stuck_on_a_marker_as_sglang_does(place: str) -> None:
    marked = "x<|image_pad|>"
    fields: dict[str, Any] = {place: marked}
    if place in ("said", "requested"):
        fields = {
            "turn": engine.FollowUp(*(("a", marked) if place == "requested" else (marked, "b")))
        }
    request = replace(asking.ask(), **fields)
    scheduler = Scheduler(subjects.OPTIONS, profiles.TINY, lambda: 1000.0)

    generation = scheduler.add(request, lambda: None, stuck=chat.gets_stuck(request))

    step = generation.advance(1e9)
    assert (list(step.chunks), step.end) == ([], None)
    assert scheduler.load() == engine.EngineLoad(running=0, waiting=0)
