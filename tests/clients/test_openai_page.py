"""The examples of ``docs/how-to/openai-clients.md`` run as they are written, each where its package is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.api import image_files
from tests.clients.javascript import FOLDER, JavaScript, Missing
from tests.clients.service import Service

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "openai-clients.md").read_text(encoding="utf-8")
#: The environment of tools that are no dependencies of the tests: `make tools`.
TOOLS = ROOT / ".venv-tools" / "bin"
_SECONDS = 120

PYTHON = ["python", "background", "options", "idempotency"]
OF_TOOLS = ["langchain_openai", "agents", "litellm", "pydantic_ai", "instructor", "haystack"]


def example(name: str) -> str:
    """Return the code of the example after a comment that readers do not see."""
    [code] = re.findall(rf"<!-- run: {name} -->\n\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return str(code)


def file(name: str) -> str:
    """Return the content of a file that the page shows, without the line that names it."""
    [content] = re.findall(rf"```\w+\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    return str(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the image."""
    (tmp_path / "figure.png").write_bytes(image_files.png())
    return tmp_path


def run(service: Service, folder: Path, *command: str | Path, **more: str) -> str:
    """Return what a program prints that is started with the two variables of the page."""
    environment = {
        "PATH": f"{TOOLS}:{os.environ['PATH']}",
        "HOME": str(folder),
        "OPENAI_BASE_URL": service.base_url,
        "OPENAI_API_KEY": service.key,
        # LiteLLM would fetch its list of prices from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }
    completed = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.strip()


@pytest.mark.parametrize("name", PYTHON)
def test_an_example_of_the_python_client_runs(service: Service, folder: Path, name: str) -> None:
    (folder / "example.py").write_text(example(name))
    printed = run(service, folder, sys.executable, "example.py")
    assert printed
    assert printed != "False"


def test_the_example_of_curl_runs(service: Service, folder: Path) -> None:
    assert '"object":"chat.completion"' in run(
        service, folder, "bash", "-c", example("curl")
    ).replace('": "', '":"')


@pytest.mark.parametrize("name", OF_TOOLS)
def test_an_example_of_a_tool_in_python_runs(service: Service, folder: Path, name: str) -> None:
    python = TOOLS / "python"
    if not python.exists():
        pytest.skip("The tools are not installed; run `make tools`.")
    if subprocess.run(
        [python, "-c", f"import {name}"], check=False, capture_output=True
    ).returncode:
        pytest.skip(f"The package {name} is not installed; run `make tools`.")
    (folder / "example.py").write_text(example(name))
    assert run(service, folder, python, "example.py")


def test_the_example_of_llm_runs(service: Service, folder: Path) -> None:
    if not (TOOLS / "llm").exists():
        pytest.skip("The tools are not installed; run `make tools`.")
    models = file("extra-openai-models.yaml")
    models = models.replace("http://localhost:8700/v1", service.base_url)
    (folder / "extra-openai-models.yaml").write_text(models)
    command = ("bash", "-c", example("llm"))
    assert run(service, folder, *command, LLM_USER_PATH=str(folder))


@pytest.mark.parametrize("package", ["openai7", "openai6", "ai"])
def test_an_example_in_javascript_runs(service: Service, folder: Path, package: str) -> None:
    try:
        javascript = JavaScript(package, base_url=service.base_url, key=service.key)
    except Missing as missing:
        pytest.skip(str(missing))
    code = example("ai" if package == "ai" else "javascript")
    (folder / "example.mjs").write_text(code.replace('from "openai"', f'from "{package}"'))
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    assert run(service, folder, javascript.node, "example.mjs")


def test_every_example_is_run() -> None:
    marked = set(re.findall(r"^<!-- run: (\w+) -->$", PAGE, re.MULTILINE))
    assert marked == {*PYTHON, *OF_TOOLS, "curl", "llm", "javascript", "ai"}
