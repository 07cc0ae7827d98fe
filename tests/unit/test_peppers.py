"""Peppers: read from the settings or from a file that a rotation replaces."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import errors, peppers
from core.peppers import Peppers
from core.settings import Settings
from tests import races


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


def test_of_rotations_at_once_one_adds_a_pepper(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    old = peppers.ensure(settings)

    races.race(*(lambda: peppers.add_pepper(settings) for _ in range(8)))

    added = peppers.read(settings)
    assert (len(added), added[1:]) == (2, old)
