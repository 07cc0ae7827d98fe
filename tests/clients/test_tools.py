"""Tools that speak to OpenAI's API work with another base URL. Each is run where its package is installed.

``make tools`` installs them. The scripts in ``tools`` print what a user
of the tool gets: texts, streams, traces, images, conversations, objects, and the errors that the tool shows.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api import image_files
from tests.clients.javascript import FOLDER, JavaScript, Missing
from tests.clients.service import Service

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    # The suites of the clients run on both databases.
    pytest.mark.parametrize("service", ["sqlite"], indirect=True),
]

_SCRIPTS = Path(__file__).parent / "tools"
PYTHON = Path(__file__).resolve().parents[2] / ".venv-tools" / "bin" / "python"
_SECONDS = 500

#: Script, the module that it needs, and the names of its results that hold the trace.
TOOLS = [
    ("run_llm.py", "llm", {"responses_trace"}),
    ("run_langchain.py", "langchain_openai", {"responses_trace"}),
    ("run_agents.py", "agents", {"trace", "responses_trace"}),
    ("run_litellm.py", "litellm", {"trace", "stream_trace", "responses_trace"}),
    (
        "run_ai_sdk.mjs",
        "ai",
        {"trace", "stream_trace", "responses_trace", "responses_stream_trace"},
    ),
    ("continue/run_continue.mjs", "continue", {"trace", "stream_trace"}),
]
#: LiteLLM would fetch its list of prices from the network.
ENVIRONMENT = {"LONGLOOK_TOOLS_JAVASCRIPT": str(FOLDER), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
#: Tools that speak only chat completions.
CHAT_ALONE = {"continue"}
#: What the tool shows for a wrong key, an unknown model, and a parameter that is not served.
ERRORS = {
    "wrong_key": "This API key is unknown.",
    "wrong_model": "There is no such model",
    "refused": "frequency_penalty: This is not supported.",
}
#: Responses have no penalties, so the script of the Agents SDK asks for log probabilities.
ERRORS_OF = {"agents": {"refused": "Log probabilities are not supported."}}


def command(service: Service, script: str, module: str) -> list[str]:
    """Return the command that runs a script; skip the test where it cannot run."""
    if module == "continue" and not (_SCRIPTS / "continue" / "node_modules").is_dir():
        pytest.skip("Continue's adapter is not installed; run `make tools`.")
    if script.endswith(".mjs"):
        try:
            client = "openai6" if module == "continue" else module
            node = JavaScript(client, base_url=service.base_url, key=service.key).node
        except Missing as missing:
            pytest.skip(str(missing))
        return [node, str(_SCRIPTS / script)]
    if not PYTHON.exists():
        pytest.skip("The tools are not installed; run `make tools`.")
    imported = subprocess.run([PYTHON, "-c", f"import {module}"], check=False, capture_output=True)
    if imported.returncode:
        pytest.skip(f"The package {module} is not installed; run `make tools`.")
    return [str(PYTHON), str(_SCRIPTS / script)]


def images_of_newest(service: Service) -> list[int]:
    """Return how many images the newest jobs have."""
    answer = httpx2.get(
        f"{service.base_url}/jobs",
        params={"limit": 100},
        headers={"Authorization": f"Bearer {service.key}"},
        timeout=60,
    )
    return [len(job["images"]) for job in answer.json()["data"]]


@pytest.mark.parametrize(("script", "module", "traces"), TOOLS, ids=[tool[1] for tool in TOOLS])
def test_a_tool_gets_texts_images_traces_objects_and_errors(
    service: Service, tmp_path: Path, script: str, module: str, traces: set[str]
) -> None:
    image = tmp_path / "figure.png"
    image.write_bytes(image_files.png())
    ran = subprocess.run(
        [*command(service, script, module), service.base_url, service.key, service.model, image],
        env=os.environ | ENVIRONMENT,
        check=False,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    seen: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert all(seen.values())
    assert all(all(value) for value in seen.values() if isinstance(value, list))
    assert seen["stream"] == seen["text"]
    assert isinstance(seen["structured"]["count"], int)
    if module not in CHAT_ALONE:
        assert isinstance(seen["responses_structured"]["count"], int)
    for name in traces:
        # The trace reaches its end, and each part comes once.
        assert seen[name].count("Final Answer") == 1, seen[name]
    assert {1, 2} <= set(images_of_newest(service))
    for name, text in (ERRORS | ERRORS_OF.get(module, {})).items():
        assert text in seen[name]
