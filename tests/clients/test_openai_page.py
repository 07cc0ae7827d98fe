"""The examples of ``docs/how-to/openai-clients.md`` run as they are written, each where its package is installed."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients import examples
from tests.clients.javascript import FOLDER, JavaScript, Missing
from tests.clients.service import Service

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
#: The suites of the clients run on both databases.
on_sqlite = pytest.mark.parametrize("service", ["sqlite"], indirect=True)

#: The environments of `make tools`: these packages are no dependencies of the tests.
TOOLS = examples.ROOT / ".venv-tools" / "bin"
INSTRUCTOR = examples.ROOT / ".venv-instructor" / "bin"

PYTHON = ["python", "background", "options", "idempotency"]
OF_TOOLS = {
    "langchain_openai": TOOLS,
    "agents": TOOLS,
    "litellm": TOOLS,
    "pydantic_ai": TOOLS,
    "instructor": INSTRUCTOR,
    "haystack": TOOLS,
}
#: Package of npm and example.
JAVASCRIPT = [
    (package, name)
    for package in ("openai7", "openai6")
    for name in ("javascript", "idempotency_javascript")
]
#: Examples that need the large model's limits or an environment of 1 GB, and the test of each.
ELSEWHERE = {
    "open_webui": "test_open_webui.py",
    "continue_settings": "test_continue.py",
    "continue": "test_continue.py",
}


@pytest.fixture
def folder(tmp_path: Path, service: Service) -> Path:
    """Return a folder with the image."""
    examples.prepare(tmp_path, service)
    return tmp_path


def installed(python: Path, package: str) -> bool:
    """Whether an environment has a package; an import of it can take a minute."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return python.exists() and subprocess.run([python, "-c", code], check=False).returncode == 0


def run_file(service: Service, folder: Path, program: str | Path, file: str, code: str) -> str:
    """Return what a program prints that runs the code."""
    (folder / file).write_text(code)
    return examples.printed(service, folder, shlex.join([str(program), file]))


def says_something(printed: str) -> bool:
    """Whether a program printed a value."""
    return printed.strip().lower() not in {"", "none", "null", "undefined", "false"}


@on_sqlite
@pytest.mark.parametrize("name", PYTHON)
def test_an_example_of_the_python_client_runs(service: Service, folder: Path, name: str) -> None:
    assert says_something(
        run_file(service, folder, sys.executable, "example.py", examples.example(name))
    )


@on_sqlite
def test_the_example_of_curl_runs(service: Service, folder: Path) -> None:
    answer = json.loads(examples.printed(service, folder, examples.example("curl")))
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"]


@on_sqlite
@pytest.mark.parametrize(("name", "programs"), OF_TOOLS.items(), ids=OF_TOOLS)
def test_an_example_of_a_tool_in_python_runs(
    service: Service, folder: Path, name: str, programs: Path
) -> None:
    python = programs / "python"
    if not installed(python, name):
        pytest.skip(f"The package {name} is not installed; run `make tools`.")
    assert says_something(run_file(service, folder, python, "example.py", examples.example(name)))


@on_sqlite
def test_the_example_of_llm_runs(service: Service, folder: Path) -> None:
    if not (TOOLS / "llm").exists():
        pytest.skip("The package llm is not installed; run `make tools`.")
    assert examples.printed(service, folder, examples.example("llm"), TOOLS)


@on_sqlite
@pytest.mark.parametrize(("package", "name"), [*JAVASCRIPT, ("ai", "ai")])
def test_an_example_in_javascript_runs(
    service: Service, folder: Path, package: str, name: str
) -> None:
    try:
        javascript = JavaScript(package, base_url=service.base_url, key=service.key)
    except Missing as missing:
        pytest.skip(str(missing))
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    code = examples.example(name).replace('from "openai"', f'from "{package}"')
    assert says_something(run_file(service, folder, javascript.node, "example.mjs", code))


def test_every_example_is_run() -> None:
    run = [*PYTHON, *OF_TOOLS, *ELSEWHERE, "javascript", "idempotency_javascript"]
    assert sorted(examples.names()) == sorted([*run, "variables", "curl", "llm", "ai"])
    for name, file in ELSEWHERE.items():
        assert f'"{name}"' in Path(__file__).with_name(file).read_text()
