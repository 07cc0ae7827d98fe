"""How the terminal shows a job: its text as it grows, its result, its votes and its usage."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import typer
from rich.cells import cell_len

from cli import client, formats, output
from core import escapes
from jobs.lifecycle import Status


def show(job: output.Json, *, people: bool) -> None:
    """Print a job; exit with code 1 if it finished without success."""
    if not people:
        output.as_json(job)
    elif client.finished(job):
        result(job)
    else:
        output.line(f"{job['id']} is {state(job)}")
        warnings(job)
        output.line(f"longlook jobs show {job['id']}")
    if client.finished(job) and job["status"] != Status.SUCCEEDED:
        raise typer.Exit(output.Exit.FAILED)


_COLUMNS: Final = (
    "id",
    "status",
    "age",
    "took",
    "tries",
    "account",
    "priority",
    "created",
    "reruns",
    "answer",
    "question",
)
_WIDE: Final = ("account", "priority", "created", "reruns")
ATTEMPTS: Final = (
    "attempt",
    "outcome",
    "error",
    "worker",
    "engine",
    "took",
    "tokens",
    "claimed",
)
_MAX_CELL: Final = 60
_MINUTE: Final = 60
_REMEDIES: Final = {
    "deadline_exceeded": "submit with a later deadline, or add workers: `longlook queue`",
    "worker_lost": "run it again; `longlook jobs attempts ID` names the workers",
    "engine_fault": "see `longlook queue` and the engine's log, then run it again",
}


def table(jobs: Sequence[output.Json]) -> None:
    """Print jobs as a table; operators, who see several accounts, see the account of each."""
    several = len({job.get("account") for job in jobs}) > 1
    wide = _WIDE[1:] if several and not output.narrow() else _WIDE
    output.table(_COLUMNS, map(_row, jobs), whole=5, wide=wide, ids=("id",))


def _row(job: output.Json) -> tuple[str, ...]:
    timings = job.get("timings") or {}
    return (
        str(job["id"]),
        str(job["status"]),
        age(job["created_at"]),
        duration(timings.get("run_seconds")),
        str(job["attempt"]),
        str(job.get("account") or ""),
        str(job.get("priority") or ""),
        str(job["created_at"]),
        str(len(job.get("reruns") or ())),
        _short(_outcome(job)),
        _short(str(job["question"] or "")),
    )


def age(created_at: str) -> str:
    """Return how long ago a time was, for example ``3m``."""
    return duration((datetime.now(UTC) - datetime.fromisoformat(created_at)).total_seconds())


def duration(seconds: float | None) -> str:
    """Return a duration in its largest unit, for example ``41s``, ``3m``, ``5h`` or ``12d``."""
    if seconds is None:
        return ""
    for unit, length, most in (("s", 1, 100), ("m", _MINUTE, 100), ("h", _MINUTE**2, 48)):
        if seconds < length * most:
            return f"{max(0, seconds) / length:.0f}{unit}"
    return f"{seconds / (24 * _MINUTE**2):.0f}d"


def attempt_row(attempt: output.Json) -> tuple[str, ...]:
    """Return the table row of an attempt."""
    usages = [one["usage"] for one in attempt["generations"] if one.get("usage")]
    tokens = sum(one["output_tokens"] for one in usages)
    end = attempt["ended_at"]
    seconds = (
        (
            datetime.fromisoformat(end) - datetime.fromisoformat(attempt["claimed_at"])
        ).total_seconds()
        if end
        else None
    )
    return (
        str(attempt["number"]),
        str(attempt["outcome"] or "running"),
        str((attempt["error"] or {}).get("code") or ""),
        str(attempt["worker"]),
        str(attempt["engine"] or ""),
        duration(seconds),
        str(tokens or ""),
        str(attempt["claimed_at"]),
    )


def facts(job: output.Json, attempts: Sequence[output.Json]) -> None:
    """Print what is known of a job besides its result."""
    error, queue, timings = job.get("error") or {}, job.get("queue"), job.get("timings") or {}
    named = {name: job.get(name) for name in _FACTS}
    named["place"] = place(queue) if queue else None
    named["progress"] = (
        f"{job['progress']['output_tokens']} tokens so far" if job.get("progress") else None
    )
    if error:
        named["retryable"] = "yes" if error.get("retryable") else "no"
    named["timings"] = ", ".join(
        f"{name.removesuffix('_seconds').replace('_', ' ')} {value:.1f}"
        for name, value in timings.items()
        if value is not None
    )
    named["metadata"] = output.json_text(job["metadata"]) if job.get("metadata") else None
    named["format"] = (
        output.json_text(form)
        if (form := (job.get("options") or {}).get("answer_format"))
        else None
    )
    for number, image in enumerate(job.get("images") or (), 1):
        named[f"image {number}"] = f"{image['id']} {image['width']}x{image['height']}"
    for attempt in attempts:
        order, outcome, code, worker, engine, *_ = attempt_row(attempt)
        named[f"attempt {order}"] = " ".join(
            part
            for part in (outcome, code, f"by {worker}", f"on {engine}" if engine else "")
            if part
        )
    for name, value in named.items():
        if value:
            output.field(f"{name:<12} ", str(value))


_FACTS: Final = (
    "id",
    "status",
    "question",
    "account",
    "model",
    "priority",
    "attempt",
    "crashes",
    "failures",
    "group",
    "rerun_of",
    "created_at",
    "started_at",
    "finished_at",
)


def state(job: output.Json) -> str:
    """Return the status of a job, its place in the queue, and its tokens so far, as text."""
    queue, progress = job.get("queue") or {}, job.get("progress") or {}
    words = [str(job["status"])]
    if queue.get("position"):
        words.append(place(queue))
    if queue.get("paused"):
        words.append("its part of the queue is paused")
    if progress:
        words.append(f"{progress['output_tokens']} tokens so far")
    samples = (job.get("options") or {}).get("samples") or 1
    if progress and samples > 1:
        words.append(f"{progress['samples_done']} of {samples} samples done")
    return ", ".join(words)


def place(queue: output.Json) -> str:
    """Return the place in the queue as text, for example ``position 3, starts in about 40s``."""
    more = " or later" if queue.get("at_least") else ""
    eta = queue.get("eta_seconds")
    starts = "" if eta is None else f", starts in about {duration(eta)}"
    return f"position {queue['position']}{more}{starts}"


def remedy(job: output.Json) -> str:
    """Return what to do about a failed job, or nothing."""
    error = job.get("error")
    if not error:
        return ""
    again = (
        "run it again" if error.get("retryable") else "change the job: the same input fails again"
    )
    return _REMEDIES.get(str(error["code"]), again).replace("ID", str(job["id"]))


def _outcome(job: output.Json) -> str:
    """Return the answer, or the error code."""
    if job.get("answer"):
        return str(job["answer"]["text"])
    return str(job["error"]["code"]) if job.get("error") else ""


def _short(text: str) -> str:
    """Return ``text`` on one line; in the default format, cut to the width of a table cell."""
    flat = output.inline(" ".join(text.split()))
    if formats.chosen() is not formats.Format.TABLE:
        return flat
    return flat if len(flat) <= _MAX_CELL else f"{flat[: _MAX_CELL - 1]}…"


#: The columns of an exported job; a value that is a list or an object is JSON.
FIELDS: Final = (
    "id",
    "account",
    "status",
    "model",
    "question",
    "images",
    "answer",
    "votes",
    "findings",
    "finish_reason",
    "error",
    "usage",
    "attempt",
    "crashes",
    "failures",
    "priority",
    "options",
    "metadata",
    "group",
    "rerun_of",
    "reruns",
    "data_removed",
    "removed",
    "created_at",
    "deadline_at",
    "started_at",
    "first_token_at",
    "cancel_requested_at",
    "finished_at",
    "timings",
)
#: A spreadsheet evaluates a cell that begins like this.
_FORMULA: Final = ("=", "+", "-", "@")


def cells(job: output.Json) -> list[str]:
    """Return the values of :data:`FIELDS`, with control characters escaped; none is a formula to a spreadsheet."""
    texts = []
    for name in FIELDS:
        value = job.get(name)
        shown = (
            "" if value is None else value if isinstance(value, str) else output.json_text(value)
        )
        texts.append(output.inline(f"'{shown}" if shown.startswith(_FORMULA) else shown))
    return texts


class LiveText:
    """Prints the text of a job's samples as it grows, and findings. A new attempt starts over.

    Every line of the text, also a wrapped one, starts with a bar: none can imitate a line of this command. The text
    of one sample grows word by word; of several, each line starts with the number of its sample and is printed once
    it is complete.

    Args:
        width: of the terminal; None: lines are not wrapped.
        samples: of the job.
    """

    def __init__(self, width: int | None = None, *, samples: int = 1) -> None:
        self._width = max(width or sys.maxsize, output.NARROWEST)
        self._several = samples > 1
        self._samples: dict[int, _SampleText] = {}
        self.shown = False

    def show(self, event: output.Json) -> None:
        """Print the text or the finding of an event."""
        if event["type"] == "attempt.restarted" and self.shown:
            self.end()
            output.note(f"(attempt {event['attempt']} starts over)")
        elif event["type"] == "finding":
            self.end()
            output.note(f"({finding(event['finding'])})")
        elif event["type"] == "trace.delta" and (self._several or event["generation"] == 0):
            sample = self._sample(int(event["generation"]))
            sample.add(str(event["delta"]))
            self._print(sample.take(whole_lines=self._several))
            self.shown = True

    @property
    def in_line(self) -> bool:
        """Whether text was printed since :meth:`end`, so that the last line may have no end yet."""
        return bool(self._samples)

    def end(self) -> None:
        """End the last line of each sample."""
        for number in sorted(self._samples):
            sample = self._samples[number]
            sample.end()
            self._print(sample.take())
        self._samples = {}

    def _sample(self, number: int) -> _SampleText:
        if number not in self._samples:
            bar = f"{output.BAR.rstrip()}{number}{output.BAR}" if self._several else output.BAR
            self._samples[number] = _SampleText(bar, self._width)
        return self._samples[number]

    def _print(self, text: str) -> None:
        if text:
            typer.secho(text, nl=False, dim=True)
            sys.stdout.flush()


class _SampleText:
    """The lines of a sample's text, wrapped at spaces, each after ``bar``."""

    def __init__(self, bar: str, width: int) -> None:
        self._bar, self._width = bar, max(width, cell_len(bar) + output.NARROWEST // 2)
        #: Width of the current line in cells; None before its first character.
        self._column: int | None = None
        self._word = ""
        #: Text whose display depends on the next character.
        self._held = ""
        self._last = ""
        self._ready = ""

    def add(self, delta: str) -> None:
        """Add text; the last word is not ready before the next one begins."""
        text = self._held + delta
        ready = text.rstrip("".join(escapes.UNDECIDED))
        self._held = text[len(ready) :]
        self._layout(escapes.visible(ready, before=self._last))
        self._last = ready[-1:] or self._last

    def end(self) -> None:
        """End the last line."""
        self._layout(escapes.visible(self._held, before=self._last))
        self._end_word()
        if self._column is not None:
            self._break()
        self._held = self._last = ""

    def take(self, *, whole_lines: bool = False) -> str:
        """Return what is ready to be printed and was not returned before."""
        end = self._ready.rfind("\n") + 1 if whole_lines else len(self._ready)
        taken, self._ready = self._ready[:end], self._ready[end:]
        return taken

    def _layout(self, text: str) -> None:
        for char in text.replace("\t", output.TAB):
            if char == "\n":
                self._end_word()
                if self._column is None:
                    self._ready += self._bar.rstrip()
                self._break()
            elif char == " ":
                self._end_word()
                self._space()
            elif cell_len(char) > 1:
                # Scripts with wide characters have no spaces: each character may end a line.
                self._end_word()
                self._put(char)
            else:
                self._word += char

    def _end_word(self) -> None:
        word, self._word = self._word, ""
        if self._column is not None and self._column + cell_len(word) > self._width:
            self._break()
        for char in word:
            self._put(char)

    def _space(self) -> None:
        if self._column is not None and self._column + 1 > self._width:
            self._break()
        else:
            self._put(" ")

    def _put(self, char: str) -> None:
        if self._column is not None and self._column + cell_len(char) > self._width:
            self._break()
        if self._column is None:
            self._ready += self._bar
            self._column = cell_len(self._bar)
        self._ready += char
        self._column += cell_len(char)

    def _break(self) -> None:
        self._ready += "\n"
        self._column = None


def result(job: output.Json) -> None:
    """Print the answer or the error of a finished job, and its usage."""
    error, answer = job.get("error"), job.get("answer")
    if error:
        text = f"{error['message']} ({error['code']})"
        output.field(f"{output.inline(str(job['status']))}: ", text, style=typer.colors.RED)
    elif answer:
        output.field("answer: ", str(answer["text"]), style=typer.colors.GREEN)
        if shown := value(job):
            output.field("value: ", shown)
        if job.get("votes"):
            output.field("votes: ", votes(job["votes"]))
    else:
        output.line(str(job["status"]))
    for entry in job.get("findings") or ():
        output.line(f"finding: {finding(entry)}")
    if job.get("usage"):
        output.line(usage(job["usage"]))


def warnings(accepted: output.Json) -> None:
    """Print the warnings in the response to a submission."""
    for warning in accepted.get("warnings") or ():
        output.note(output.printable(f"warning: {warning['message']} ({warning['code']})"))


def finding(entry: output.Json) -> str:
    """Return a guard's finding as text, for example ``loop, forced, 7012 tokens saved``."""
    words = [str(entry["kind"]), str(entry["action"])]
    if entry.get("tokens_saved"):
        words.append(f"{entry['tokens_saved']} tokens saved")
    return output.inline(", ".join(words))


def value(job: output.Json) -> str:
    """Return an answer's value as JSON, or nothing if it equals the text or no format was requested."""
    answer_format = (job.get("options") or {}).get("answer_format") or {}
    if answer_format.get("type", "free") == "free" or not job.get("answer"):
        return ""
    text = output.json_text(job["answer"].get("value"))
    return "" if text == job["answer"]["text"] else text


def votes(count: output.Json) -> str:
    """Return the votes as text, for example ``3 of 4 samples agree; 7: 1 (5 requested)``."""
    winner, *others = [
        (output.inline(answer["text"]), len(answer["generations"])) for answer in count["classes"]
    ]
    words = [f"{winner[1]} of {count['counted']} samples agree"]
    words += [f"{text}: {samples}" for text, samples in others]
    if count["abstained"]:
        words.append(f"without an answer: {len(count['abstained'])}")
    return f"{'; '.join(words)} ({count['requested']} requested)"


def usage(counts: output.Json) -> str:
    """Return the usage of a job as text, for example ``182 tokens in, 170 of them cached (93 %)``."""
    input_tokens, cached = int(counts["input_tokens"]), int(counts.get("cached_tokens") or 0)
    words = [f"{input_tokens} tokens in"]
    if input_tokens:
        words.append(f"{cached} of them cached ({cached / input_tokens:.0%})")
    words.append(f"{counts['output_tokens']} tokens out")
    if counts.get("engine_seconds"):
        words.append(f"{counts['engine_seconds']:.1f} s on the engine")
    return ", ".join(words)
