"""Answers and alarms on the outputs of real models: what Longlook and eight other extractors find in them.

    python -m bench.answers [FOLDER_OR_FILE ...] [--most N] [--seed 1] [--chunk 4] [--list N]

Each line of a file is a JSON object: ``text``, the whole output; ``finish``, ``stop`` or ``length``; ``expected``, the
right answer, null if no answer is right, ``refusal`` if the model declines. Optional: ``set``, ``question``, ``format``
(``choice``: the letter decides), ``options``, their number. A line without ``expected`` is for the guards only. The
default folder is ``bench/corpora``.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import track

from bench import extractors, figures, judging
from bench.judging import Grade
from core.profiles import Sampling
from jobs import engine
from jobs.answers import extraction, model_refusals
from worker.guards.budget import BudgetGuard
from worker.guards.chain import Reasoning
from worker.guards.language import LanguageGuard
from worker.guards.loop import LoopGuard
from worker.guards.trace import FORCED_TOKENS, GuardedTrace, Verdict

FOLDER = Path(__file__).with_name("corpora")
#: The options of a choice that does not say how many it has.
_OPTIONS = 5
#: Characters of a token, about.
_TOKEN = 4
#: Characters of the pieces of a text that are compared with what comes before them.
_PIECE = 30
#: A text whose last characters occur this often is a loop.
_END, _COPIES = 200, 3
_SHOWN = 60


@dataclass(frozen=True)
class Output:
    """One output of a model.

    Attributes:
        place: file and line.
        group: the set that it belongs to.
        question: what the model was asked; empty if unknown.
        expected: the right answer; None if no answer is right.
        known: whether ``expected`` says anything.
        letters: those of the options, if one of them is the answer; else empty.
        ended: whether the model ended its text, and not the limit of its tokens.
    """

    place: str
    group: str
    text: str = field(repr=False)
    question: str
    expected: str | None
    known: bool
    letters: str
    ended: bool

    @property
    def finish(self) -> str:
        """The finish reason."""
        return "stop" if self.ended else "length"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="*", type=Path, help="folders or files of outputs")
    parser.add_argument("--most", type=int, help="the most outputs of a set, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=4, help="characters of a chunk")
    parser.add_argument("--list", type=int, default=0, help="the most outputs to name in a list")
    options = parser.parse_args(arguments)
    paths = options.paths or [FOLDER]
    outputs = list(sampled(read(paths), most=options.most, seed=options.seed))
    if not outputs:
        print(f"There are no outputs in {', '.join(map(str, paths))}; see bench/README.md.")
        return
    tally = Tally.of([output for output in outputs if output.known])
    tally.show(most=options.list)
    Alarms.of(outputs, chunk=options.chunk).show(most=options.list)


def read(paths: Iterable[Path]) -> Iterator[Output]:
    """Yield the outputs of files, and of the files ``*.jsonl`` in folders."""
    for path in paths:
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path] if path.exists() else []
        for file in files:
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    yield _output(json.loads(line), file, number)


def _output(stored: Mapping[str, Any], file: Path, number: int) -> Output:
    return Output(
        place=f"{file.name}:{number}",
        group=stored.get("set") or file.stem,
        text=stored["text"],
        question=stored.get("question") or "",
        expected=stored.get("expected"),
        known="expected" in stored,
        letters=_letters(stored),
        ended=stored.get("finish", "stop") == "stop",
    )


def _letters(stored: Mapping[str, Any]) -> str:
    if stored.get("format") != "choice":
        return ""
    return string.ascii_uppercase[: stored.get("options", _OPTIONS)]


def sampled(outputs: Iterable[Output], *, most: int | None, seed: int) -> Iterator[Output]:
    """Yield at most ``most`` outputs of each set, in their order; the same ones for the same seed."""
    groups: dict[str, list[Output]] = defaultdict(list)
    for output in outputs:
        groups[output.group].append(output)
    for name, group in groups.items():
        if most is None or len(group) <= most:
            yield from group
        else:
            chosen = random.Random(f"{seed} {name}").sample(range(len(group)), most)
            yield from (group[index] for index in sorted(chosen))


# Answers.


def graded(output: Output) -> tuple[str, Grade, str | None]:
    """Return the rule by which Longlook finds its answer, the grade, and the answer."""
    answer = extraction.extract(output.text, ended=output.ended)
    text = None if answer is None else answer.text
    refused = answer is None and output.ended and model_refusals.refuses(output.text)
    grade = judging.grade(text, output.expected, choice=bool(output.letters), refused=refused)
    rule = "refusal" if refused else "none" if answer is None else answer.rule
    return rule, grade, text


def compared(output: Output) -> Iterator[tuple[str, Grade]]:
    """Yield the names of the other extractors that apply to ``output``, and their grades."""
    found = {name: extract(output.text) for name, extract in extractors.EXTRACTORS.items()}
    if output.letters:
        found |= {
            name: choose(output.text, output.letters) for name, choose in extractors.CHOICES.items()
        }
    for name, answer in found.items():
        yield (
            name,
            judging.grade(answer or None, output.expected, choice=bool(output.letters)),
        )


@dataclass
class Tally:
    """The grades of answers.

    Attributes:
        rules: those of Longlook, by set, finish reason, and rule.
        shares: those of all extractors, by set and name.
        missed: the place, grade, rule, expected and found answer of Longlook's answers that are not right.
    """

    rules: dict[tuple[str, str, str], Counter[Grade]]
    shares: dict[str, dict[str, Counter[Grade]]]
    missed: list[tuple[str, Grade, str, str | None, str | None]]

    @classmethod
    def of(cls, outputs: Sequence[Output]) -> Tally:
        """Return the grades of ``outputs``."""
        tally = cls(defaultdict(Counter), defaultdict(lambda: defaultdict(Counter)), [])
        for output in track(outputs, "answers"):
            rule, grade, found = graded(output)
            tally.rules[output.group, output.finish, rule][grade] += 1
            shares = tally.shares[output.group]
            shares["Longlook"][grade] += 1
            if grade is not Grade.RIGHT:
                tally.missed.append((output.place, grade, rule, output.expected, found))
            for name, other in compared(output):
                shares[name][other] += 1
        return tally

    def show(self, *, most: int) -> None:
        """Print the tables, and at most ``most`` answers that are not right."""
        figures.show(
            "Longlook's answers by set, finish reason, and rule",
            ("set", "finish", "rule", "outputs", *Grade),
            [
                [*key, f"{grades.total():,}", *(f"{grades[grade]:,}" for grade in Grade)]
                for key, grades in self.rules.items()
            ],
        )
        names = ("Longlook", *extractors.EXTRACTORS, *extractors.CHOICES)
        figures.show(
            "Right/wrong/none, % of the outputs; markup left counts as right",
            ("set, outputs", *names),
            [
                [
                    f"{group}, {row['Longlook'].total():,}",
                    *(_percent(row[name]) for name in names),
                ]
                for group, row in self.shares.items()
            ],
        )
        if most and self.missed:
            figures.show(
                f"{min(most, len(self.missed))} of {len(self.missed)} that are not right",
                ("place", "grade", "rule", "expected", "found"),
                [
                    [place, grade, rule, _short(expected), _short(found)]
                    for place, grade, rule, expected, found in self.missed[:most]
                ],
            )


def _percent(grades: Counter[Grade]) -> str:
    """Return the shares right, wrong, none."""
    if not grades.total():
        return "-"
    counts = (grades[Grade.RIGHT] + grades[Grade.MARKUP], grades[Grade.WRONG], grades[Grade.NONE])
    return "/".join(f"{100 * count / grades.total():.0f}" for count in counts)


def _short(text: str | None) -> str:
    if text is None:
        return "-"
    line = json.dumps(text, ensure_ascii=False)
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


# Alarms.


@dataclass
class Found:
    """What the guards found in the outputs of one set.

    Attributes:
        tokens: those of all outputs.
        saved: those that come after a finding.
        kinds: the findings by kind.
        doubtful: findings after which the output says something new, so that it may not be a loop.
        missed: outputs that end in a loop and that the guards read to the end.
    """

    outputs: int = 0
    tokens: int = 0
    saved: int = 0
    doubtful: int = 0
    missed: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass
class Alarms:
    """The findings of the guards.

    Attributes:
        chunk: characters of a chunk.
        groups: the findings by set.
        places: the new pieces after a finding, its place, kind, start, end, and last words.
    """

    chunk: int
    groups: dict[str, Found]
    places: list[tuple[int, str, str, int, int, str]]

    @classmethod
    def of(cls, outputs: Sequence[Output], *, chunk: int) -> Alarms:
        """Return the findings in ``outputs``, which the guards read in chunks of ``chunk`` characters."""
        alarms = cls(chunk, defaultdict(Found), [])
        for output in track(outputs, "guards"):
            verdict, saved = alarm(output, chunk=chunk)
            found = alarms.groups[output.group]
            found.outputs += 1
            found.tokens += _tokens(len(output.text))
            found.saved += saved
            found.missed += not saved and _ends_in_loop(output.text)
            if verdict is not None:
                finding = verdict.finding
                new = _new_pieces(output.text, finding.end)
                found.kinds[finding.kind] += 1
                found.doubtful += new > 0
                words = output.text[max(0, finding.end - _SHOWN) : finding.end]
                alarms.places.append(
                    (new, output.place, finding.kind, finding.start, finding.end, words)
                )
        return alarms

    def show(self, *, most: int) -> None:
        """Print the table, and at most ``most`` findings."""
        kinds = sorted({kind for found in self.groups.values() for kind in found.kinds})
        figures.show(
            f"Findings of the guards, in chunks of {self.chunk} characters; a token is {_TOKEN} characters",
            ("set", "outputs", *kinds, "doubtful", "missed", "tokens", "tokens saved"),
            [
                [
                    group,
                    f"{found.outputs:,}",
                    *(f"{found.kinds[kind]:,}" for kind in kinds),
                    f"{found.doubtful:,}",
                    f"{found.missed:,}",
                    f"{found.tokens:,}",
                    f"{found.saved:,}",
                ]
                for group, found in self.groups.items()
            ],
        )
        if most and self.places:
            figures.show(
                f"{min(most, len(self.places))} of {len(self.places)} findings, the doubtful ones first",
                ("new pieces", "place", "kind", "from", "to", "its last words"),
                [
                    [str(new), place, kind, str(start), str(end), _short(words)]
                    for new, place, kind, start, end, words in sorted(
                        self.places, key=lambda found: -found[0]
                    )[:most]
                ],
            )


def _new_pieces(text: str, end: int) -> int:
    """Return how many pieces of ``text`` after ``end`` do not occur before it."""
    before = text[:end]
    last = len(text) - _PIECE
    return sum(text[at : at + _PIECE] not in before for at in range(end, last + 1, _PIECE))


def _tokens(characters: int) -> int:
    return -(-characters // _TOKEN)


def _ends_in_loop(text: str) -> bool:
    return len(text) >= _END and text.count(text[-_END:]) >= _COPIES


def alarm(output: Output, *, chunk: int) -> tuple[Verdict | None, int]:
    """Feed an output to the guards, in chunks of ``chunk`` characters; return their verdict and the unread tokens."""
    text = output.text
    tokens = _tokens(len(text))
    request = engine.GenerationRequest(
        rid="0" * 32,
        model="",
        system="",
        images=(),
        question=output.question,
        sampling=Sampling(temperature=1.0, top_p=1.0),
        max_output_tokens=tokens,
        salt="",
    )
    trace = GuardedTrace(
        question=output.question, number=0, limit=tokens, budget=tokens + FORCED_TOKENS
    )
    reasoning = Reasoning([LoopGuard(), BudgetGuard(), LanguageGuard()], trace, request)
    for start in range(0, len(text), chunk):
        verdict = reasoning.see(text[start : start + chunk])
        if verdict is not None:
            return verdict, tokens - _tokens(min(start + chunk, len(text)))
    return reasoning.end(text, output.finish), 0


if __name__ == "__main__":
    main()
