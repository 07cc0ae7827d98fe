"""Pages of the origins that are set may read streams and the routes of OpenAI's clients, and nothing else."""

from __future__ import annotations

import pytest

from core import errors
from core.settings import Settings
from tests.api.conftest import Caller

PAGE = "https://app.example.com"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"cors_origins": (PAGE, "http://localhost:5173")})


def test_a_page_of_a_known_origin_may_read_a_stream(caller: Caller) -> None:
    job = caller.job()
    caller("POST", job["urls"]["cancel"])

    answer = caller("GET", job["urls"]["events"], headers={"Origin": PAGE})

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Origin" in answer.headers["Vary"]
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_a_preflight_is_answered_without_a_key(caller: Caller) -> None:
    path = caller.job()["urls"]["events"]
    requested = {"Origin": PAGE, "Access-Control-Request-Method": "GET"}

    answer = caller.client.options(path, headers=requested)

    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert "Last-Event-ID" in answer.headers["Access-Control-Allow-Headers"]
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]


def test_an_error_can_be_read_too(caller: Caller) -> None:
    path = caller.job()["urls"]["events"]
    answer = caller.client.get(path, headers={"Origin": PAGE})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE


def test_other_origins_and_other_routes_get_nothing(caller: Caller) -> None:
    job = caller.job()
    caller("POST", job["urls"]["cancel"])

    strange = caller("GET", job["urls"]["events"], headers={"Origin": f"{PAGE}.evil.com"})
    elsewhere = caller("GET", job["urls"]["self"], headers={"Origin": PAGE})

    for answer in (strange, elsewhere):
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in strange.headers["Vary"]


class TestAnyOrigin:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"cors_origins": ("*",)})

    def test_any_page_may_read_a_stream(self, caller: Caller) -> None:
        job = caller.job()
        caller("POST", job["urls"]["cancel"])
        answer = caller("GET", job["urls"]["events"], headers={"Origin": "https://x.test"})
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    "text", ["app.example.com", "https://a/b", "https://a?x", "null", "https://"]
)
def test_what_is_no_origin_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(errors.SettingsError, match="LONGLOOK_CORS_ORIGINS"):
        Settings.read({"LONGLOOK_CORS_ORIGINS": text})


class TestOpenAI:
    """The routes of OpenAI's clients: the JavaScript client asks for its own headers."""

    SENT = (
        "authorization,content-type,idempotency-key,openai-organization,openai-project,x-stainless-arch,"
        "x-stainless-helper-method,x-stainless-lang,x-stainless-retry-count,x-stainless-timeout"
    )

    def preflight(self, caller: Caller, *, headers: str = SENT) -> dict[str, str]:
        answer = caller.client.options(
            "/v1/models",
            headers={
                "Origin": PAGE,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": headers,
            },
        )
        assert answer.status_code == 200
        return dict(answer.headers)

    def test_a_preflight_allows_every_header_of_the_official_client(self, caller: Caller) -> None:
        headers = self.preflight(caller)
        allowed = {
            name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")
        }
        assert set(self.SENT.split(",")) <= allowed
        assert {"GET", "POST", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
        assert "Access-Control-Request-Headers" in headers["Vary"]

    @pytest.mark.parametrize(
        "name", ["x-secret", "x-stainless-", "openai", "openai-a b", "my-openai-x"]
    )
    def test_other_headers_are_not_allowed(self, caller: Caller, name: str) -> None:
        allowed = self.preflight(caller, headers=name)["Access-Control-Allow-Headers"]
        assert name not in allowed.lower().split(", ")

    @pytest.mark.parametrize(
        "path",
        ["/v1/embeddings", "/v1/responses/compact", "/v1/moderations", "/v1/images/generations"],
    )
    def test_a_page_reads_that_a_method_of_the_client_is_not_served(
        self, caller: Caller, path: str
    ) -> None:
        """A browser would show the client a broken connection, which it tries again."""
        asked = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}
        preflight = caller.client.options(path, headers=asked)
        answer = caller("POST", path, json={}, headers={"Origin": PAGE})
        assert (preflight.status_code, preflight.data) == (200, b"")
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, "not_found")
        for response in (preflight, answer):
            assert response.headers["Access-Control-Allow-Origin"] == PAGE
        # The last of these paths could be those of objects.
        like_objects = path.endswith(("compact", "generations"))
        assert caller.client.options(path).status_code == 404 or like_objects

    def test_a_page_reads_request_id_and_limits(self, caller: Caller) -> None:
        answer = caller("GET", "/v1/models", headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"x-request-id", "RateLimit", "Retry-After", "openai-poll-after-ms"} <= set(exposed)
