"""The examples of ``docs/how-to/openai-clients.md``: each has a name in a comment that readers do not see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.clients.service import Service

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "openai-clients.md").read_text(encoding="utf-8")
#: The addresses that the page has in places where no variable works.
ADDRESS = "http://localhost:8700/v1"
KEY = "ll_…"
#: For an example on a busy machine.
_SECONDS = 240


def example(name: str) -> str:
    """Return the code of an example."""
    block = rf"^<!-- run: {name} -->\n\n```\w+\n(.*?)^```$"
    [code] = re.findall(block, PAGE, re.DOTALL | re.MULTILINE)
    return str(code)


def filled(name: str, service: Service) -> str:
    """Return the code of an example with the address and the key of the service in place of the page's."""
    return example(name).replace(ADDRESS, service.base_url).replace(KEY, service.key)


def names() -> list[str]:
    """Return the name of the example in each block of code of the page, ``""`` for a block without a name."""
    block = r"(?:^<!-- run: (\w+) -->\n\n)?^```\w+\n.*?^```$"
    return re.findall(block, PAGE, re.DOTALL | re.MULTILINE)


def prepare(folder: Path, service: Service) -> None:
    """Put into the folder, which is the home directory too, what the page wants: the image, and the key of the demo."""
    [image] = re.findall(r"`cp (\S+) figure\.png`", PAGE)
    shutil.copy(ROOT / image, folder / "figure.png")
    (folder / ".longlook").mkdir()
    (folder / ".longlook" / "admin.key").write_text(service.key)


def in_shell(service: Service, code: str) -> list[str]:
    """Return the command that runs a script after the two variables of the page are set."""
    return ["bash", "-ec", filled("variables", service) + code]


def environment(folder: Path, programs: Path | None = None) -> dict[str, str]:
    """Return the environment of an example, with the folder as home directory.

    Args:
        folder: what :func:`prepare` filled.
        programs: a folder of programs that come before all others.
    """
    path = os.environ["PATH"]
    return {
        "PATH": path if programs is None else f"{programs}:{path}",
        "HOME": str(folder),
        # LiteLLM would fetch its list of prices from the network.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def printed(service: Service, folder: Path, code: str, programs: Path | None = None) -> str:
    """Return what a script prints, without spaces at its ends; it must succeed."""
    completed = subprocess.run(
        in_shell(service, code),
        cwd=folder,
        env=environment(folder, programs),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr + completed.stdout
    return completed.stdout.strip()
