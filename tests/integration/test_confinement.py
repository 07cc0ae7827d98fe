"""The confinement of sandbox children, in real children: no secrets, no network, no new processes."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from core.sandbox import Sandbox, confinement
from core.sandbox.confinement import FILES, LAYERS, SYSTEM_CALLS
from tests.integration.sandbox_targets import _ATTEMPTS

TARGET = "tests.integration.sandbox_targets:obey"
#: Permitted actions of a child: run threads, and read its libraries.
HARMLESS = {"thread": "True", "library": '"""'}
#: System calls that are tried by their number, on this architecture only.
BY_NUMBER = {
    "open_by_number",
    "trace",
    "execute",
    "more_memory",
    "core",
    "namespace",
    "shared_memory",
    "io_uring",
    "kernel_program",
    "keys",
}
FORBIDDEN = sorted(_ATTEMPTS.keys() - HARMLESS.keys())
REFUSED = {"EPERM", "EACCES"}


@pytest.fixture(scope="module", params=[False, True], ids=["imports at its start", "imports late"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with Sandbox(TARGET, processes=1, seconds=60, imports_late=request.param) as pool:
        pool.warm()
        yield pool


def needs(sandbox: Sandbox, *layers: str) -> None:
    missing = set(layers) - set(sandbox.confined or ())
    if missing:
        pytest.skip(f"this kernel does not confine {', '.join(sorted(missing))}")


@pytest.fixture
def secret(short_folder: Path) -> Path:
    """Return a file that every user can read, write and remove, next to a listening socket."""
    short_folder.chmod(0o777)
    path = short_folder / "pepper"
    path.write_text("a secret")
    path.chmod(0o666)
    return path


@pytest.mark.parametrize("action", FORBIDDEN)
def test_a_compromised_child_reaches_nothing(sandbox: Sandbox, secret: Path, action: str) -> None:
    needs(sandbox, FILES, SYSTEM_CALLS)
    if action in BY_NUMBER and platform.machine() != "x86_64":
        pytest.skip("the numbers are those of x86-64")
    path = secret
    with socket.socket(socket.AF_UNIX) as listener:
        if action == "unix":
            path = secret.with_name("socket")
            listener.bind(str(path))
            path.chmod(0o777)
            listener.listen()
        facts, _ = sandbox.call(
            b"", order="attempt", action=action, path=str(path), pid=os.getpid()
        )

    assert facts.get("error") in REFUSED, facts
    assert secret.read_text() == "a secret"
    assert sorted(entry.name for entry in secret.parent.iterdir() if entry.name != "socket") == [
        "pepper"
    ]
    # The call was refused, and the child continues to work.
    assert sandbox.call(b"next", order="echo") == ({}, b"next")


@pytest.mark.parametrize("action", HARMLESS)
def test_the_operations_that_decoding_needs_are_permitted(
    sandbox: Sandbox, secret: Path, action: str
) -> None:
    facts, _ = sandbox.call(b"", order="attempt", action=action, path=str(secret), pid=os.getpid())

    assert facts.get("got") == HARMLESS[action], facts


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_the_kernel_reports_the_confinement(sandbox: Sandbox) -> None:
    needs(sandbox, SYSTEM_CALLS)
    [pid] = sandbox.pids

    child = status(pid)

    assert child["NoNewPrivs"] == "1"
    assert child["Seccomp"] == "2"
    assert int(child["CapEff"], 16) == int(child["CapPrm"], 16) == 0


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can")
def test_a_child_of_root_is_another_user_if_all_users_can_read_the_libraries() -> None:
    with Sandbox(TARGET, processes=2) as pool:
        pool.warm()
        users = {status(pid)["Uid"] for pid in pool.pids}
    everybodys = all(map(confinement._is_world_readable, confinement._libraries()))  # noqa: SLF001 - the kernel's numbers are checked, not an interface

    if everybodys:
        assert len(users) == 2
        assert not [user for user in users if "0" in user.split()]
    else:
        assert users == {"0\t0\t0\t0"}


#: Makes a kernel look as if it had no Landlock, no seccomp or neither, by a filter.
OLD_KERNEL = """
import ctypes, os, sys
from core.sandbox import confinement as own
from tests.integration import test_confinement as test
test.pretend(*sys.argv[1].split())
from core.sandbox import Sandbox
with Sandbox(test.TARGET, processes=1, seconds=60, imports_late=sys.argv[2] == "late") as pool:
    pool.warm()
    print("confined", *pool.confined)
    for action in ("read", "internet", "fork"):
        facts, _ = pool.call(b"", order="attempt", action=action, path=sys.argv[3], pid=os.getpid())
        print(action, "got" in facts)
print("hidden", ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize(
    ("missing", "late", "expected"),
    [
        (
            "landlock",
            "early",
            [
                "confined files system_calls",
                "read False",
                "internet False",
                "fork False",
                "hidden False",
            ],
        ),
        (
            "landlock",
            "late",
            ["confined system_calls", "read True", "internet False", "fork False", "hidden True"],
        ),
        (
            "seccomp",
            "early",
            ["confined files", "read False", "internet True", "fork True", "hidden False"],
        ),
        (
            "landlock seccomp",
            "early",
            ["confined", "read True", "internet True", "fork True", "hidden True"],
        ),
    ],
)
def test_an_older_kernel_confines_as_far_as_it_can(
    secret: Path, missing: str, late: str, expected: list[str]
) -> None:
    with Sandbox(TARGET, processes=1) as pool:
        pool.warm()
        needs(pool, *LAYERS)
    ended = subprocess.run(
        [sys.executable, "-c", OLD_KERNEL, missing, late, str(secret)],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    lines = [line for line in ended.stdout.splitlines() if "sandbox_not_confined" not in line]
    assert lines == expected, ended.stdout + ended.stderr
    assert ("sandbox_not_confined" in ended.stdout + ended.stderr) == (
        expected[0] != "confined files system_calls"
    )


#: Decodes files of every format in a confined child and in the program.
DECODING = """
import io, sys
from PIL import Image, ImageCms, features
from jobs.images import pipeline
from jobs.images.reader import TARGET
from tests import image_files
from tests import image_writers as writers
from tests.integration import test_confinement as test
test.pretend(*sys.argv[1:])
from core.sandbox import Sandbox

picture = image_files.gradient()
exif = Image.Exif()
exif[0x0112], exif[0x9286], exif[0x013B] = 6, b"UNICODE" + bytes(1) + "é".encode("utf-16"), "ü圆"
profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
files = {
    name: image_files.file_of(picture, name)
    for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", *(["AVIF"] if features.check("avif") else []))
}
for name in ("JPEG", "WEBP", "PNG", "TIFF"):
    files[f"{name} with metadata"] = image_files.file_of(picture, name, exif=exif, icc_profile=srgb)
for compression in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate", "group4"):
    shown = picture.convert("1") if compression == "group4" else picture
    files[compression] = image_files.file_of(shown, "TIFF", compression=compression)
for mode in ("L", "LA", "P", "1", "RGBA", "I;16"):
    files[mode] = image_files.file_of(picture.convert("L" if mode == "I;16" else mode).convert(mode), "PNG")
files["CMYK"] = image_files.file_of(picture.convert("CMYK"), "JPEG")
files["progressive"] = image_files.file_of(picture, "JPEG", progressive=True)
files["several pictures"] = image_files.file_of(picture, "MPO", save_all=True, append_images=[picture])
files["profile of others"] = image_files.file_of(picture, "PNG", icc_profile=profile)
files["animated"] = image_files.file_of(picture, "WEBP", save_all=True, append_images=[picture], lossless=True)
files["HEIC"] = image_files.HEIC
files["no end marker"] = image_files.file_of(picture, "JPEG")[:-2]
files["no profile"] = writers.png(
    (84, 56), 8, 2, writers.flat(9, 8, 7), chunks=[writers.chunk(b"cICP", bytes([9, 16, 0, 1]))]
)
files["deep"] = writers.tiff(writers.page((84, 56), 12, 0, writers.flat(77)))
with Sandbox(TARGET, processes=1, seconds=60) as pool:
    for name, data in files.items():
        _, made = pool.call(data, detail="standard")
        print(name if made == pipeline.canonicalize(data).data else f"NOT ALIKE: {name}")
    print("confined", *pool.confined)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64")
@pytest.mark.parametrize("missing", [[], ["landlock"]], ids=["libraries only", "no file at all"])
def test_images_of_all_kinds_are_decoded_in_confinement(missing: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", DECODING, *missing],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "NOT ALIKE" not in ended.stdout
    assert len(ended.stdout.splitlines()) > 25


def pretend(*missing: str) -> None:
    """Make the kernel look as if it lacked the ``missing`` features, for this process and its children."""
    # Skips the following instructions for other calls and other uses of prctl.
    refusals = {
        "landlock": [(0x15, 0, 1, 444), (0x06, 0, 0, 0x5_0000 | 38)],
        "seccomp": [
            (0x15, 0, 4, 157),
            (0x20, 0, 0, 16),
            (0x15, 0, 1, 22),
            (0x06, 0, 0, 0x5_0000 | 22),
            (0x20, 0, 0, 0),
        ],
    }
    program = [(0x20, 0, 0, 0)]
    program += [instruction for name in missing for instruction in refusals[name]]
    program.append((0x06, 0, 0, 0x7FFF_0000))
    packed = b"".join(struct.pack("=HBBI", *filter_line) for filter_line in program)
    libc = ctypes.CDLL(None)
    libc.prctl(38, 1, 0, 0, 0)
    filter_ = confinement._Program(len(program), packed)  # noqa: SLF001 - a filter of the test's own
    assert libc.prctl(22, 2, ctypes.byref(filter_), 0, 0) == 0


def test_a_missing_confinement_is_logged_once() -> None:
    with structlog.testing.capture_logs() as logs, Sandbox(TARGET, processes=2) as pool:
        pool.warm()
        complete = pool.confined == LAYERS

    assert len([entry for entry in logs if entry["event"] == "sandbox_not_confined"]) == (
        0 if complete else 1
    )


@pytest.mark.parametrize(
    ("place", "header", "prefix"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
        (1, "/usr/include/asm-generic/unistd.h", "__NR(?:3264)?_"),
    ],
    ids=["x86_64", "aarch64"],
)
def test_system_calls_have_the_numbers_of_the_kernels_headers(
    place: int, header: str, prefix: str
) -> None:
    if not Path(header).exists():
        pytest.skip("the kernel's headers are not installed")
    listed = dict(
        re.findall(rf"^#define {prefix}(\w+)\s+(\d+)$", Path(header).read_text(), re.MULTILINE)
    )
    # The table of AArch64 has one name for two calls of 32-bit architectures.
    listed |= {"newfstatat": listed.get("newfstatat", listed.get("fstatat"))} if place else {}
    ours = confinement._FREE | confinement._SOME | confinement._NEWER_FORMS  # noqa: SLF001 - the kernel's numbers are checked, not an interface

    assert {
        name: numbers[place] for name, numbers in ours.items() if numbers[place] is not None
    } == {name: int(listed[name]) for name, numbers in ours.items() if numbers[place] is not None}
    assert [
        name for name, numbers in ours.items() if numbers[place] is None and name in listed
    ] == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_a_filter_fits_into_the_kernel_and_jumps_only_forward_within_itself(machine: str) -> None:
    program = confinement._filter(machine, own=1, opens=True)  # noqa: SLF001 - the kernel's numbers are checked, not an interface

    assert len(program) <= 4096
    for place, (code, when_so, otherwise, _) in enumerate(program):
        jumps = code in {0x15, 0x45}
        assert place + 1 + max(when_so, otherwise) < len(program) or not jumps
        assert jumps or when_so == otherwise == 0
