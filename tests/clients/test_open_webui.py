"""Open WebUI works with the service, over chat completions and over Responses. It is run where it is installed.

``make openwebui`` installs it, without the packages of its own models (1 GB).
"""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import children
from tests.api import image_files
from tests.clients import examples
from tests.clients.service import Service
from tests.e2e.stack import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("service", ["sqlite"], indirect=True),
]

PROGRAMS = Path(__file__).resolve().parents[2] / ".venv-openwebui" / "bin"
MODEL = "Qwen/QVQ-72B-Preview"
URL = image_files.data_url(image_files.png())
#: Without an account of the user, and without anything from the network.
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "secret",
    "RAG_EMBEDDING_ENGINE": "openai",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
}


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Return the settings for the large model: the prompts of Open WebUI are too long for the small one."""
    return {"LONGLOOK_MODEL": MODEL, "LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=400"}


@dataclass
class WebUI:
    """The API of Open WebUI, which its pages use.

    Attributes:
        process: the running program.
        http: sends requests to it.
    """

    process: subprocess.Popen[bytes]
    http: httpx2.Client

    def post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """Send a request."""
        return self.http.post(path, json=body)

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return self.http.get("/health").status_code == httpx2.codes.OK
        except httpx2.HTTPError:
            return False

    def connect(self, service: Service, **options: str) -> None:
        """Set the connection, as an administrator does on the page of it."""
        self.post(
            "/openai/config/update",
            {
                "ENABLE_OPENAI_API": True,
                "OPENAI_API_BASE_URLS": [service.base_url],
                "OPENAI_API_KEYS": [service.key],
                "OPENAI_API_CONFIGS": {"0": {"enable": True, **options}},
            },
        ).raise_for_status()
        listed = self.http.get("/api/models", params={"refresh": "true"}).json()["data"]
        assert [model["id"] for model in listed] == [MODEL]

    def chat(self, *messages: dict[str, Any], **options: Any) -> httpx2.Response:  # noqa: ANN401 - JSON
        """Ask."""
        body = {"model": MODEL, "messages": list(messages), "stream": False}
        return self.post("/api/chat/completions", body | options)


@pytest.fixture
def webui(service: Service) -> Iterator[WebUI]:
    """Return Open WebUI, started with the variables of the page of the documentation."""
    if not (PROGRAMS / "open-webui").exists():
        pytest.skip("Open WebUI is not installed; run `make openwebui`.")
    port = free_port()
    folder = children.memory_folder()
    examples.prepare(folder, service)
    environment = examples.environment(folder, PROGRAMS) | SETTINGS | {"DATA_DIR": str(folder)}
    start = "exec open-webui serve"
    code = examples.example("open_webui").replace(
        "open-webui serve", f"{start} --host 127.0.0.1 --port {port}"
    )
    assert start in code
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            examples.in_shell(service, code),
            cwd=folder, env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    with process, httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
        started = WebUI(process, http)
        try:
            children.wait_until(started.answers, process, log=log, seconds=600)
            user = started.post("/api/v1/auths/signin", {"email": "", "password": ""}).json()
            http.headers["Authorization"] = f"Bearer {user['token']}"
            yield started
        finally:
            children.stop(process, signal.SIGTERM)
            shutil.rmtree(folder, ignore_errors=True)


def question(text: str) -> dict[str, Any]:
    """Return a turn with an image."""
    image = {"type": "image_url", "image_url": {"url": URL}}
    return {"role": "user", "content": [{"type": "text", "text": text}, image]}


def test_open_webui_chats_and_gets_titles_over_both_apis(service: Service, webui: WebUI) -> None:
    listed = webui.http.get("/api/models").json()["data"]
    assert [model["id"] for model in listed] == [MODEL]
    turns = [question("How many?"), {"role": "assistant", "content": "4"}, question("And here?")]
    for options in ({}, {"api_type": "responses"}):
        webui.connect(service, **options)
        answer = webui.chat(question("How many?")).json()
        assert answer["choices"][0]["message"]["content"]
        stream = webui.chat(*turns, stream=True).text
        assert "Final Answer" in stream
        assert ("response.completed" if options else "[DONE]") in stream
        for task in ("title", "tags", "follow_up"):
            body = {"model": MODEL, "messages": turns}
            task_answer = webui.post(f"/api/v1/tasks/{task}/completions", body)
            assert task_answer.status_code == httpx2.codes.OK, task_answer.text
            assert task_answer.json()["choices"][0]["message"]["content"]
        refused = webui.chat(question("How many?"), logprobs=True)
        assert refused.status_code == httpx2.codes.BAD_REQUEST
        assert "logprobs" in refused.text
