"""The wheel alone, in an environment of its own and an empty folder, with none of the checkout's files."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.client import KEY_FILE, Client
from tests import children
from tests.architecture import source
from tests.e2e.stack import eventually
from tests.receivers import receiving

#: Installing takes a minute where a package index is near.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CONFIG = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
#: Those of the product, by another list than the wheel's own.
PACKAGES = (*CONFIG["tool"]["importlinter"]["root_packages"], "models")
LARGEST = 10_000_000
#: Seconds that a busy machine may take for one step.
PATIENCE = 180
SAMPLE = source.ROOT / "models" / "tiny-qvq" / "samples" / "s07.png"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built by the build backend of this environment, which is the locked one."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", folder, source.ROOT),
    )
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a new environment with the wheel and what it asks for, at the locked versions."""
    folder = tmp_path_factory.mktemp("environment")
    # Without the hashes, which would have to be there for the wheel, too; and as constraints: the lock file has more
    # than the wheel asks for.
    lock = (source.ROOT / "requirements" / "service.txt").read_text(encoding="utf-8")
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^\w\S*==[^\\\n]+", lock, re.MULTILINE)))
    run(sys.executable, "-m", "venv", folder / "venv")
    programs = folder / "venv" / "bin"
    run(programs / "python", "-I", "-m", "pip", "install", "-q", "-c", constraints, wheel)
    return programs


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return an empty folder to work in, with a short path."""
    folder = children.short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run(*command: str | Path) -> None:
    """Run a command; what it wrote is the error when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def longlook(programs: Path, folder: Path, *words: str) -> list[str | Path]:
    """Return a command of ``longlook`` whose environment has little more than a home directory in ``folder``."""
    variables = (
        "PATH=/usr/bin:/bin",
        f"HOME={folder / 'home'}",
        "LONGLOOK_MODEL=tiny-qvq",
        "LONGLOOK_WEBHOOK_ALLOW=127.0.0.0/8",
    )
    return ["env", "-i", *variables, programs / "longlook", *words]


def logs(folder: Path) -> str:
    """Return what all programs wrote."""
    written = sorted((folder / "home" / ".longlook" / "logs").glob("*.log"))
    return "\n".join(f"{path.name}:\n{path.read_text()}" for path in (folder / "log", *written))


def test_it_is_small_and_has_all_of_the_packages_and_nothing_else(wheel: Path) -> None:
    tracked = {source.name(path) for path in source.files()}
    expected = {
        name
        for name in tracked
        if name.startswith(tuple(f"{package}/" for package in PACKAGES))
        and not name.startswith(("models/training/", "models/README.md"))
    }

    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert names == expected
    assert wheel.stat().st_size < LARGEST


def test_a_job_is_answered_and_its_receiver_is_notified(programs: Path, folder: Path) -> None:
    log = folder / "log"
    up = children.spawn(
        longlook(programs, folder, "up", "--engine", "scripted", "--port", "0"), folder=folder
    )
    try:
        children.wait_until(lambda: "ready  " in log.read_text(), up, log=log, seconds=PATIENCE)
        [url] = re.findall(r"^ready +(http\S+)", log.read_text(), re.MULTILINE)
        client = Client(url, key=(folder / "home" / ".longlook" / KEY_FILE).read_text().strip())
        with receiving() as receiver:
            webhook = {"url": receiver.url, "events": ["job.succeeded"]}
            accepted = client.submit([SAMPLE], "How many shapes?", options={"webhook": webhook})
            job_id = accepted["id"]
            succeeded = eventually(
                lambda: bool(client.job(job_id)["status"] == "succeeded"), seconds=PATIENCE
            )
            assert succeeded, logs(folder)
            assert client.job(job_id)["answer"]["text"]
            assert eventually(lambda: len(receiver.took) == 1, seconds=PATIENCE), logs(folder)
        up.send_signal(signal.SIGTERM)
        assert up.wait(PATIENCE) == 0
    finally:
        children.stop(up, signal.SIGKILL)

    shown = log.read_text()
    assert shown.rstrip().endswith("stopped")
    assert "starts again" not in shown


def test_the_engine_is_looked_for_in_the_home_directory_and_the_model_in_the_wheel(
    programs: Path, folder: Path
) -> None:
    shown = subprocess.run(
        longlook(programs, folder, "engine", "--dry-run"),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    [path] = re.findall(r"^  --model-path (\S+)", shown, re.MULTILINE)
    assert str(folder / "home" / ".longlook" / "engine" / "bin" / "python") in shown
    assert Path(path).is_relative_to(programs.parent)
    assert (Path(path) / "model.safetensors").is_file()


def test_the_recipe_of_the_engine_begins_in_the_wheel(programs: Path, folder: Path) -> None:
    """As far as it goes without a gigabyte: a folder with files of others is refused."""
    (folder / "file").touch()

    done = subprocess.run(
        longlook(programs, folder, "engine", "install", "--path", str(folder)),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"{folder} holds other files" in done.stderr
    assert [path.name for path in folder.iterdir() if path.name != "home"] == ["file"]
