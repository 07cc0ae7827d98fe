"""How the checkout's environments are made: anew only when they have to be, and whole after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.environments import build, engine
from cli.environments.build import CommandError, Environment, SetUpError
from deploy import environments

Act = Callable[[], None]


def pretended(directory: Path, *acts: Act) -> Environment:
    """Return an environment that is made by ``acts``, over an interpreter that is there already."""
    (directory / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "pip"):
        (directory / "bin" / name).touch()

    def steps(_python: Path) -> Iterator[build.Step]:
        yield from ((f"Step {number}", act) for number, act in enumerate(acts))

    return Environment("pretended", directory, (), 0, steps)


def fake_python(folder: Path, script: str) -> Path:
    """Return a program that stands in for an environment's interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho \"$@\" >> '{folder}/calls'\n{script}\n")
    path.chmod(0o755)
    return path


def copy_recipes(checkout: Path) -> None:
    """Make a checkout without environments, in which they can be made."""
    for part in ("requirements", "deploy", "cli/environments"):
        shutil.copytree(build.ROOT / part, checkout / part)
    for part in ("pyproject.toml", "cli/__init__.py"):
        shutil.copy(build.ROOT / part, checkout / part)


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().splitlines()


def test_a_finished_environment_is_made_once(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env", lambda: None)
    assert not environment.is_made()

    build.make(environment)

    assert environment.is_made()
    assert not environment.marker.exists()


def test_an_environment_satisfies_the_smaller_one_it_contains(tmp_path: Path) -> None:
    small = pretended(tmp_path / "env")
    large = Environment("large", small.directory, (), 0, small.steps, contains=(small,))

    build.make(large)

    assert large.is_made()
    assert small.is_made()


def test_another_recipe_makes_it_again(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env")
    build.make(environment)

    environment.stamp.write_text("the hash of an older recipe")

    assert not environment.is_made()


def test_a_killed_try_is_cleared_away(tmp_path: Path) -> None:
    def killed() -> None:
        raise KeyboardInterrupt

    environment = pretended(tmp_path / "env", killed)
    with pytest.raises(KeyboardInterrupt):
        build.make(environment)
    assert not environment.is_made()
    (environment.directory / "half-written").touch()

    build.prepare(environment)

    assert [path.name for path in environment.directory.iterdir()] == [build.MARKER]


def test_a_step_that_fails_in_order_leaves_what_is_there(tmp_path: Path) -> None:
    def fails() -> None:
        raise CommandError(["pip"], "no route to the index")

    environment = pretended(tmp_path / "env", fails)
    with pytest.raises(CommandError):
        build.make(environment)

    build.prepare(environment)

    assert environment.has_pip()


def test_a_pip_that_was_killed_leaves_nothing_to_build_on(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "kill -9 $$")
    environment = pretended(tmp_path / "env", lambda: build.pip(python, "something"))
    with pytest.raises(CommandError):
        build.make(environment)

    build.prepare(environment)

    assert not environment.has_pip()


def test_an_environment_of_another_python_is_cleared_away(tmp_path: Path) -> None:
    environment = pretended(tmp_path / "env")
    (environment.directory / "lib" / "python3.9").mkdir(parents=True)

    build.prepare(environment)

    assert not environment.has_pip()


def test_the_environments_of_the_checkout_have_all_their_inputs() -> None:
    made = environments.environments()

    assert set(made) == {"service", "dev", "engine", "docs", "harness"}
    assert made["dev"].directory == made["service"].directory
    for environment in made.values():
        assert all(path.is_file() for path in environment.inputs)
        assert len(environment.fingerprint()) == 64
    shim = {path.name for path in made["engine"].inputs}
    assert {"sglang_cpu_shim.pth", "_sglang_cpu_shim.py", "__init__.py"} <= shim


def test_no_library_is_needed_to_make_them() -> None:
    """Without site-packages: a new checkout has nothing installed."""
    script = build.ROOT / "deploy" / "environments.py"

    shown = subprocess.run(
        [sys.executable, "-I", "-S", script, "--help"], capture_output=True, text=True, check=True
    ).stdout

    assert "ENVIRONMENT" in shown


def test_a_folder_with_files_of_others_is_not_ours(tmp_path: Path) -> None:
    def fails() -> None:
        raise CommandError(["pip"], "no route to the index")

    empty = pretended(tmp_path / "empty")
    shutil.rmtree(empty.directory / "bin")
    others = pretended(tmp_path / "others")
    begun = pretended(tmp_path / "begun", fails)
    with pytest.raises(CommandError):
        build.make(begun)

    assert empty.is_ours()
    assert not others.is_ours()
    assert begun.is_ours()


def test_an_environment_that_is_being_made_is_not_whole(tmp_path: Path) -> None:
    seen: list[bool] = []
    environment = pretended(tmp_path, lambda: seen.append(build.is_whole(environment.python)))

    build.make(environment)

    assert seen == [False]
    assert build.is_whole(environment.python)
    assert not build.is_whole(tmp_path / "bin" / "other")


def test_the_engine_is_in_the_checkout_whatever_the_home_is(tmp_path: Path) -> None:
    assert engine.directory(tmp_path) == build.ROOT / ".venv-engine"


def test_torch_comes_from_the_configured_index(tmp_path: Path) -> None:
    engine.install_torch(fake_python(tmp_path, "exit 0"))

    assert len(calls(tmp_path)) == 1
    assert "+cpu" in calls(tmp_path)[0]
    assert engine.TORCH_INDEX not in calls(tmp_path)[0]


def test_torch_comes_from_its_own_index_when_the_configured_one_lacks_it(tmp_path: Path) -> None:
    lacking = f"""case "$*" in *{engine.TORCH_INDEX}*) exit 0;; esac
    echo 'ERROR: {engine.NO_TORCH}==2.13.0+cpu'; exit 1"""

    engine.install_torch(fake_python(tmp_path, lacking))

    assert [engine.TORCH_INDEX in call for call in calls(tmp_path)] == [False, True]


def test_a_missing_torch_is_reported_in_one_sentence(tmp_path: Path) -> None:
    python = fake_python(tmp_path, f"echo 'ERROR: {engine.NO_TORCH}==2.13.0+cpu'; exit 1")

    with pytest.raises(SetUpError, match="is missing: neither pip's configured index nor"):
        engine.install_torch(python)


def test_another_fault_is_shown_whole_and_not_taken_for_a_missing_torch(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo first line; echo 'No space left on device' >&2; exit 1")

    with pytest.raises(CommandError, match=r"(?s)first line.*No space left on device"):
        engine.install_torch(python)

    assert len(calls(tmp_path)) == 1


def test_the_stand_ins_are_not_put_over_a_cuda_build(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "echo 'cuda 12.8'")

    with pytest.raises(SetUpError, match="CUDA build"):
        engine.install_shim(python)

    assert len(calls(tmp_path)) == 1


def test_a_full_disk_is_reported_before_anything_is_created(tmp_path: Path) -> None:
    environment = Environment("huge", tmp_path / "env", (), 10**9, lambda _python: iter(()))

    with pytest.raises(SetUpError, match="are free on its disk"):
        build.make(environment)


def test_the_first_line_names_the_debian_package_when_python_cannot_create_environments(
    tmp_path: Path,
) -> None:
    """As on a Debian without python3-venv: the module that a new environment's pip comes from is not there."""
    checkout, without = tmp_path / "checkout", tmp_path / "without"
    without.mkdir()
    (without / "sitecustomize.py").write_text("import sys; sys.modules['ensurepip'] = None\n")
    copy_recipes(checkout)

    done = subprocess.run(
        [sys.executable, checkout / "deploy" / "environments.py", "service"],
        env=os.environ | {"PYTHONPATH": str(without)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"Run `sudo apt install python{build.RELEASE}-venv`")
    assert not (checkout / ".venv").exists()


def test_an_environment_that_is_there_does_not_wait_for_the_set_up_of_another_one(
    tmp_path: Path,
) -> None:
    checkout = tmp_path / "checkout"
    copy_recipes(checkout)
    pretend = """
from deploy.environments import environments
docs = environments()["docs"]
docs.python.parent.mkdir(parents=True)
docs.python.touch()
docs.stamp.write_text(docs.fingerprint())
"""
    subprocess.run([sys.executable, "-c", pretend], cwd=checkout, check=True)

    with build.alone(checkout):
        done = subprocess.run(
            [sys.executable, checkout / "deploy" / "environments.py", "docs"],
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )

    assert done.stdout == ""
