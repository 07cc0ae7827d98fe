"""Continue reads its part of ``docs/how-to/openai-clients.md`` and asks the service; ``make tools`` installs it.

Its command ``cn`` is the editor's core without an editor.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients import examples
from tests.clients.service import Service

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.parametrize("service", ["sqlite"], indirect=True),
]

PROGRAMS = Path(__file__).parent / "tools" / "continue" / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """Return the settings for the large model: the system text of Continue is too long for the small one."""
    return {
        "LONGLOOK_MODEL": "Qwen/QVQ-72B-Preview",
        "LONGLOOK_ENGINE_URLS": "scripted:?tokens_per_second=400",
    }


@pytest.fixture
def home(service: Service, tmp_path: Path) -> Path:
    """Return a home directory with the settings of the page."""
    if not (PROGRAMS / "cn").exists():
        pytest.skip("Continue is not installed; run `make tools`.")
    examples.prepare(tmp_path, service)
    (tmp_path / ".continue").mkdir()
    settings = examples.filled("continue_settings", service)
    (tmp_path / ".continue" / "config.yaml").write_text(settings)
    return tmp_path


def test_continue_takes_the_settings_of_the_page_and_answers(service: Service, home: Path) -> None:
    assert examples.printed(service, home, examples.example("continue"), PROGRAMS)
    [job] = service.client().get("/jobs", cast_to=dict)["data"]
    assert job["status"] == "succeeded"
    assert job["question"] in examples.example("continue")


def test_continue_shows_that_tools_are_refused(service: Service, home: Path) -> None:
    code = examples.example("continue").replace("--exclude '*'", "")
    assert code != examples.example("continue")
    shown = examples.printed(service, home, f"! {code.strip()} 2>&1", PROGRAMS)
    assert "tools: This is not supported." in shown
