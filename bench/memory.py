"""The memory of the API under large uploads: of one request, during rounds of many, and after them.

    python -m bench.memory [--quick]

One request at a time gives the growth: the peak of the process that serves requests, minus its memory before, in
relation to the body. Then four rounds of eight clients each send 60 MiB of JSON at once to a new process, and its
memory ten seconds after the last answer shows what it keeps. The decoders are other processes and do not count.
"""

from __future__ import annotations

import argparse
import base64
import functools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from bench import accept_images, figures, service

_MIB: Final = 2**20
_BOUNDARY: Final = "bench-boundary"
#: Three images of this size are 60 MiB of JSON, or 45 MiB of a form.
_FILE_BYTES: Final = 15 * _MIB
_FILES: Final = 3
_CLIENTS: Final = 8
_REST_SECONDS: Final = 10
#: The goals.
_GROWTH: Final = {"JSON": 2.2, "form": 1.2, "raw": 1.2}
_KEPT_MB: Final = 200
_COMMENT_BYTES: Final = 60_000


@dataclass(frozen=True)
class Upload:
    """A request with large images."""

    path: str
    kind: str
    body: bytes


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one round instead of four")
    options = parser.parse_args()
    rounds = 1 if options.quick else 4
    uploads = {"JSON": _json, "form": _form, "raw": _raw}
    single, crowd = [], []
    with service.ground("") as ground, service.databases(ground, "sqlite") as makers:
        url = makers["SQLite"]()
        with service.running(ground, url, max_body_mb="64", bodies_mb="1024") as running:
            _warm_up(running)
            single = [_single_row(running, name, make) for name, make in uploads.items()]
        for name, make in uploads.items():
            url = makers["SQLite"]()
            with service.running(ground, url, max_body_mb="64", bodies_mb="1024") as running:
                _warm_up(running)
                crowd.append(_crowd_row(running, name, make, rounds))
    figures.show(
        f"One request at a time, {figures.machine()}",
        ("body", "growth / body", "goal", "body, MB", "growth, MB", "seconds"),
        single,
    )
    figures.show(
        f"{rounds} round(s) of {_CLIENTS} requests at once, {figures.machine()}; goal: {_KEPT_MB} MB kept",
        ("body", "kept, MB", "before, MB", "peak, MB", f"{_REST_SECONDS} s after, MB", "CPU s a request"),
        crowd,
    )  # fmt: skip


def _single_row(running: service.Service, name: str, make: Callable[[int], Upload]) -> list[str]:
    worker = _worker(running)
    growths: list[tuple[float, int, float]] = []
    for number in range(3):
        upload = make(1000 + number)
        before = _reset(worker)
        began = time.perf_counter()
        _send(running, upload)
        seconds = time.perf_counter() - began
        growths.append((_megabytes(worker, "VmHWM") - before, len(upload.body), seconds))
    growth, size, seconds = max(growths)
    return [
        name,
        f"{growth * 1e6 / size:.2f}",
        f"{_GROWTH[name]}",
        f"{size / 1e6:.0f}",
        f"{growth:.0f}",
        f"{seconds:.2f}",
    ]


def _crowd_row(
    running: service.Service, name: str, make: Callable[[int], Upload], rounds: int
) -> list[str]:
    worker = _worker(running)
    before = _reset(worker)
    cpu = figures.cpu_seconds(int(worker.name))
    with ThreadPoolExecutor(_CLIENTS) as clients:
        for number in range(rounds):
            uploads = [make(number * _CLIENTS + client) for client in range(_CLIENTS)]
            gate = threading.Barrier(_CLIENTS)

            def at_once(upload: Upload, gate: threading.Barrier = gate) -> None:
                gate.wait()
                _send(running, upload)

            list(clients.map(at_once, uploads))
    cpu = figures.cpu_seconds(int(worker.name)) - cpu
    peak = _megabytes(worker, "VmHWM")
    time.sleep(_REST_SECONDS)
    after = _megabytes(worker, "VmRSS")
    each = cpu / (rounds * _CLIENTS)
    return [
        name, f"{after - before:.0f}", f"{before:.0f}", f"{peak:.0f}", f"{after:.0f}", f"{each:.2f}"
    ]  # fmt: skip


def _warm_up(running: service.Service) -> None:
    for _ in range(4):
        running.upload()


def _send(running: service.Service, upload: Upload) -> None:
    running.caller().post(upload.path, upload.body, kind=upload.kind)


def _worker(running: service.Service) -> Path:
    """Return where the system describes the process that serves requests: gunicorn's child."""
    tasks = Path(f"/proc/{running.api.pid}/task").glob("*/children")
    [worker] = {child for task in tasks for child in task.read_text().split()}
    return Path("/proc", worker)


def _reset(process: Path) -> float:
    """Let the peak memory of a process begin again; return its memory now, in MB."""
    (process / "clear_refs").write_text("5", encoding="ascii")
    return _megabytes(process, "VmRSS")


def _megabytes(process: Path, name: str) -> float:
    for line in (process / "status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"the system reports no {name}")


@functools.cache
def _photograph() -> bytes:
    return accept_images.photograph(2000, 1500)


def _file(number: int) -> bytes:
    """Return a JPEG of :data:`_FILE_BYTES`, most of them random comments: all of it must be received and stored."""
    photograph = _photograph()
    chance = random.Random(number)
    parts = [photograph[:2]]
    for _ in range((_FILE_BYTES - len(photograph)) // (_COMMENT_BYTES + 4)):
        size = (_COMMENT_BYTES + 2).to_bytes(2, "big")
        parts += [b"\xff\xfe", size, chance.randbytes(_COMMENT_BYTES)]
    return b"".join([*parts, photograph[2:]])


def _json(number: int) -> Upload:
    urls = [
        "data:image/jpeg;base64," + base64.b64encode(_file(number * _FILES + index)).decode()
        for index in range(_FILES)
    ]
    job = {"question": "What is there to see?", "images": [{"data": url} for url in urls]}
    return Upload("/v1/jobs", "application/json", orjson.dumps(job))


def _form(number: int) -> Upload:
    parts = [b'name="question"\r\n\r\nWhat is there to see?']
    parts += [
        b'name="image"; filename="a.jpg"\r\n\r\n' + _file(number * _FILES + index)
        for index in range(_FILES)
    ]
    mark = _BOUNDARY.encode()
    lines = [b"--%b\r\nContent-Disposition: form-data; %b\r\n" % (mark, part) for part in parts]
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    return Upload("/v1/jobs", kind, b"".join([*lines, b"--%b--\r\n" % mark]))


def _raw(number: int) -> Upload:
    return Upload("/v1/images", "image/jpeg", _file(number))


if __name__ == "__main__":
    main()
