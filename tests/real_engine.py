"""The real SGLang on CPU with tiny-qvq, started as the product starts it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

import urllib3

from cli.engine import inherited
from cli.engine_plan import plan
from core.settings import Settings
from tests import children
from tests.e2e.stack import free_port


class Missing(Exception):
    """The engine's environment is not installed: ``make engine`` makes it."""


class RealEngine:
    """One SGLang on a free port, ready when the block begins and gone when it ends.

    Attributes:
        url: where it listens.
        model: the name it serves tiny-qvq under.
        samples: pictures with questions and true answers, in ``samples.json``.
    """

    samples = Path(__file__).resolve().parents[1] / "models" / "tiny-qvq" / "samples"

    def __init__(self) -> None:
        port = free_port()
        settings = Settings.read({})
        self.url = f"http://127.0.0.1:{port}"
        self.model = settings.model
        self._plan = plan.plan((), settings, host="127.0.0.1", port=port)

    def __enter__(self) -> Self:
        """Start it and wait until it answers, half a minute on two cores.

        Raises:
            Missing: there is no environment to start it from.
        """
        python = self._plan.python
        if python is None or not python.exists():
            raise Missing("no .venv-engine here: `make engine` makes it")
        self._folder = children.short_folder()
        environment = inherited(os.environ) | self._plan.environment
        self._process = children.spawn(
            ["env", "-i", *_assignments(environment), python, *self._plan.arguments],
            folder=self._folder,
        )
        children.wait_until(
            self._ready, self._process, log=self._folder / "log", seconds=_START_SECONDS
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A kind stop takes SGLang up to eight seconds, and its children die with it either way.
        children.stop(self._process, signal.SIGKILL)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ready(self) -> bool:
        try:
            answer = urllib3.request("GET", f"{self.url}/ready", retries=False, timeout=5)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == 200


_START_SECONDS = 600


def _assignments(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]
