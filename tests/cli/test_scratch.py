"""Scratch folders: each is removed at its end, or by the next command if its own was killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from cli import scratch
from worker.liveness import kernel_id

WEEK = 7 * 86_400


def left_over(parent: Path, *, kernel: str = "", files: tuple[str, ...] = ()) -> Path:
    """Make what a killed command leaves."""
    path = parent / f".longlook-scratch-abc{len(list(parent.iterdir()))}@{kernel or kernel_id()}"
    path.mkdir()
    for name in files:
        (path / name).write_text("secret")
    return path


def test_a_folder_ends_with_its_block(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as folder:
        (folder / "longlook.db").write_text("content")
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o077 == 0

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("files", [(), ("longlook.db",), ("lock", "longlook.db", "pepper")])
def test_the_next_command_removes_what_a_killed_one_has_left(
    tmp_path: Path, files: tuple[str, ...]
) -> None:
    left = left_over(tmp_path, files=files)

    with scratch.folder(tmp_path):
        assert not left.exists()


def test_the_folder_of_a_running_command_stays(tmp_path: Path) -> None:
    with scratch.folder(tmp_path) as running:
        (running / "longlook.db").write_text("content")
        with scratch.folder(tmp_path) as other:
            assert other != running
        assert (running / "longlook.db").read_text() == "content"


def test_the_folder_of_another_kernel_stays_for_a_week(tmp_path: Path) -> None:
    young = left_over(tmp_path, kernel="other", files=("lock",))
    old = left_over(tmp_path, kernel="other", files=("lock",))
    os.utime(old, (time.time() - WEEK - 60,) * 2)

    scratch.remove_left_over(tmp_path)

    assert young.exists()
    assert not old.exists()


def test_nothing_else_is_removed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("")
    (tmp_path / ".longlook-mine").mkdir()
    (tmp_path / f".longlook-scratch-file@{kernel_id()}").write_text("")
    (tmp_path / f".longlook-scratch-link@{kernel_id()}").symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))

    scratch.remove_left_over(tmp_path)

    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_without_room_for_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), scratch.folder(tmp_path / "nowhere"):
        pass
