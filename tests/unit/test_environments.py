"""The environments of the checkout: they are rebuilt only when necessary, and complete after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy import environments
from deploy.environments import CommandError, Environment, SetUpError

Act = Callable[[], None]


def pretended(directory: Path, *acts: Act) -> Environment:
    """Return an environment that ``acts`` build, with an interpreter that already exists."""
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "pip"):
        (directory / "bin" / name).touch()

    def steps(_python: Path) -> Iterator[environments.Step]:
        yield from ((f"Step {number}", act) for number, act in enumerate(acts))

    return Environment("pretended", directory, (), 0, steps)


def fake_python(folder: Path, script: str) -> Path:
    """Return a program that replaces the interpreter of an environment."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho \"$@\" >> '{folder}/calls'\n{script}\n")
    path.chmod(0o755)
    return path


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_a_finished_environment_is_made_once(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env", lambda: None)
    assert not environment.is_made()

    environments.make(environment)

    assert environment.is_made()
    assert not environment.marker.exists()


def test_an_environment_satisfies_the_smaller_one_it_contains(tmp_path: Path) -> None:
    small = pretended(tmp_path / "env")
    large = Environment("large", small.directory, (), 0, small.steps, contains=(small,))

    environments.make(large)

    assert large.is_made()
    assert small.is_made()


def test_a_changed_recipe_rebuilds_the_environment(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env")
    environments.make(environment)

    environment.stamp.write_text("the hash of an older recipe")

    assert not environment.is_made()


def test_the_rest_of_a_killed_build_is_removed(tmp_path: Path) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    environment = pretended(tmp_path / "env", killed)
    with pytest.raises(KeyboardInterrupt):
        environments.make(environment)
    assert not environment.is_made()
    (environment.directory / "half-written").touch()

    environments.prepare(environment)

    assert [path.name for path in environment.directory.iterdir()] == [environments.MARKER]


def test_a_failed_step_keeps_the_files_for_the_next_build(tmp_path: Path) -> None:
    def fails() -> None:
        raise CommandError(["pip"], "no route to the index")

    environment = pretended(tmp_path / "env", fails)
    with pytest.raises(CommandError):
        environments.make(environment)

    environments.prepare(environment)

    assert environment.has_pip()


def test_a_killed_pip_makes_the_next_build_start_from_scratch(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "kill -9 $$")
    environment = pretended(tmp_path / "env", lambda: environments.pip(python, "something"))
    with pytest.raises(CommandError):
        environments.make(environment)

    environments.prepare(environment)

    assert not environment.has_pip()


def test_an_environment_of_another_python_is_removed(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env")
    (environment.directory / "lib" / "python3.9").mkdir(parents=True)

    environments.prepare(environment)

    assert not environment.has_pip()


def test_the_environments_of_the_checkout_have_all_their_inputs() -> None:
    by_name = environments.environments()

    assert set(by_name) == {"service", "dev", "engine", "docs"}
    assert by_name["dev"].directory == by_name["service"].directory
    for environment in by_name.values():
        assert all(path.is_file() for path in environment.inputs)
        assert len(environment.fingerprint()) == 64
    shim = {path.name for path in by_name["engine"].inputs}
    assert {"sglang_cpu_shim.pth", "_sglang_cpu_shim.py", "__init__.py"} <= shim


def test_torch_comes_from_the_configured_index(tmp_path: Path) -> None:
    environments.install_torch(fake_python(tmp_path, "exit 0"))

    assert len(calls(tmp_path)) == 1
    assert "+cpu" in calls(tmp_path)[0]
    assert environments.TORCH_INDEX not in calls(tmp_path)[0]


def test_torch_comes_from_its_own_index_when_the_configured_one_lacks_it(tmp_path: Path) -> None:
    lacking = f"""case "$*" in *{environments.TORCH_INDEX}*) exit 0;; esac
    echo 'ERROR: {environments.NO_TORCH}==2.13.0+cpu'; exit 1"""

    environments.install_torch(fake_python(tmp_path, lacking))

    assert [environments.TORCH_INDEX in call for call in calls(tmp_path)] == [False, True]


def test_a_missing_torch_is_reported_in_one_sentence(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"echo 'ERROR: {environments.NO_TORCH}==2.13.0+cpu'; exit 1")

    with pytest.raises(SetUpError, match="is missing: neither pip's configured index nor"):
        environments.install_torch(python)


def test_another_fault_is_shown_in_full_and_not_mistaken_for_a_missing_torch(
    tmp_path: Path,
) -> None:
    python = fake_python(tmp_path, "echo first line; echo 'No space left on device' >&2; exit 1")

    with pytest.raises(CommandError, match=r"(?s)first line.*No space left on device"):
        environments.install_torch(python)

    assert len(calls(tmp_path)) == 1


def test_the_stubs_do_not_replace_a_cuda_build(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo 'cuda 12.8'")

    with pytest.raises(SetUpError, match="CUDA build"):
        environments.install_shim(python)

    assert len(calls(tmp_path)) == 1


def test_a_full_disk_is_reported_before_anything_is_created(tmp_path: Path) -> None:
    environment = Environment("huge", tmp_path / "env", (), 10**9, lambda _python: iter(()))

    with pytest.raises(SetUpError, match="are free on its disk"):
        environments.make(environment)


def test_a_python_without_venv_is_reported_with_debians_package_in_the_first_line(
    tmp_path: Path,
) -> None:
    """Simulate a Debian without python3-venv, which lacks the module that installs pip."""
    checkout, without = tmp_path / "checkout", tmp_path / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None\n")
    for part in ("requirements", "deploy"):
        shutil.copytree(environments.ROOT / part, checkout / part)
    shutil.copy(environments.ROOT / "pyproject.toml", checkout)

    done = subprocess.run(
        [sys.executable, checkout / "deploy" / "environments.py", "service"],
        env=os.environ | {"PYTHONPATH": str(without)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Run `sudo apt install python{environments.RELEASE}-venv`")
    assert not (checkout / ".venv").exists()
