"""How the terminal shows a job: its text as it grows, its result, its votes and its usage."""

import sys

import typer
from rich.cells import cell_len

from cli import client, output
from core import escapes
from jobs.lifecycle import Status


def follow(service: client.Client, job_id: str, *, people: bool) -> output.Json:
    """Show a job's trace as it grows, or its events as JSON lines; return the finished job."""
    live = LiveText()
    job: output.Json = {}
    for event in service.follow(job_id):
        if event["type"] == "job.finished":
            job = event["job"]
        elif people:
            live.show(event)
        else:
            output.json_line(event)
    if people:
        live.end()
    return job


def show(job: output.Json, *, people: bool) -> None:
    """Print a job; exit with code 1 if it finished without success."""
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
    """Prints the text of a job's first sample as it grows, and findings. A new attempt starts over.

    Every line of the text, also a wrapped one, starts with a bar: none can imitate a line of this command.
    """

    def __init__(self) -> None:
        self._width = max(output.width() or sys.maxsize, output.NARROWEST)
        #: Width of the current line in cells; None before its first character.
        self._column: int | None = None
        #: Text whose display depends on the next character.
        self._held = ""
        self._last = ""
        self._shown = False

    def show(self, event: output.Json) -> None:
        """Print the text or the finding of an event."""
        if event["type"] == "attempt.restarted" and self._shown:
            self._break()
            output.note(f"(attempt {event['attempt']} starts over)")
        elif event["type"] == "finding":
            self._break()
            output.note(f"({finding(event['finding'])})")
        elif event["type"] == "trace.delta" and event["generation"] == 0:
            self._grow(str(event["delta"]))
            self._shown = True

    def end(self) -> None:
        """End the last line."""
        self._break()

    def _break(self) -> None:
        if self._held:
            self._write(escapes.visible(self._held, before=self._last))
        if self._column is not None:
            typer.echo()
        self._column, self._held, self._last = None, "", ""

    def _grow(self, delta: str) -> None:
        text = self._held + delta
        ready = text.rstrip("".join(escapes.UNDECIDED))
        self._held = text[len(ready) :]
        self._write(escapes.visible(ready, before=self._last))
        self._last = ready[-1:] or self._last
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
