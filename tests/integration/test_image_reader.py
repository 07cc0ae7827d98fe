"""The way in: what the door refuses, how bytes arrive, and that decoding happens elsewhere."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core import errors
from core.sandbox import Sandbox
from core.settings import Settings
from core.shares import Shares
from core.spool import IN_MEMORY_BYTES, Spool
from jobs import images
from jobs.images import pipeline
from tests import image_files
from tests.children import wait_for_names
from tests.integration import sandbox_targets

ACCOUNT, OTHER = (uuid.UUID(int=number) for number in (1, 2))


@pytest.fixture(scope="module")
def router() -> Iterator[images.ImageReader]:
    images_of_one_process = images.ImageReader.start(
        Settings.read({}, sandbox_processes=1, max_image_mb=1, sandbox_seconds=60)
    )
    yield images_of_one_process
    images_of_one_process.close()


def test_an_upload_is_decoded_in_a_child_process(router: images.ImageReader) -> None:
    data = image_files.file_of(image_files.gradient(), "JPEG", exif=image_files.with_orientation(6))

    assert router.accept(data, account_id=ACCOUNT, detail="low") == pipeline.canonicalize(
        data, detail="low"
    )


def test_two_child_processes_make_the_same_bytes(router: images.ImageReader) -> None:
    data = image_files.file_of(image_files.gradient(640, 480), "WEBP", lossless=True)
    again = images.ImageReader.start(Settings.read({}, sandbox_processes=1))
    try:
        keys = [one.accept(data, account_id=ACCOUNT).key for one in (again, router, router)]
        assert keys[0] == keys[1] == keys[2]
    finally:
        again.close()


@pytest.mark.parametrize("name", ["AVIF", "HEIC"])
def test_decoders_with_threads_fit_into_the_confinement(
    router: images.ImageReader, name: str
) -> None:
    data = image_files.HEIC if name == "HEIC" else image_files.file_of(image_files.gradient(), name)

    assert router.accept(data, account_id=ACCOUNT).media_type == "image/jpeg"


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        (b"", "empty_image_file", 422),
        (b"\xff\xd8\xff" + bytes(2**20), "image_file_too_large", 413),
        (b"GIF, as in gift", "invalid_image_format", 422),
        (image_files.png_header(20_000, 12_000), "image_too_large", 422),
    ],
    ids=["empty", "too many bytes", "no image", "bomb"],
)
def test_an_invalid_upload_is_rejected_with_message_and_code(
    router: images.ImageReader, data: bytes, code: str, status: int
) -> None:
    with pytest.raises(errors.ImageRejected) as refused:
        router.accept(data, account_id=ACCOUNT)

    assert (refused.value.specific_code, refused.value.http_status) == (code, status)
    assert refused.value.message.endswith(".")


def test_a_large_upload_is_rejected_with_actual_and_allowed_bytes(
    router: images.ImageReader,
) -> None:
    with pytest.raises(errors.ImageRejected, match=r"has 1,048,579 bytes; at most 1,048,576 are"):
        router.accept(b"\xff\xd8\xff" + bytes(2**20), account_id=ACCOUNT)


@pytest.mark.parametrize(
    ("order", "cpu_seconds", "said"),
    [("burn", 0.2, "needs more CPU time"), ("eat", 60.0, "too much memory")],
)
def test_a_decoder_that_computes_without_end_or_crashes_rejects_the_image(
    order: str, cpu_seconds: float, said: str
) -> None:
    target = f"tests.integration.sandbox_targets:{order}_on_any_image"
    with Sandbox(
        target, processes=1, seconds=600, cpu_seconds=cpu_seconds, memory_mb=512
    ) as sandbox:
        router = images.ImageReader(
            sandbox, limits=images.ImageLimits(), shares=Shares(1, name="decoders")
        )
        with pytest.raises(errors.ImageRejected, match=said) as refused:
            router.accept(image_files.file_of(image_files.gradient()), account_id=ACCOUNT)

    assert refused.value.specific_code == "image_parse_error"


def test_a_decode_without_cpu_is_the_machines_fault_and_may_be_repeated() -> None:
    png = image_files.file_of(image_files.gradient())
    target = sandbox_targets.DECODE_OR_HANG
    with Sandbox(target, processes=1, seconds=0.2, cpu_seconds=60) as sandbox:
        reader = images.ImageReader(
            sandbox, limits=images.ImageLimits(), shares=Shares(1, name="decoders")
        )
        slow = sandbox_targets.hanging(png, salt=1)
        for _ in range(2):
            pids = sandbox.pids
            with pytest.raises(errors.Overloaded, match="the machine is busy") as refused:
                reader.accept(slow, account_id=ACCOUNT)
            assert refused.value.retry_after > 1
            # It was decoded again: nothing is remembered about the file.
            assert sandbox.pids != pids


def test_an_account_with_hanging_images_leaves_a_decoder_to_others() -> None:
    # Neither those that hang nor those that wait may be given up before the others are decoded.
    settings = Settings.read({}, sandbox_processes=2, sandbox_seconds=150)
    router = images.ImageReader.start(settings, target=sandbox_targets.DECODE_OR_HANG)
    png = image_files.file_of(image_files.gradient())
    with ThreadPoolExecutor(8) as threads:
        hanging = [
            threads.submit(
                router.accept,
                sandbox_targets.hanging(png, salt=number),
                account_id=ACCOUNT,
            )
            for number in range(8)
        ]
        wait_for_names(sandbox_targets.BEGUN, count=2)
        served = [router.accept(png, account_id=OTHER) for _ in range(3)]
        held, unfinished = router.shares.held, [one for one in hanging if not one.done()]
        router.close()

    assert [image.media_type for image in served] == ["image/png"] * 3
    assert (held, len(unfinished)) == (2, 8)
    assert all(isinstance(one.exception(), errors.Unavailable) for one in hanging)


def test_a_file_that_took_too_long_is_not_decoded_again_for_ten_minutes() -> None:
    now = 0.0
    slow = sandbox_targets.burning(image_files.file_of(image_files.gradient()), salt=1)

    def refused(account_id: uuid.UUID, *, decoded: bool) -> bool:
        before = sandbox.pids
        with pytest.raises(errors.ImageRejected, match="too long") as caught:
            intake.accept(slow, account_id=account_id)
        # A decode that takes too long costs its child.
        return (
            caught.value.specific_code == "image_parse_error"
            and sandbox.pids.isdisjoint(before) is decoded
        )

    with Sandbox(
        sandbox_targets.DECODE_OR_HANG, processes=1, seconds=600, cpu_seconds=0.2
    ) as sandbox:
        sandbox.warm()
        shares = Shares(1, name="decoders")
        intake = images.ImageReader(
            sandbox, limits=images.ImageLimits(), shares=shares, timer=lambda: now
        )
        assert refused(ACCOUNT, decoded=True)
        assert refused(ACCOUNT, decoded=False)
        with shares.hold(OTHER, seconds=0):
            assert refused(ACCOUNT, decoded=False)
        # What one account sent says nothing to another.
        assert refused(OTHER, decoded=True)
        now = 599
        assert refused(ACCOUNT, decoded=False)
        now = 601
        assert refused(ACCOUNT, decoded=True)


def test_a_file_on_disk_gives_the_same_image_as_its_bytes(
    router: images.ImageReader, tmp_path: Path
) -> None:
    data = image_files.file_of(image_files.gradient(640, 480), "BMP")
    assert len(data) > IN_MEMORY_BYTES
    spool = Spool(tmp_path / "spool", total=2**24)
    with contextlib.closing(spool.open(ACCOUNT)) as file:
        for start in range(0, len(data), 1000):
            file.write(data[start : start + 1000])
        assert file.in_memory == 0
        assert router.accept(file, account_id=ACCOUNT) == router.accept(data, account_id=ACCOUNT)
    assert spool.held == 0


def test_a_process_that_receives_images_loads_no_decoder() -> None:
    script = "import sys, jobs.images; print('PIL.Image' in sys.modules)"
    reported = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    ).stdout

    assert reported.strip() == "False"


def test_a_process_that_decodes_loads_no_database_driver() -> None:
    """It starts in half the time, and an image that took it over would find no such code there."""
    script = "import sys, jobs.images.pipeline; print({'sqlalchemy', 'psycopg'} & {*sys.modules})"
    reported = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    ).stdout

    assert reported.strip() == "set()"
