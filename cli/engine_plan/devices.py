"""What this machine can compute with: the NVIDIA GPUs that the driver shows."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

_QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
#: A driver that does not answer within this time is taken for absent, in seconds.
_PATIENCE = 30


@dataclass(frozen=True)
class Device:
    """One GPU; ``memory`` is its whole memory in GiB."""

    name: str
    memory: float


def find(environ: Mapping[str, str]) -> tuple[Device, ...]:
    """Return the GPUs that a process with this environment can use, in the driver's order.

    No ``nvidia-smi``, or one that has no driver to talk to, is the same as no GPU.
    """
    program = shutil.which("nvidia-smi", path=environ.get("PATH"))
    if program is None:
        return ()
    try:
        done = subprocess.run(
            [program, *_QUERY], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse(done.stdout, visible=environ.get("CUDA_VISIBLE_DEVICES"))


def parse(listing: str, *, visible: str | None = None) -> tuple[Device, ...]:
    """Return the GPUs of ``nvidia-smi``'s listing: lines of index, UUID, name and MiB of memory.

    Args:
        listing: what ``nvidia-smi`` wrote.
        visible: ``CUDA_VISIBLE_DEVICES``: indices or UUIDs (which may be shortened); None means all.
    """
    wanted = None if visible is None else [part.strip() for part in visible.split(",")]
    found = []
    for line in listing.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        # A GPU that is split into MIG instances says "[N/A]" where its memory should be.
        if len(cells) != 4 or not cells[3].isdigit():  # noqa: PLR2004 - the four fields of the query
            continue
        index, uuid, name, mebibytes = cells
        if wanted is None or any(_names(part, index, uuid) for part in wanted):
            found.append(Device(name=name, memory=int(mebibytes) / 1024))
    return tuple(found)


def _names(part: str, index: str, uuid: str) -> bool:
    """Whether one entry of ``CUDA_VISIBLE_DEVICES`` means this GPU."""
    return part == index or (part.startswith("GPU-") and uuid.startswith(part))
