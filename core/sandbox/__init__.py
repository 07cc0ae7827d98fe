"""A small pool of long-lived child processes for work on untrusted input.

A decoder with a hostile file may loop, use up memory, or crash. It does so in a process of its own, which is killed at
a deadline, cannot exceed its memory, and is replaced::

    with Sandbox("jobs.images:serve", processes=2, seconds=15, memory_mb=1536) as sandbox:
        facts, data = sandbox.call(upload, detail="standard", max_pixels=50_000_000)

The target is a function ``(payload: bytes, **arguments) -> (facts, data)``; arguments and facts are
JSON. Its child is ``python -m core.sandbox``: started by :mod:`subprocess` (a fork of a process with
threads is unsafe, a start for every call would cost more than most calls), kept, and recycled after
some uses. Parent and child exchange frames over a socket pair; the child reads a large payload from a file that the
parent has opened. The child can read no secret and reach no network:
:mod:`core.sandbox.confinement`.
"""

from __future__ import annotations

from core.sandbox.child import SandboxCpuExceeded, SandboxCrashed, SandboxTimeout
from core.sandbox.pool import Sandbox

__all__ = ["Sandbox", "SandboxCpuExceeded", "SandboxCrashed", "SandboxTimeout"]
