"""Tools that speak to OpenAI's API work with another base URL. Each is run where its package is installed.

``LONGLOOK_TOOLS_PYTHON`` names the Python of an environment with ``llm``, ``langchain-openai``, ``openai-agents`` and
``litellm``; ``LONGLOOK_TOOLS_JAVASCRIPT`` names a folder in which ``ai``, ``@ai-sdk/openai`` and
``@ai-sdk/openai-compatible`` are installed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.service import Service

pytestmark = pytest.mark.e2e

_SCRIPTS = Path(__file__).parent / "tools"
_PYTHON = "LONGLOOK_TOOLS_PYTHON"
_JAVASCRIPT = "LONGLOOK_TOOLS_JAVASCRIPT"


def command(script: str, module: str | None) -> list[str]:
    """Return the command that runs a script; skip the test where it cannot run."""
    if module is None:
        node = shutil.which("node")
        if node is None or _JAVASCRIPT not in os.environ:
            pytest.skip(f"Node or {_JAVASCRIPT} is missing.")
        return [node, str(_SCRIPTS / script)]
    python = os.environ.get(_PYTHON)
    if python is None:
        pytest.skip(f"{_PYTHON} is missing.")
    if subprocess.run(
        [python, "-c", f"import {module}"], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"The environment of {_PYTHON} has no {module}.")
    return [python, str(_SCRIPTS / script)]


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("run_llm.py", "llm"),
        ("run_langchain.py", "langchain_openai"),
        ("run_agents.py", "agents"),
        ("run_litellm.py", "litellm"),
        ("run_ai_sdk.mjs", None),
    ],
)
def test_a_tool_gets_texts_streams_and_objects(
    service: Service, script: str, module: str | None
) -> None:
    arguments = [*command(script, module), service.base_url, service.key, service.model]
    ran = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    seen: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    assert seen["stream"] == seen["text"] != ""
    assert isinstance(seen["structured"]["count"], int)
    assert all(seen.values())
