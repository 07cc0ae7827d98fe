"""Runs scenarios of ``tests/javascript`` with Node.js: official JavaScript clients, and tools on top of them."""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "javascript"
#: The oldest Node.js that each package runs on.
_NODE = {"openai6": 20, "openai7": 22, "ai": 22}
#: For a scenario that waits for several answers on a busy machine.
_SECONDS = 120
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}


class Missing(Exception):
    """There is no such package here, or no Node.js for it."""


class ScenarioFailed(AssertionError):
    """A scenario ended with an exception; the text is Node's."""


class JavaScript:
    """A package of JavaScript and the Node.js that runs it (``node``).

    Args:
        package: its name in ``package.json``.
        base_url: the address of the service, with ``/v1``.
        key: for the service.

    Raises:
        Missing: the package is not installed, or no Node.js is new enough for it.
    """

    def __init__(self, package: str, *, base_url: str, key: str) -> None:
        if not (FOLDER / "node_modules" / package).is_dir():
            raise Missing(f"The npm package {package} is not installed; run `make javascript`.")
        self.package = package
        self.node = _node(_NODE[package])
        self._environment = {
            "PATH": os.environ["PATH"],
            "LONGLOOK_TEST_CLIENT": package,
            "LONGLOOK_TEST_URL": base_url,
            "LONGLOOK_TEST_KEY": key,
        }

    def run(self, module: str, scenario: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """Return the result of a scenario.

        Args:
            module: the file in ``tests/javascript``, without its suffix.
            scenario: the function in it.
            **arguments: JSON values for it.

        Raises:
            ScenarioFailed: it threw.
        """
        completed = subprocess.run(
            [self.node, "harness.mjs", f"{module}.mjs", scenario, json.dumps(arguments)],
            cwd=FOLDER,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if completed.returncode:
            raise ScenarioFailed(completed.stderr)
        return json.loads(completed.stdout)


@functools.cache
def _node(oldest: int) -> str:
    """Return a Node.js of at least this major version: that of the npm registry, else the machine's."""
    machine = _MACHINES.get(platform.machine(), platform.machine())
    candidates = [
        str(FOLDER / "node_modules" / f"node-linux-{machine}" / "bin" / "node"),
        shutil.which("node"),
    ]
    for candidate in candidates:
        if candidate is not None and _version(candidate) >= oldest:
            return candidate
    raise Missing(f"No Node.js {oldest} or newer is here; run `make javascript`.")


def _version(node: str) -> int:
    """Return the major version of a Node.js, 0 if it does not run."""
    try:
        shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(shown.stdout.removeprefix("v").partition(".")[0])
