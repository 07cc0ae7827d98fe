"""The spool: what is small stays in memory, what is large goes to nameless files that parties share."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors
from core.database_faults import DiskFull
from core.spool import IN_MEMORY_BYTES, Spool, SpooledFile

A, B = (uuid.UUID(int=number) for number in (1, 2))
LARGE = os.urandom(IN_MEMORY_BYTES + 1)
MEBIBYTE = 2**20


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """Return a spool of 16 MiB."""
    return Spool(tmp_path / "home" / "spool", total=16 * MEBIBYTE)


@pytest.fixture
def file(spool: Spool) -> Iterator[SpooledFile]:
    """Return an empty file of A."""
    with contextlib.closing(spool.open(A)) as file:
        yield file


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY_BYTES, IN_MEMORY_BYTES + 1, 3 * MEBIBYTE])
@pytest.mark.parametrize("step", [1000, 2**18, 4 * MEBIBYTE])
def test_content_is_read_as_it_was_written(
    spool: Spool, file: SpooledFile, size: int, step: int
) -> None:
    data = os.urandom(size)
    for start in range(0, size, step):
        file.write(data[start : start + step])

    on_disk = size > IN_MEMORY_BYTES
    assert (file.size, file.in_memory, spool.held) == (
        size, 0 if on_disk else size, size if on_disk else 0,
    )  # fmt: skip
    assert file.getvalue() == b"".join(file.pieces()) == data
    assert file.head(10) == data[:10]
    assert file.sha256() == hashlib.sha256(data).hexdigest()
    with file.view() as view:
        assert view[:] == data
        assert view.find(data[-3:]) == data.find(data[-3:])
    with file.reader() as descriptor:
        assert (descriptor is not None) == on_disk
        if descriptor is not None:
            assert os.read(descriptor, size) == data


def test_files_have_no_names_and_their_space_is_free_once_they_are_closed(
    spool: Spool, tmp_path: Path
) -> None:
    file = spool.open(A)
    file.write(LARGE)
    assert list((tmp_path / "home" / "spool").iterdir()) == []
    assert spool.held == len(LARGE)
    file.close()
    file.close()
    assert spool.held == 0
    with pytest.raises(ValueError, match="closed"):
        file.getvalue()


def test_a_reader_cannot_write(file: SpooledFile) -> None:
    file.write(LARGE)
    with file.reader() as descriptor:
        assert descriptor is not None
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(descriptor, b"x")


def test_what_an_earlier_process_left_is_removed_at_the_start(spool: Spool, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "spool"
    spool.clear()
    (folder / "left").write_bytes(b"x")
    spool.clear()
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_written_is_reported_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"a file, not a folder")
    with pytest.raises(errors.SettingsError, match=r"LONGLOOK_HOME: .* cannot be written"):
        Spool(tmp_path / "home" / "spool", total=2**24).clear()


def test_without_free_files_large_content_is_refused_for_now(spool: Spool) -> None:
    spool.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.closing(spool.open(A)) as file:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises(errors.Overloaded, match="no free file"):
                file.write(LARGE)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert spool.held == 0


def test_no_party_takes_all_and_what_does_not_fit_is_refused_early_and_late(spool: Spool) -> None:
    def fill(party: uuid.UUID | str) -> int:
        file = spool.open(party)
        files.append(file)
        while fits(party, MEBIBYTE):
            file.write(bytes(MEBIBYTE))
        with pytest.raises(errors.Overloaded, match="share 16 MiB of disk space"):
            file.write(bytes(MEBIBYTE))
        return file.size

    def fits(party: uuid.UUID | str, size: int) -> bool:
        try:
            spool.check(party, size)
        except errors.Overloaded:
            return False
        return True

    files: list[SpooledFile] = []
    first = fill(A)
    assert first == 12 * MEBIBYTE
    with pytest.raises(errors.Overloaded):
        spool.check(A, MEBIBYTE)
    spool.check(B, 2 * MEBIBYTE)
    assert 0 < fill(B) <= 4 * MEBIBYTE
    for file in files:
        file.close()
    assert spool.held == 0
    spool.check(A, 12 * MEBIBYTE)


def test_many_addresses_leave_room_to_accounts(spool: Spool) -> None:
    files = [spool.open(f"192.0.2.{number}") for number in range(64)]
    refused = 0
    for file in files:
        try:
            file.write(LARGE)
        except errors.Overloaded:
            refused += 1
    assert 0 < refused < len(files)
    spool.check(A, 3 * MEBIBYTE)
    for file in files:
        file.close()


def test_below_the_floor_of_the_disk_nothing_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "not" / "there", total=16 * MEBIBYTE, floor=2**60)
    with pytest.raises(DiskFull):
        spool.check(A, 1)
    with contextlib.closing(spool.open(A)) as file:
        file.write(b"small")
        with pytest.raises(DiskFull) as refused:
            file.write(LARGE)
    assert refused.value.code == "insufficient_storage"
    assert refused.value.retry_after >= 10
    assert spool.held == 0


@given(parts=st.lists(st.binary(max_size=50), max_size=20))
def test_content_without_a_spool_stays_in_memory(parts: list[bytes]) -> None:
    file = SpooledFile()
    for part in parts:
        file.write(part)
    data = b"".join(parts)
    assert file.getvalue() == data == SpooledFile.of(data).getvalue()
    assert file.in_memory == len(data)
