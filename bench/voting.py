"""The benefit of voting and the savings of waves: tiny-qvq with sampling, through the whole service.

    python -m bench.voting [--n 200] [--seed 1] [--samples 5] [--temperature 1.3] [--url … --api-key …]

The benchmark submits each question of the model card's exam several times as jobs of one sample, which is the full
vote, and once as a job with the same number of ``samples``. The jobs of one sample give three rows: one sample; the
vote of all samples; the same samples in waves, with each wave counted completely, so that only the waves make a
difference. The last row is the service's own vote with other samples. Without ``--url`` the benchmark starts its own
service with the real engine.
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
    """The cost of one question in one way."""

    answer: str | None
    samples: float
    output_tokens: float


@dataclass
class Way:
    """One way to get answers, over all questions."""

    name: str
    correct: int = 0
    total: int = 0
    same: int = 0
    spent: list[Spent] = field(default_factory=list)

    def add(self, spent: Spent, *, truth: str, full: str | None) -> None:
        """Count the result of one question, and compare it with the truth and the answer of the full vote."""
        self.total += 1
        self.correct += spent.answer == truth
        self.same += spent.answer == full
        self.spent.append(spent)

    def row(self) -> list[str]:
        """Return the table row of the way."""
        mean = statistics.fmean
        return [
            self.name,
            f"{self.correct / self.total:.1%}",
            f"{self.same} of {self.total}",
            f"{mean(cost.samples for cost in self.spent):.2f}",
            f"{mean(cost.output_tokens for cost in self.spent):.0f}",
        ]


@dataclass(frozen=True)
class Submitted:
    """The jobs of one question: single samples, and a vote."""

    truth: str
    singles: tuple[str, ...]
    vote: str


def main() -> None:
    """Run the exam in all ways and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=200, help="number of scenes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="seed of the scenes")
    parser.add_argument(
        "--samples", type=int, default=5, help="maximum number of samples of a vote"
    )
    parser.add_argument("--temperature", type=float, default=1.3)
    parser.add_argument(
        "--url", help="URL of a running service; without it, the benchmark starts one"
    )
    parser.add_argument(
        "--api-key", help="its API key; default: LONGLOOK_API_KEY, or the key in the home directory"
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
        questions = _submit(service, options)
        same = equality.Equality(sandbox, equality.shares(most_waiting=1)).of(
            None, account_id=uuid.uuid4()
        )
        ways, shares = _collect(service, questions, same=same, samples=options.samples)
        seconds = time.monotonic() - began
    figures.show(
        f"{options.n} scenes, seed {options.seed}, temperature {options.temperature:g}, {seconds:.0f} s",
        ("way", "correct", "as the full vote", "samples", "output tokens"),
        [way.row() for way in ways],
    )
    if shares:
        low = sum(share < 0.8 for share in shares)
        print(
            f"{len(shares)} followers found {statistics.fmean(shares):.0%} of their prompt in the cache, "
            f"{low} of them found less than 80 %."
        )


def _submit(service: client.Client, options: argparse.Namespace) -> list[Submitted]:
    """Submit all questions as single samples and as votes."""
    sampling = {"temperature": options.temperature, "top_p": 1.0, "deadline_seconds": 24 * 3600}
    result: list[Submitted] = []
    with tempfile.TemporaryDirectory(prefix="ll-voting-") as folder:
        submitted = Path(folder, "scene.png")
        for sheet in track(exam.sheets(options.n, options.seed), "submitting", total=options.n):
            sheet.image.save(submitted)

            def ask(question: str, samples: int) -> str:
                job = service.submit(
                    [submitted], question, options={**sampling, "samples": samples}
                )
                return str(job["id"])

            # The vote comes first, so that the engine knows the image only from the vote's own leader.
            vote = ask(sheet.question, options.samples)
            singles = tuple(ask(sheet.question, 1) for _ in range(options.samples))
            result.append(Submitted(sheet.answer, singles, vote))
    return result


def _collect(
    service: client.Client,
    questions: Iterable[Submitted],
    *,
    same: Callable[[str, str], bool],
    samples: int,
) -> tuple[list[Way], list[float]]:
    """Wait for all jobs; return the ways, and the cached shares of the followers' prompts."""
    single_way, full_way = Way("one sample"), Way(f"{samples} votes")
    waves, real = Way(f"the same {samples} votes in waves"), Way("a vote of the service")
    shares: list[float] = []
    for question in track(list(questions), "answers"):
        singles = [_spent(service.wait(job_id)) for job_id in question.singles]
        whole = _vote(singles, same)
        voted = service.wait(question.vote)
        for way, spent in (
            (full_way, whole),
            (waves, _waves(singles, same)),
            (real, _spent(voted)),
        ):
            way.add(spent, truth=question.truth, full=whole.answer)
        for single in singles:
            single_way.add(single, truth=question.truth, full=whole.answer)
        shares += _shares(service.trace(question.vote))
    return [single_way, full_way, waves, real], shares


def _spent(job: client.Json) -> Spent:
    """Return the cost and the answer of a job; a job that ended without an answer gives None."""
    usage = job["usage"] or {"output_tokens": 0}
    return Spent(
        answer=job["answer"]["text"] if job["answer"] else None,
        samples=job["votes"]["begun"] if job["votes"] else 1,
        output_tokens=usage["output_tokens"],
    )


def _vote(singles: Sequence[Spent], same: Callable[[str, str], bool]) -> Spent:
    """Return the result of the vote of ``singles``."""
    ranked = votes.classes({vote: single.answer for vote, single in enumerate(singles)}, same)
    return Spent(
        answer=ranked[0].text if ranked else None,
        samples=len(singles),
        output_tokens=sum(single.output_tokens for single in singles),
    )


def _waves(singles: Sequence[Spent], same: Callable[[str, str], bool]) -> Spent:
    """Return the result of the vote of ``singles`` in waves, without the waves after the decision."""
    count = 0
    for size in votes.waves(len(singles)):
        count += size
        answers = {vote: single.answer for vote, single in enumerate(singles[:count])}
        if votes.decided(votes.classes(answers, same), cast=answers, requested=len(singles)):
            break
    return _vote(singles[:count], same)


def _shares(trace: client.Json) -> list[float]:
    """Return the cached share of each follower's prompt."""
    return [
        (sample["usage"]["cached_tokens"] or 0) / sample["usage"]["input_tokens"]
        for sample in trace["generations"]
        if sample["index"] and sample["continues"] is None and sample["usage"]
        if sample["usage"]["input_tokens"]
    ]


if __name__ == "__main__":
    main()
