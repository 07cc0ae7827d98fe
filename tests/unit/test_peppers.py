"""Peppers: read from the settings or from a file that a rotation replaces."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from core import errors, peppers, secret_files
from core.peppers import Peppers
from core.settings import Settings


def settings_in(folder: Path, pepper: str | None = None) -> Settings:
    return Settings.read({}, home=folder, pepper=pepper)


def test_the_environment_may_have_several(tmp_path: Path) -> None:
    assert peppers.read(settings_in(tmp_path, "new, old")) == (b"new", b"old")
    with pytest.raises(errors.SettingsError, match="at least one pepper"):
        peppers.read(settings_in(tmp_path, " , "))


def test_a_running_process_reads_the_file_that_a_rotation_replaces(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    [first] = peppers.ensure(settings)
    running = Peppers.of(settings)
    assert running.current() == (first,)

    peppers.add_pepper(settings)
    newest, old = running.current()
    peppers.drop_peppers(settings)

    assert old == first
    assert running.current() == (newest,)
    assert (tmp_path / "pepper").stat().st_mode & 0o777 == 0o600


def test_a_running_process_keeps_the_peppers_of_a_file_that_is_gone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    made = peppers.ensure(settings)
    running = Peppers.of(settings)
    (tmp_path / "pepper").unlink()
    assert running.current() == made
    (tmp_path / "pepper").touch()
    assert running.current() == made


def test_of_rotations_at_once_the_second_waits_and_adds_no_pepper(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    [old] = peppers.ensure(settings)
    second = threading.Thread(target=peppers.add_pepper, args=(settings,))

    with secret_files.locked(tmp_path):
        second.start()
        # It ends here only if it does not wait for the lock.
        second.join(0.5)
        assert second.is_alive()
        secret_files.write(tmp_path / "pepper", f"first\n{old.decode()}\n", replace=True)
    second.join()

    assert peppers.read(settings) == (b"first", old)
