"""A process imports its modules without garbage collections, and collects garbage afterwards."""

from __future__ import annotations

import subprocess
import sys

from tests.architecture import source

_PROGRAM = """
import gc
import core.startup
before = gc.isenabled()
core.startup.finish()
print(before, gc.isenabled(), gc.get_freeze_count() > 1_000)
"""
#: What gunicorn and Celery load.
_STARTED = ("api/server.py", "webhooks/app.py", "worker/app.py")


def test_a_start_collects_no_garbage_until_it_is_finished() -> None:
    command = [sys.executable, "-c", _PROGRAM]
    printed = subprocess.run(command, cwd=source.ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout.split() == ["False", "True", "True"]


def test_each_process_finishes_its_start_after_its_imports() -> None:
    for path in _STARTED:
        lines = (source.ROOT / path).read_text(encoding="utf-8").splitlines()
        imports = [
            number for number, line in enumerate(lines) if line.startswith(("import ", "from "))
        ]
        own = [
            n
            for n in imports
            if lines[n].split()[1].split(".")[0]
            in {"api", "core", "jobs", "net", "webhooks", "worker"}
        ]

        assert lines[own[0]] == "import core.startup"
        assert lines.index("core.startup.finish()") > imports[-1]
