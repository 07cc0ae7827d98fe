"""The value of voting, and the savings of waves: tiny-qvq with sampling, through the whole service.

    python -m bench.voting [--n 200] [--seed 1] [--samples 5] [--temperature 1.3] [--url … --api-key …]

Submits each question of the model card's exam several times as jobs of one sample, which is the full vote, and once
as a job with this number of ``samples``. The former give three rows: one sample; the vote of all; the same
samples in waves, each wave counted as a whole, so that only the waves differ. The last row is the service's own
vote, on its own samples. Without ``--url`` it starts its own service, with the real engine.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import track

from bench import figures
from bench.scenes import own_service
from cli import client
from core.sandbox import Sandbox
from core.settings import Settings
from jobs.answers import votes
from models.training import exam
from worker import equality


@dataclass(frozen=True)
class Spent:
    """The cost of one way to an answer for one question."""

    answer: str | None
    samples: float
    output_tokens: float


@dataclass
class Way:
    """One way to an answer, over all questions."""

    name: str
    right: int = 0
    requested: int = 0
    same: int = 0
    spent: list[Spent] = field(default_factory=list)

    def add(self, spent: Spent, *, truth: str, full: str | None) -> None:
        """Count the result of one question, compared with the truth and the answer of the full vote."""
        self.requested += 1
        self.right += spent.answer == truth
        self.same += spent.answer == full
        self.spent.append(spent)

    def row(self) -> list[str]:
        """Return the way as a row of the table."""
        mean = statistics.fmean
        return [
            self.name,
            f"{self.right / self.requested:.1%}",
            f"{self.same} of {self.requested}",
            f"{mean(one.samples for one in self.spent):.2f}",
            f"{mean(one.output_tokens for one in self.spent):.0f}",
        ]


@dataclass(frozen=True)
class Requested:
    """One question as it was submitted: as single samples, and as a vote."""

    question: str
    truth: str
    singles: tuple[str, ...]
    vote: str


def main() -> None:
    """Run the exam in all ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=200, help="scenes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the scenes")
    parser.add_argument("--samples", type=int, default=5, help="the most samples of a vote")
    parser.add_argument("--temperature", type=float, default=1.3)
    parser.add_argument("--url", help="a running service; by default one is started")
    parser.add_argument(
        "--api-key", help="its key; else LONGLOOK_API_KEY, else the home directory's"
    )
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        settings = Settings.read(url=options.url, api_key=options.api_key)
        if options.url is None:
            settings = stack.enter_context(own_service())
        sandbox = stack.enter_context(
            Sandbox(
                equality.TARGET,
                processes=equality.PROCESSES,
                seconds=equality.SECONDS,
                memory_mb=equality.MEMORY_MB,
                imports_late=True,
            )
        )
        began = time.monotonic()
        service = client.connect(settings)
        requested = _submit(service, options)
        comparisons = equality.Equality(sandbox, equality.shares(most_waiting=1))
        ways, shares = _collect(
            service, requested, comparisons=comparisons, samples=options.samples
        )
        seconds = time.monotonic() - began
    figures.show(
        f"{options.n} scenes, seed {options.seed}, temperature {options.temperature:g}, {seconds:.0f} s",
        ("way", "right", "same as the full vote", "samples", "output tokens"),
        [way.row() for way in ways],
    )
    if shares:
        low = sum(share < 0.8 for share in shares)
        print(
            f"{len(shares)} followers found {statistics.fmean(shares):.0%} of their prompt in the cache, "
            f"{low} of them less than 80 %."
        )


def _submit(service: client.Client, options: argparse.Namespace) -> list[Requested]:
    """Submit all questions in both ways."""
    sampling = {"temperature": options.temperature, "top_p": 1.0, "deadline_seconds": 24 * 3600}
    requested: list[Requested] = []
    with tempfile.TemporaryDirectory(prefix="ll-voting-") as folder:
        submitted = Path(folder, "scene.png")
        for sheet in track(exam.sheets(options.n, options.seed), "submitting", total=options.n):
            sheet.image.save(submitted)

            def ask(question: str, samples: int) -> str:
                job = service.submit(
                    [submitted], question, options={**sampling, "samples": samples}
                )
                return str(job["id"])

            # The vote comes first: only its own leader has sent the image to the engine before.
            vote = ask(sheet.question, options.samples)
            singles = tuple(ask(sheet.question, 1) for _ in range(options.samples))
            requested.append(Requested(sheet.question, sheet.answer, singles, vote))
    return requested


def _collect(
    service: client.Client,
    requested: Iterable[Requested],
    *,
    comparisons: equality.Equality,
    samples: int,
) -> tuple[list[Way], list[float]]:
    """Wait for all jobs; return the ways, and the shares of the prompt that followers found in the cache."""
    one, full = Way("one sample"), Way(f"{samples} votes")
    waves, real = Way(f"the same {samples} in waves"), Way("waves, by the service")
    shares: list[float] = []
    for question in track(list(requested), "answers"):
        singles = [_spent(service.wait(job_id)) for job_id in question.singles]
        same = comparisons.of(None, account_id=uuid.uuid4(), question=question.question)
        whole = _vote(singles, same)
        voted = service.wait(question.vote)
        for way, spent in (
            (full, whole),
            (waves, _waves(singles, same)),
            (real, _spent(voted)),
        ):
            way.add(spent, truth=question.truth, full=whole.answer)
        for single in singles:
            one.add(single, truth=question.truth, full=whole.answer)
        shares += _shares(service.trace(question.vote))
    return [one, full, waves, real], shares


def _spent(job: client.Json) -> Spent:
    """Return the cost and answer of a job; a job without an answer has none, however it ended."""
    usage = job["usage"] or {"output_tokens": 0}
    return Spent(
        answer=job["answer"]["text"] if job["answer"] else None,
        samples=job["votes"]["begun"] if job["votes"] else 1,
        output_tokens=usage["output_tokens"],
    )


def _vote(singles: Sequence[Spent], same: Callable[[str, str], bool]) -> Spent:
    """Return the result of a vote of ``singles``."""
    ranked = votes.classes({vote: one.answer for vote, one in enumerate(singles)}, same)
    return Spent(
        answer=ranked[0].text if ranked else None,
        samples=len(singles),
        output_tokens=sum(one.output_tokens for one in singles),
    )


def _waves(singles: Sequence[Spent], same: Callable[[str, str], bool]) -> Spent:
    """Return the result of a vote of ``singles`` in waves, without the waves after the decision."""
    there = 0
    for size in votes.waves(len(singles)):
        there += size
        answers = {vote: one.answer for vote, one in enumerate(singles[:there])}
        if votes.decided(votes.classes(answers, same), cast=answers, requested=len(singles)):
            break
    return _vote(singles[:there], same)


def _shares(trace: client.Json) -> list[float]:
    """Return the share of its prompt that each follower found in the cache."""
    return [
        (sample["usage"]["cached_tokens"] or 0) / sample["usage"]["input_tokens"]
        for sample in trace["generations"]
        if sample["index"] and sample["continues"] is None and sample["usage"]
        if sample["usage"]["input_tokens"]
    ]


if __name__ == "__main__":
    main()
