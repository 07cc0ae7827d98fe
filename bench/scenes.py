"""The exam of the model card through the whole service: are the answers as good as the model's?

    python -m bench.scenes [--n 200] [--seed 1] [--url http://127.0.0.1:8700 --api-key KEY]

Draws new images, submits each as a job, and grades the answers by kind of question next to
the figures of the card. Without ``--url`` it starts its own service, with the real engine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.progress import track

from bench import figures
from cli import client
from cli.up import programs
from core.settings import Settings
from models.training import exam

CARD: Final = Path(__file__).resolve().parents[1] / "models" / "tiny-qvq" / "MODEL_CARD.md"
_START_SECONDS: Final = 180


@dataclass
class Marks:
    """The number of right answers of one kind."""

    right: int = 0
    requested: int = 0

    @property
    def share(self) -> float:
        """The share of right answers."""
        return self.right / self.requested if self.requested else 0.0


def main() -> None:
    """Run the exam and print the marks."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=200, help="pictures")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the images")
    parser.add_argument("--url", help="a running service; by default one is started")
    parser.add_argument(
        "--api-key", help="its key; else LONGLOOK_API_KEY, else the home directory's"
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        settings = Settings.read(url=options.url, api_key=options.api_key)
        if options.url is None:
            settings = stack.enter_context(own_service())
        marks, faults, seconds = _sit(client.connect(settings), options.n, options.seed)
    _print(marks, faults, f"{options.n} images, seed {options.seed}, {seconds:.0f} s")


def _sit(
    service: client.Client, count: int, seed: int
) -> tuple[dict[str, Marks], dict[str, int], float]:
    """Submit all sheets, then wait for each; return the marks by kind, failures by code, and the seconds."""
    marks: dict[str, Marks] = defaultdict(Marks)
    faults: dict[str, int] = defaultdict(int)
    submitted = []
    with tempfile.TemporaryDirectory(prefix="ll-scenes-") as folder:
        drawing = Path(folder, "scene.png")
        for sheet in track(exam.sheets(count, seed), "submitting", total=count):
            sheet.image.save(drawing)
            submitted.append((sheet, str(service.submit([drawing], sheet.question)["id"])))
    began = time.monotonic()
    for sheet, job_id in track(submitted, "answers"):
        job = service.wait(job_id)
        kind = marks[sheet.kind]
        kind.requested += 1
        if job["status"] != "succeeded":
            faults[str(job["error"]["code"] if job["error"] else job["status"])] += 1
        elif job["answer"] is not None and job["answer"]["text"] == sheet.answer:
            kind.right += 1
    return marks, faults, time.monotonic() - began


def _print(marks: dict[str, Marks], faults: dict[str, int], title: str) -> None:
    """Print the table, and the difference that chance alone would make."""
    stated = card()
    rows = [(kind, marks[kind], stated.get(kind, Marks())) for kind in sorted(marks)]
    whole = _sum([mark for _, mark, _ in rows]), card_total()
    figures.show(
        title,
        ("kind", "right", "of", "share", "model card"),
        [
            [kind, str(mark.right), str(mark.requested), f"{mark.share:.1%}", f"{theirs.share:.1%}"]
            for kind, mark, theirs in (*rows, ("all", *whole))
        ],
    )
    share, requested = whole[1].share, whole[0].requested
    chance = statistics.NormalDist().inv_cdf(0.975) * (share * (1 - share) / requested) ** 0.5
    print(f"With {requested} images chance alone makes ±{100 * chance:.1f} points (95 %).")
    for code, times in sorted(faults.items()):
        print(f"{times} jobs did not succeed: {code}")


def _sum(marks: list[Marks]) -> Marks:
    return Marks(sum(mark.right for mark in marks), sum(mark.requested for mark in marks))


def card() -> dict[str, Marks]:
    """Return the model card's marks by kind."""
    found = re.findall(r"^\| (\w+) \| (\d+)/(\d+) \|", CARD.read_text(), re.MULTILINE)
    return {kind: Marks(int(right), int(requested)) for kind, right, requested in found}


def card_total() -> Marks:
    """Return the model card's marks of all kinds."""
    return _sum(list(card().values()))


@contextlib.contextmanager
def own_service() -> Iterator[Settings]:
    """Yield client settings for a service that ends with the benchmark."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ll-scenes-") as home:
        longlook = Path(sys.executable).with_name("longlook")
        command = (longlook, "up", "--home", home, "--port", str(port))
        log, environ = Path(home, "up.log"), programs.without_settings(os.environ)
        print("Starting a service with the real engine …", flush=True)
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=output, env=environ) as process,
        ):
            try:
                url = f"http://127.0.0.1:{port}"
                deadline = time.monotonic() + _START_SECONDS
                while client.probe(f"{url}/readyz", seconds=5)[0] != 200:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"The service did not start:\n{log.read_text()}")
                    time.sleep(0.2)
                yield Settings.read({}, url=url, home=home)
            finally:
                process.terminate()


if __name__ == "__main__":
    main()
