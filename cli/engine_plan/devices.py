"""The NVIDIA GPUs of this machine, as the driver reports them."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

_QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
#: Seconds; a driver that takes longer counts as absent.
_TIMEOUT = 30


@dataclass(frozen=True)
class Device:
    """One GPU; ``memory`` is its total memory in GiB."""

    name: str
    memory: float


def find(environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the GPUs that a process with this environment can use, in the driver's order.

    Without ``nvidia-smi``, or if it finds no driver, the list is empty.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse(done.stdout, visible=environ.get("CUDA_VISIBLE_DEVICES"))


def parse(listing: str, *, visible: str | None = None) -> tuple[Device, ...]:
    """Return the GPUs of ``nvidia-smi``'s listing: lines of index, UUID, name and MiB of memory.

    Args:
        listing: output of ``nvidia-smi``.
        visible: ``CUDA_VISIBLE_DEVICES``: indices or (shortened) UUIDs; None means all.
    """
    entries = None if visible is None else [part.strip() for part in visible.split(",")]
    gpus = []
    for line in listing.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        # A GPU with MIG instances reports "[N/A]" as its memory.
        if len(cells) != 4 or not cells[3].isdigit():  # noqa: PLR2004 - the four fields of the query
            continue
        index, uuid, name, mebibytes = cells
        if entries is None or any(_matches(entry, index, uuid) for entry in entries):
            gpus.append(Device(name=name, memory=int(mebibytes) / 1024))
    return tuple(gpus)


def _matches(entry: str, index: str, uuid: str) -> bool:
    """Whether an entry of ``CUDA_VISIBLE_DEVICES`` matches this GPU."""
    return entry == index or (entry.startswith("GPU-") and uuid.startswith(entry))
