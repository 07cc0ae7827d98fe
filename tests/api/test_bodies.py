"""What a request body may cost: it is counted before it is read as what it says, and refused with one short answer."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import structlog
from flask.testing import FlaskClient
from urllib3 import encode_multipart_formdata
from werkzeug.test import TestResponse

from api import errors as problems
from api.framework import Router, strict_json, wire
from core import errors
from core.database import Database
from core.settings import Settings
from jobs import images
from jobs.lifecycle import Role
from tests import factories
from tests.api import image_files
from tests.api.asking import PNG, ask, faults
from tests.api.conftest import Caller

JSON = "application/json"
ENDPOINTS = "/v1/webhook_endpoints"
NEW = {"name": "prod", "url": "https://receiver.example/hook", "event_types": ["job.succeeded"]}
MANY = 200_000


def chunked(caller: Caller, path: str, body: bytes, *, content_type: str = JSON) -> TestResponse:
    """Send a body without a length, as a server hands it on that has read it in chunks."""
    return caller(
        "POST",
        path,
        input_stream=io.BytesIO(body),
        content_type=content_type,
        environ_overrides={"wsgi.input_terminated": True},
        headers={"Transfer-Encoding": "chunked"},
    )


def endpoint(caller: Caller) -> str:
    """Return the path of a new endpoint."""
    made = caller("POST", ENDPOINTS, json=NEW).get_json()
    return f"{ENDPOINTS}/{made['id']}"


def job(**parts: str) -> bytes:
    """Return the JSON of a job, right except for ``parts``, which are JSON texts."""
    whole = {"question": '"?"', "images": f'[{{"data": "{PNG}"}}]', **parts}
    return ("{" + ",".join(f'"{name}":{text}' for name, text in whole.items()) + "}").encode()


def listed(item: str) -> str:
    return "[" + ",".join([item] * MANY) + "]"


def fields() -> str:
    return ",".join(f'"f{number}":1' for number in range(MANY))


#: Bodies that cost up to a thousand times their size when every fault of them is built.
COSTLY: dict[str, tuple[str, bytes]] = {
    "images": ("/v1/jobs", job(images=listed("{}"))),
    "images that are lists": ("/v1/jobs", job(images=listed("[]"))),
    "unknown fields": ("/v1/jobs", job()[:-1] + b"," + fields().encode() + b"}"),
    "unknown options": ("/v1/jobs", job(options="{" + fields() + "}")),
    "unknown fields of an image": ("/v1/jobs", job(images="[{" + fields() + "}]")),
    "metadata": ("/v1/jobs", job(options='{"metadata":{' + fields() + "}}")),
    "events": ("/v1/jobs", job(options='{"webhook":{"events":' + listed("1") + "}}")),
    "choices": ("/v1/jobs", job(options='{"answer_format":{"options":' + listed("1") + "}}")),
    "a schema": ("/v1/jobs", job(options='{"answer_format":{"schema":{' + fields() + "}}}")),
    "questions": ("/v1/groups", b'{"questions":' + listed("1").encode() + b"}"),
    "a list": ("/v1/jobs", listed("{}").encode()),
    "an upload": ("/v1/images", b"{" + fields().encode() + b"}"),
    "event types": (ENDPOINTS, b'{"event_types":' + listed("1").encode() + b"}"),
    "fields of an endpoint": (ENDPOINTS, b"{" + fields().encode() + b"}"),
}


def peak_of(act: Callable[[], TestResponse]) -> tuple[TestResponse, int]:
    """Return an answer, and the most bytes that Python held for it."""
    tracemalloc.start()
    try:
        answer = act()
        return answer, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("path", "body"), COSTLY.values(), ids=COSTLY.keys())
def test_a_body_costs_a_few_times_its_size_whatever_stands_in_it(
    caller: Caller, path: str, body: bytes
) -> None:
    answer, peak = peak_of(lambda: caller("POST", path, data=body, content_type=JSON))

    assert answer.status_code in (400, 413, 422)
    assert peak < 8 * len(body) + 2 * 2**20
    assert len(answer.data) < 4096
    assert "at most" in answer.get_json()["detail"]


def test_what_is_just_below_the_count_has_few_faults_and_they_name_limit_and_count(
    caller: Caller,
) -> None:
    most = strict_json.MAX_VALUES - 10
    unknown = ",".join(f'"f{number}":1' for number in range(most))
    cases = {
        "#/images": job(images="[" + ",".join(["{}"] * (most // 2)) + "]"),
        "#": job()[:-1] + b"," + unknown[: unknown.index(',"f9000"')].encode() + b"}",
        "#/options": job(options="{" + unknown + "}"),
        "#/options/metadata": job(options='{"metadata":{' + unknown + "}}"),
        "#/options/webhook/events": job(
            options='{"webhook":{"url":"https://x.example/","events":[' + ",".join(["1"] * most) + "]}}"
        ),
    }  # fmt: skip
    for place, body in cases.items():
        answer = caller("POST", "/v1/jobs", data=body, content_type=JSON)
        assert answer.status_code == 422
        [(pointer, (_, sentence))] = faults(answer).items()
        assert pointer == place
        assert "at most" in sentence
        assert "it has " in sentence


def test_many_faults_are_counted(caller: Caller) -> None:
    unknown = {f"f{number}": 1 for number in range(50)}
    images = [{"data": PNG, **unknown} for _ in range(8)]

    answer = ask(caller, images=images)

    assert answer.get_json()["detail"].startswith("400 faults. ")
    assert len(answer.get_json()["errors"]) == 400


def test_of_very_many_faults_the_first_thousand_are_listed() -> None:
    many = [errors.Fault(f"#/images/{number}", "It is wrong.") for number in range(1_200)]

    error = problems.refused(many)

    assert error.message.startswith("1,200 faults. ")
    assert error.message.endswith(" `errors` lists the first 1,000.")
    assert error.faults == tuple(many[:1_000])


def test_a_long_name_is_shortened_in_messages(caller: Caller) -> None:
    long = "n" * 900
    answers = [
        ask(caller, **{long: 1}),
        ask(caller, options={"metadata": {long: 1}}),
        caller("GET", f"/v1/jobs?{'n' * 5000}=1"),
        caller.form("/v1/jobs", {long: "x", "question": "?", "image": image_files.png()}),
        caller.form(
            "/v1/jobs", {"question": "?", "image": image_files.png(), long: image_files.png()}
        ),
        caller.form("/v1/jobs", {"question": "?", "image": image_files.png(), long: ["a", "b"]}),
    ]
    with structlog.testing.capture_logs() as logged:
        answers.append(ask(caller, **{long: 1}))

    for answer in answers:
        assert answer.status_code == 422
        assert "n" * 100 + "…" in answer.text
        assert "n" * 101 not in answer.text
    assert "nnnn" not in str(logged)


@pytest.mark.parametrize(
    ("body", "places"),
    [
        (job()[:-1] + b',"question":"!"}', ["#/question"]),
        (job(options='{"seed":1,"top_p":1,"seed":2}'), ["#/options/seed"]),
        (job(images=f'[{{"data":"{PNG}","data":"{PNG}"}}]'), ["#/images/0/data"]),
        (job(options='{"metadata":{"a":"1","b":"","\\u0061":"2"}}'), ["#/options/metadata/a"]),
    ],
)
def test_a_field_that_is_given_twice_is_refused_and_named(
    caller: Caller, body: bytes, places: list[str]
) -> None:
    answer = caller("POST", "/v1/jobs", data=body, content_type=JSON)

    assert answer.status_code == 422
    assert list(faults(answer)) == places


def test_a_field_that_the_options_of_a_form_have_twice_is_refused(caller: Caller) -> None:
    answer = caller.form(
        "/v1/jobs",
        {"question": "?", "options": '{"seed": 1, "seed": 2}', "image": image_files.png()},
    )
    assert list(faults(answer)) == ["#/options/seed"]


def test_a_body_is_refused_where_none_is_read(
    client: FlaskClient, database: Database, app: Router
) -> None:
    admin = Caller(client, factories.make_key(database, role=Role.ADMIN))
    paths = [
        path.replace("{", "").replace("}", "")
        for path, operations in app.document()["paths"].items()
        if "post" in operations and "requestBody" not in operations["post"]
    ]
    assert "/v1/jobs/job_id/cancel" in paths
    for path in paths:
        # OpenAI's clients expect 400.
        expected = ("/v1/batches", "/v1/responses", "/v1/webhook_endpoints")
        invalid = 400 if path.startswith(expected) else 422
        answer = admin("POST", path, data=b'{"reason": "x"}', content_type=JSON)
        assert (path, answer.status_code) == (path, invalid)
        assert list(faults(answer)) == ["#/reason"]
        for unreported in (
            chunked(admin, path, b'{"reason": "x"}'),
            admin("POST", path, data=b"[]", content_type=JSON),
        ):
            assert (path, unreported.status_code) == (path, invalid)
        form = admin("POST", path, data={"reason": "x"})
        assert (path, form.status_code) == (path, 415)
        for nothing in (
            admin("POST", path),
            admin("POST", path, data=b"{}", content_type=JSON),
            admin("POST", path, data=b"", content_type="application/x-www-form-urlencoded"),
        ):
            assert nothing.status_code not in (400, 415, 422), path


def test_a_parameter_that_is_given_twice_is_refused_but_for_lists(caller: Caller) -> None:
    answer = caller("GET", "/v1/jobs?limit=1&limit=2")
    assert answer.status_code == 422
    assert list(faults(answer)) == ["limit"]
    assert caller("GET", "/v1/jobs?status=failed&status=queued").status_code == 200


def test_parameters_are_counted(caller: Caller) -> None:
    for name in ("a{}", "metadata[k{}]"):
        query = "&".join(name.format(number) + "=1" for number in range(1000))
        answer = caller("GET", f"/v1/jobs?{query}")
        assert answer.status_code == 422
        [(_, sentence)] = faults(answer).values()
        assert sentence == "A request must have at most 100 parameters; this one has 1,000."
    states = "&".join(["status=failed"] * 50)
    assert faults(caller("GET", f"/v1/jobs?{states}"))["status"][1].endswith("it has 50.")


class TestSizes:
    def test_a_body_without_images_is_read_up_to_its_own_limit(self, caller: Caller) -> None:
        path = endpoint(caller)
        large = b" " * wire.PLAIN_BODY_BYTES + b"{}"
        for target in (ENDPOINTS, path, f"{path}/test", "/v1/webhook_secret/rotate"):
            reported = caller("POST", target, data=large, content_type=JSON)
            unreported = chunked(caller, target, large)
            assert (reported.status_code, unreported.status_code) == (413, 413)
            assert "at most 1,048,576 bytes" in reported.get_json()["detail"]
            assert f"has {len(large):,}." in reported.get_json()["detail"]
            assert "at most 1,048,576 bytes" in unreported.get_json()["detail"]
        largest = large[2:]
        assert caller("POST", path, data=largest, content_type=JSON).status_code == 200
        assert chunked(caller, path, largest[1:]).status_code == 200

    def test_a_body_with_images_is_read_up_to_the_limit_of_all(
        self, caller: Caller, settings: Settings
    ) -> None:
        limit = settings.max_body_mb * 2**20
        fitting = job() + b" " * (limit - len(job()))
        assert caller("POST", "/v1/jobs", data=fitting, content_type=JSON).status_code == 202
        answer = caller("POST", "/v1/jobs", data=fitting + b" ", content_type=JSON)
        assert answer.status_code == 413
        assert f"at most {limit:,} bytes" in answer.get_json()["detail"]

    def test_base64_in_short_lines_costs_no_more_than_in_one(self) -> None:
        url = "data:image/png;base64," + "QUJD\n" * 400_000
        tracemalloc.start()
        try:
            assert images.from_data_url(url) == b"ABC" * 400_000
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 5 * len(url)


class TestChunks:
    """No length is not no body."""

    def test_a_secret_is_rotated_as_a_chunked_body_says(self, caller: Caller) -> None:
        wish = b'{"keep_old_secret_active_for_24_hours": true}'
        rotated = chunked(caller, f"{endpoint(caller)}/rotate_secret", wish).get_json()
        assert rotated["old_secret_expires_at"] is not None
        wish = wish.replace(b"true", b"false")
        caller("GET", "/v1/webhook_secret")
        default = chunked(caller, "/v1/webhook_secret/rotate", wish).get_json()
        assert default["old_secret_expires_at"] is None

    def test_an_endpoint_is_made_changed_and_recovered_by_chunked_bodies(
        self, caller: Caller
    ) -> None:
        made = chunked(caller, ENDPOINTS, json.dumps(NEW).encode())
        assert made.status_code == 201
        path = f"{ENDPOINTS}/{made.get_json()['id']}"
        changed = chunked(caller, path, b'{"name": "new"}')
        assert changed.get_json()["name"] == "new"
        assert chunked(caller, f"{path}/recover", b'{"since": "0"}').status_code == 202

    def test_without_a_length_bodies_are_checked_as_with_one(self, caller: Caller) -> None:
        path = endpoint(caller)
        for target in (
            ENDPOINTS,
            path,
            f"{path}/rotate_secret",
            f"{path}/test",
            f"{path}/recover",
            "/v1/webhook_secret/rotate",
        ):
            for body in (b'{"colour": "red"}', b"{", b"[]", b'{"a":1,"a":2}', b""):
                reported = caller("POST", target, data=body, content_type=JSON)
                unreported = chunked(caller, target, body)
                assert (unreported.status_code, unreported.get_json().get("errors")) == (
                    reported.status_code,
                    reported.get_json().get("errors"),
                ), (target, body)
            assert list(faults(chunked(caller, target, b'{"colour": "red"}')))[-1] == "#/colour"

    def test_an_empty_chunked_body_is_an_empty_object_where_that_is_enough(
        self, caller: Caller
    ) -> None:
        path = endpoint(caller)
        assert chunked(caller, path, b"").status_code == 200
        assert chunked(caller, f"{path}/rotate_secret", b"").status_code == 200


def bare_deflate(data: bytes) -> bytes:
    """Return deflate without the header that RFC 9110 requires, as many clients send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def members(data: bytes) -> bytes:
    """Return gzip in two members, as from two files put together."""
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:])


class TestCodings:
    @pytest.mark.parametrize(
        "coding", ["br", "zstd", "compress", "gzip, gzip", "gzip, br", "x" * 500]
    )
    def test_an_unknown_content_coding_is_415_and_the_supported_ones_are_named(
        self, caller: Caller, coding: str
    ) -> None:
        headers = {"Content-Encoding": coding}
        for path, kind in [("/v1/jobs", JSON), ("/v1/images", "image/png"), (ENDPOINTS, JSON)]:
            answer = caller("POST", path, data=job(), content_type=kind, headers=headers)
            assert answer.status_code == 415
            assert answer.get_json()["error"]["param"] == "Content-Encoding"
            assert answer.get_json()["error"]["code"] == "unsupported_content_encoding"
            assert answer.headers["Accept-Encoding"] == "gzip, deflate"
            assert "gzip, deflate" in answer.get_json()["detail"]
            assert len(answer.data) < 1000

    @pytest.mark.parametrize(
        ("coding", "encode"),
        [
            ("gzip", gzip.compress), ("GZIP", gzip.compress), ("x-gzip", gzip.compress),
            ("gzip, identity", gzip.compress), ("gzip", members),
            ("deflate", zlib.compress), ("deflate", bare_deflate),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("in_chunks", [True, False])
    def test_an_encoded_body_is_read_as_the_plain_one(
        self, caller: Caller, coding: str, encode: Callable[[bytes], bytes], *, in_chunks: bool
    ) -> None:
        form, form_type = encode_multipart_formdata(
            {"question": "?", "image": ("a.png", image_files.png())}
        )
        for path, kind, body, status in [
            ("/v1/jobs", JSON, job(), 202),
            ("/v1/jobs", form_type, form, 202),
            ("/v1/images", "image/png", image_files.png(), 201),
            (ENDPOINTS, JSON, json.dumps(NEW).encode(), 201),
        ]:
            framing = {"Transfer-Encoding": "chunked"} if in_chunks else {}
            answer = caller(
                "POST",
                path,
                input_stream=io.BytesIO(encode(body)),
                content_type=kind,
                headers={"Content-Encoding": coding, **framing}
                | ({} if in_chunks else {"Content-Length": str(len(encode(body)))}),
                environ_overrides={"wsgi.input_terminated": True},
            )
            assert (path, answer.status_code) == (path, status), answer.text

    @pytest.mark.parametrize("path", ["/v1/jobs", ENDPOINTS])
    def test_an_encoded_body_has_the_limit_of_the_plain_one_and_is_not_decoded_further(
        self, caller: Caller, path: str
    ) -> None:
        bomb = gzip.compress(b" " * (64 * 2**20) + job(), compresslevel=9)
        headers = {"Content-Encoding": "gzip"}
        answer, peak = peak_of(
            lambda: caller("POST", path, data=bomb, content_type=JSON, headers=headers)
        )
        assert answer.status_code == 413
        assert "bytes; this one has more" in answer.get_json()["detail"]
        assert peak < 16 * 2**20

    @pytest.mark.parametrize("coding", ["gzip", "deflate"])
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda _: job(),
            lambda packed: packed[:-9],
            lambda packed: packed[:3],
            lambda packed: packed[:1],
            lambda packed: packed + b"more",
            lambda packed: packed[:20] + b"\xff" * 20 + packed[40:],
        ],
        ids=["plain", "cut", "three bytes", "one byte", "more", "wrong"],
    )
    def test_a_body_that_is_not_encoded_as_its_header_says_is_400(
        self, caller: Caller, coding: str, spoil: Callable[[bytes], bytes]
    ) -> None:
        packed = gzip.compress(job()) if coding == "gzip" else zlib.compress(job())
        answer = caller(
            "POST",
            "/v1/jobs",
            data=spoil(packed),
            content_type=JSON,
            headers={"Content-Encoding": coding},
        )
        assert answer.status_code == 400
        assert answer.get_json()["error"]["param"] == "Content-Encoding"
        assert answer.get_json()["error"]["code"] == "malformed_body"
        assert f"not valid {coding}." in answer.get_json()["detail"]

    @pytest.mark.parametrize("path", ["/v1/jobs", ENDPOINTS])
    def test_a_byte_order_mark_before_json_is_ignored(self, caller: Caller, path: str) -> None:
        body = b"\xef\xbb\xbf" + (job() if path == "/v1/jobs" else json.dumps(NEW).encode())
        assert caller("POST", path, data=body, content_type=JSON).status_code in (201, 202)
        twice = caller("POST", path, data=b"\xef\xbb\xbf" + body, content_type=JSON)
        assert twice.status_code == 400

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
    def test_json_in_utf_16_is_refused_by_name(self, caller: Caller, encoding: str) -> None:
        body = ("\ufeff" if encoding == "utf-16-be" else "") + job().decode()
        answer = caller("POST", "/v1/jobs", data=body.encode(encoding), content_type=JSON)
        assert answer.status_code == 400
        assert answer.get_json()["detail"].endswith("in UTF-16, and JSON must be in UTF-8.")

    @pytest.mark.parametrize("coding", ["identity", "Identity", ""])
    def test_a_body_that_says_it_is_not_encoded_is_read(self, caller: Caller, coding: str) -> None:
        headers = {"Content-Encoding": coding}
        answer = caller("POST", "/v1/jobs", data=job(), content_type=JSON, headers=headers)
        assert answer.status_code == 202

    @pytest.mark.parametrize("coding", ["gzip, chunked", "gzip", "chunked, chunked", "x"])
    def test_a_transfer_coding_that_is_not_undone_is_400(self, caller: Caller, coding: str) -> None:
        answer = caller(
            "POST", "/v1/jobs", data=job(), content_type=JSON, headers={"Transfer-Encoding": coding}
        )
        assert answer.status_code == 400
        assert answer.get_json()["error"]["param"] == "Transfer-Encoding"


class Broken(io.RawIOBase):
    """A body whose reading fails in the middle, as servers fail."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self._left = b'{"question":'

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override] # any buffer
        if not self._left:
            raise self._error
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


class BadChunk(Exception):
    """As gunicorn's own, which has no base in common with other servers' errors."""


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (BadChunk("zz"), (400, "malformed_body")),
        (ConnectionResetError(), (400, "malformed_body")),
        (OSError("No more data"), (400, "malformed_body")),
        (ValueError(), (400, "malformed_body")),
        (TimeoutError(), (408, "request_timeout")),
    ],
)
@pytest.mark.parametrize("kind", [JSON, "multipart/form-data; boundary=x", "image/png"])
@pytest.mark.parametrize("length", [None, "500"])
def test_a_body_that_cannot_be_read_is_the_callers_fault(
    caller: Caller, error: Exception, reported: tuple[int, str], kind: str, length: str | None
) -> None:
    with structlog.testing.capture_logs() as logged:
        answer = caller(
            "POST",
            "/v1/images",
            content_type=kind,
            headers={"Content-Length": length} if length else {"Transfer-Encoding": "chunked"},
            environ_overrides={"wsgi.input": Broken(error), "wsgi.input_terminated": True},
        )
    assert (answer.status_code, answer.get_json()["error"]["code"]) == reported
    assert [line for line in logged if line["log_level"] == "error"] == []


class TestForms:
    def test_a_part_without_a_name_is_refused_with_a_sentence(self, caller: Caller) -> None:
        for disposition in ("form-data", 'form-data; name=""', 'form-data; filename="a.png"'):
            part = f"--x\r\nContent-Disposition: {disposition}\r\n\r\ny\r\n--x--\r\n"
            for path in ("/v1/jobs", "/v1/groups", "/v1/images"):
                answer = caller(
                    "POST", path, data=part, content_type="multipart/form-data; boundary=x"
                )
                assert answer.status_code == 400
                assert answer.get_json()["detail"].startswith("A form part has no name; ")

    def test_too_many_parts_and_too_much_text_are_refused_with_their_limit(
        self, caller: Caller
    ) -> None:
        many, kind = encode_multipart_formdata([(f"f{number}", "") for number in range(129)])
        long, long_kind = encode_multipart_formdata([(f"f{n}", "x" * 2**19) for n in range(3)])
        answers = [
            caller("POST", "/v1/jobs", data=many, content_type=kind),
            caller("POST", "/v1/jobs", data=long, content_type=long_kind),
        ]
        assert [answer.status_code for answer in answers] == [413, 413]
        assert "at most 128 parts" in answers[0].get_json()["detail"]
        assert "at most 1,048,576 bytes in all" in answers[1].get_json()["detail"]

    def test_a_parts_header_costs_no_more_than_its_bytes(self, caller: Caller) -> None:
        head = 'Content-Disposition: form-data; name="image"; filename="a"\r\n'
        lines = "a:\r\n" * MANY
        body = f"--x\r\n{head}{lines}\r\ny\r\n--x--\r\n".encode()

        answer, peak = peak_of(
            lambda: caller(
                "POST", "/v1/jobs", data=body, content_type="multipart/form-data; boundary=x"
            )
        )

        assert answer.status_code == 413
        assert "header of a form part" in answer.get_json()["detail"]
        assert peak < 8 * len(body) + 2 * 2**20


class TestGenerations:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"max_generations_per_request": 12})

    def test_a_request_asks_for_a_bounded_number_of_generations(self, caller: Caller) -> None:
        image = {"data": PNG}
        options = {"samples": 4}
        body = {"questions": ["?"] * 4, "images": [image], "options": options}
        answers = [
            caller("POST", "/v1/groups", json=body),
            caller.form(
                "/v1/groups",
                {
                    "questions": ["?"] * 4,
                    "image": image_files.png(),
                    "options": json.dumps(options),
                },
            ),
            ask(caller, options={"samples": 13}),
        ]
        for answer, reported in zip(answers, ("16", "16", "13"), strict=True):
            assert answer.status_code == 422
            [(place, (code, sentence))] = faults(answer).items()
            assert (place, code) == ("#/options/samples", "too_many_generations")
            assert sentence.endswith(f" are {reported}.")
            assert "at most 12 generations" in sentence
        assert caller("POST", "/v1/groups", json=body | {"questions": ["?"] * 3}).status_code == 202
        assert ask(caller, options={"samples": 12}).status_code == 202

    def test_by_default_one_request_cannot_ask_for_a_thousand_streams(self) -> None:
        assert Settings.read({}).max_generations_per_request < 64 * 16
