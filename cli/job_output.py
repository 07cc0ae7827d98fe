"""How the terminal shows a job: its text as it grows, its result, its votes and its usage."""

from __future__ import annotations

import sys

import typer
from rich.cells import cell_len
from rich.console import Console

from cli import client, output
from core import escapes
from jobs.lifecycle import Status


def follow(service: client.Client, job_id: str, *, people: bool) -> output.Json:
    """Show a job's trace as it grows (a line of JSON for each event in a pipe); return the finished job."""
    growth = LiveText()
    job: output.Json = {}
    for event in service.follow(job_id):
        if event["type"] == "job.finished":
            job = event["job"]
        elif people:
            growth.show(event)
        else:
            output.json_line(event)
    if people:
        growth.end()
    return job


def show(job: output.Json, *, people: bool) -> None:
    """Print the job as it is now; a job that did not succeed ends the command with an exit code of its own."""
    if not people:
        output.as_json(job)
    elif client.finished(job):
        result(job)
    else:
        queue = job.get("queue") or {}
        more = " or later" if queue.get("at_least") else ""
        place = f", position {queue['position']}{more}" if queue.get("position") else ""
        output.line(f"{job['id']} is {job['status']}{place}")
        warnings(job)
        output.line(f"longlook jobs show {job['id']}")
    if client.finished(job) and job["status"] != Status.SUCCEEDED:
        raise typer.Exit(output.Exit.FAILED)


class LiveText:
    """Prints a job's text as it grows, of several samples the first, and findings. A new attempt starts it again.

    Each line of the text stands behind a bar, also where it is folded: no line of it looks like one of ours.
    """

    def __init__(self) -> None:
        self._width = max(Console().width, output.NARROWEST)
        #: Cells of the line that is being written, None before its first.
        self._column: int | None = None
        #: The end of what came, which waits for what follows.
        self._held = ""
        self._last = ""
        self._shown = False

    def show(self, event: output.Json) -> None:
        """Print what an event of the job adds."""
        if event["type"] == "attempt.restarted" and self._shown:
            self._break()
            output.note(f"(attempt {event['attempt']} starts again)")
        elif event["type"] == "finding":
            self._break()
            output.note(f"({finding(event['finding'])})")
        elif event["type"] == "trace.delta" and event["sample"] == 0:
            self._grow(str(event["delta"]))
            self._shown = True

    def end(self) -> None:
        """End the line that the text ended in."""
        self._break()

    def _break(self) -> None:
        if self._held:
            self._write(escapes.visible(self._held, before=self._last))
        if self._column is not None:
            typer.echo()
        self._column, self._held, self._last = None, "", ""

    def _grow(self, delta: str) -> None:
        text = self._held + delta
        stored = text.rstrip("".join(escapes.UNDECIDED))
        self._held = text[len(stored) :]
        self._write(escapes.visible(stored, before=self._last))
        self._last = stored[-1:] or self._last
        sys.stdout.flush()

    def _write(self, text: str) -> None:
        pieces: list[str] = []
        for char in text.replace("\t", output.TAB):
            if char == "\n":
                pieces.append(output.BAR.rstrip() + "\n" if self._column is None else "\n")
                self._column = None
                continue
            width = cell_len(char)
            if self._column is not None and self._column + width > self._width:
                pieces.append("\n")
                self._column = None
            if self._column is None:
                pieces.append(output.BAR)
                self._column = cell_len(output.BAR)
            pieces.append(char)
            self._column += width
        typer.secho("".join(pieces), nl=False, dim=True)


def result(job: output.Json) -> None:
    """Print how a finished job came out: the answer or the error, and what it took."""
    error, answer = job.get("error"), job.get("answer")
    if error:
        text = f"{error['message']} ({error['code']})"
        output.field(f"{output.inline(str(job['status']))}: ", text, style=typer.colors.RED)
    elif answer:
        output.field("answer: ", str(answer["text"]), style=typer.colors.GREEN)
        if reported := value(job):
            output.field("value: ", reported)
        if job.get("votes"):
            output.field("votes: ", votes(job["votes"]))
    else:
        output.line(str(job["status"]))
    for found in job.get("findings") or ():
        output.line(f"found: {finding(found)}")
    if job.get("usage"):
        output.line(usage(job["usage"]))


def warnings(accepted: output.Json) -> None:
    """Print what the answer to a submission warns of, if anything."""
    for warning in accepted.get("warnings") or ():
        output.note(output.printable(f"warning: {warning['message']} ({warning['code']})"))


def finding(found: output.Json) -> str:
    """Return what a guard found in a few words, for example ``loop, forced, 7012 tokens saved``."""
    words = [str(found["kind"]), str(found["action"])]
    if found.get("tokens_saved"):
        words.append(f"{found['tokens_saved']} tokens saved")
    return output.inline(", ".join(words))


def value(job: output.Json) -> str:
    """Return what an answer's value says beyond its text, as JSON; nothing when none was asked for."""
    wanted = (job.get("options") or {}).get("answer_format") or {}
    if wanted.get("type", "free") == "free" or not job.get("answer"):
        return ""
    plain = output.json_text(job["answer"].get("value"))
    return "" if plain == job["answer"]["text"] else plain


def votes(reported: output.Json) -> str:
    """Return a sentence on how samples voted, for example ``3 of 4 samples say so; 7: 1 (5 asked for)``."""
    winner, *others = [
        (output.inline(one["text"]), len(one["samples"])) for one in reported["classes"]
    ]
    words = [f"{winner[1]} of {reported['counted']} samples say so"]
    words += [f"{text}: {count}" for text, count in others]
    if reported["abstained"]:
        words.append(f"without an answer: {len(reported['abstained'])}")
    return f"{'; '.join(words)} ({reported['requested']} asked for)"


def usage(counts: output.Json) -> str:
    """Return a sentence on the tokens of a job, for example ``182 tokens in, 170 of them cached (93 %)``."""
    reported, cached = int(counts["input_tokens"]), int(counts.get("cached_tokens") or 0)
    words = [f"{reported} tokens in"]
    if reported:
        words.append(f"{cached} of them cached ({cached / reported:.0%})")
    words.append(f"{counts['output_tokens']} tokens out")
    if counts.get("engine_seconds"):
        words.append(f"{counts['engine_seconds']:.1f} s on the engine")
    return ", ".join(words)
