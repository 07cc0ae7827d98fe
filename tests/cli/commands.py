"""Runs commands of the command line, against canned answers or on a home directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cli import main
from core import errors
from tests.cli.fake_api import FakeApi, job

JOB = "/v1/jobs/job_0123456789abcdef0123456789abcdef"


JOB_ID = JOB.removeprefix("/v1/jobs/")


GROUP_ID = "grp_0123456789abcdef0123456789abcdef"


GROUP = f"/v1/groups/{GROUP_ID}"


IMAGE_ID = "img_0123456789abcdef0123456789abcdef"


QUARANTINED = {
    "image_id": IMAGE_ID,
    "account_id": "acct_1",
    "crashes": 3,
    "last_crashed_at": "2026-11-23T10:00:00.000Z",
    "quarantined_at": "2026-11-23T10:00:01.000Z",
}


def group(*states: str) -> dict[str, Any]:
    """Return a group as the API shows it."""
    return {"id": GROUP_ID, "object": "group", "jobs": [job(state) for state in states]}


def longlook(api: FakeApi, *arguments: str | Path) -> tuple[int, str]:
    """Run a command; return exit code and stdout. An error of the product is raised."""
    words = [str(argument) for argument in arguments]
    result = CliRunner().invoke(
        main.make_app(words[:1]),
        words,
        env={"LONGLOOK_URL": api.url, "LONGLOOK_API_KEY": "ll_key"},
    )
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    return result.exit_code, result.stdout


def everything(api: FakeApi, *words: str) -> str:
    """Run a command; return stdout and stderr together."""
    environment = {"LONGLOOK_URL": api.url, "LONGLOOK_API_KEY": "ll_key"}
    return CliRunner().invoke(main.make_app(words[:1]), words, env=environment).output


def local(home: Path, *words: str, **more: str) -> tuple[int, str]:
    """Run a command on the home directory ``home``; return exit code and stdout."""
    environment = {"LONGLOOK_HOME": str(home), "LONGLOOK_PEPPER": "pepper", **more}
    result = CliRunner().invoke(main.make_app(words[:1]), words, env=environment)
    if isinstance(result.exception, errors.LonglookError):
        raise result.exception
    return result.exit_code, result.stdout
