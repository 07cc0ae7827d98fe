"""The run of an evaluation: its options, how far it is, and its batch, from the upload of the images to the jobs."""

import contextlib
import fcntl
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from cli import client, output, tables
from cli.evaluation import dataset
from cli.evaluation.dataset import Item
from core import errors

_STATE: Final = "state.json"
_LOCK: Final = "lock"
#: Pause between two requests for the state of the batch.
_POLL_SECONDS: Final = 2.0
#: How often in a row the service may fail to answer while the batch runs: it may be restarted for a few minutes.
_MISSES: Final = 150
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
#: The metadata of the jobs: the run, and the line of the data set.
_RUN, _LINE = "eval", "eval_line"
_PAGE: Final = 100


@dataclass(frozen=True)
class RunOptions:
    """The options of all jobs of an evaluation."""

    detail: str | None
    answer_format: dict[str, Any] | None
    samples: int | None
    max_output_tokens: int | None
    temperature: float | None
    guards: dict[str, bool]

    def stated(self) -> dict[str, Any]:
        """Return the options that were given."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    def format_of(self, item: Item) -> dict[str, Any] | None:
        """Return the answer format of a question."""
        if item.choices:
            return {"type": "choice", "options": list(item.choices)}
        return self.answer_format


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other evaluations out of it; the lock ends with this process at the latest.

    Raises:
        core.errors.InvalidRequest: another process uses the folder, or it cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    except OSError as error:
        raise _unusable(folder) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.InvalidRequest(
                f"Another `longlook eval` uses the folder {folder}. Wait for it, or choose another folder with --to.",
                param="to",
            ) from error
        except OSError:
            # Some network file systems have no locks.
            pass
        yield


def _unusable(folder: Path) -> errors.InvalidRequest:
    return errors.InvalidRequest(f"The folder {folder} cannot be used.", param="to")


@dataclass
class RunState:
    """How far an evaluation is, in the folder of its report, so that the same command continues it.

    The ids are written before and after the requests that create files and batches: an interruption between them
    creates nothing twice while the service has the file, because the Idempotency-Key of the batch is that of its file.
    One process at a time uses a folder.
    """

    path: Path
    fingerprint: str
    run: str
    file_id: str | None = None
    batch_id: str | None = None

    @classmethod
    def open(cls, folder: Path, *, fingerprint: str) -> "RunState":
        """Read the state of an earlier run with the same questions, options and service, or begin a new run.

        A run that has submitted nothing is replaced by that of other questions or options.

        Raises:
            core.errors.InvalidRequest: the folder cannot be used, or has another evaluation.
        """
        path = folder / _STATE
        try:
            known = cls(path, **json.loads(path.read_bytes())) if path.exists() else None
            if known is None or (known.fingerprint != fingerprint and known.file_id is None):
                known = cls(path, fingerprint, uuid.uuid4().hex)
                known.save()
        except (OSError, ValueError, TypeError) as error:
            raise _unusable(folder) from error
        if known.fingerprint != fingerprint:
            raise errors.InvalidRequest(
                f"The folder {folder} has another evaluation: other questions, options or another service. Choose "
                "another folder with --to.",
                param="to",
            )
        return known

    def save(self) -> None:
        """Write the state: a reader sees the old one or the new one."""
        fields = {name: value for name, value in vars(self).items() if name != "path"}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(fields), encoding="utf-8")
        new.replace(self.path)

    def forget(self) -> None:
        """Remove the state: nothing of this run can be continued."""
        self.path.unlink(missing_ok=True)


def fingerprint(items: Sequence[Item], options: RunOptions, url: str) -> str:
    """Return what identifies an evaluation: its questions, options and service."""
    # Of what was read: a pipe cannot be read again, and a file may have changed meanwhile.
    described = [[asdict(item) for item in items], asdict(options), url]
    text = orjson.dumps(described, default=_resolved, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def _resolved(image: Path) -> str:
    """Return the path of an image from any current folder."""
    return str(image.resolve())


def model(service: client.Client) -> tuple[str, dataset.Limits]:
    """Return the name of the served model, and the limits of its questions."""
    first = service.look("/v1/models")["data"][0]
    limits = first.get("limits") or {}
    return str(first["id"]), dataset.Limits(
        images=limits.get("max_images"), question_chars=limits.get("max_question_chars")
    )


@dataclass(frozen=True)
class Run:
    """A run of a data set.

    Args:
        service: runs the batch.
        file: the data set.
        items: its questions.
        options: those of all jobs.
        state: how far the run is.
    """

    service: client.Client
    file: Path
    items: Sequence[Item]
    options: RunOptions
    state: RunState

    def batch(self, *, model: str, window: str) -> output.Json:
        """Submit the batch, unless an earlier run has, and return it once it has ended.

        Args:
            model: the name of the served model.
            window: the time until the batch expires, such as ``24h``.

        Raises:
            core.errors.InvalidRequest: images or lines are refused: the error lists the lines of the data set.
        """
        state = self.state
        if state.batch_id is None and not self._has_file():
            lines = b"".join(self._lines(self._stored(), model=model))
            stored = self.service.upload(f"eval-{state.run}.jsonl", lines, purpose="batch")
            state.file_id = str(stored["id"])
            state.save()
        if state.batch_id is None:
            body = {
                "input_file_id": state.file_id,
                "endpoint": "/v1/responses",
                "completion_window": window,
                "metadata": {_RUN: state.run},
            }
            batch = self.service.act("/v1/batches", body, key=f"eval-{state.file_id}")
            state.batch_id = str(batch["id"])
            state.save()
        return self._ended(state.batch_id)

    def _has_file(self) -> bool:
        """Return whether the service has the file of an earlier run, which may have expired or been removed."""
        if self.state.file_id is None:
            return False
        try:
            self.service.look(f"/v1/files/{self.state.file_id}")
        except errors.NotFound:
            return False
        return True

    def jobs(self) -> dict[int, output.Json]:
        """Return the jobs by line of the data set: of several for one, the newest that succeeded, or the newest."""
        jobs: dict[int, output.Json] = {}
        query = f"meta.{_RUN}:{self.state.run}"
        for page in self.service.pages("/v1/jobs", q=query, limit=_PAGE):
            for job in page["data"]:
                number = int(job["metadata"][_LINE])
                known = jobs.setdefault(number, job)
                if known["status"] != "succeeded" and job["status"] == "succeeded":
                    jobs[number] = job
        return jobs

    def refusals(self) -> dict[str, str]:
        """Return the error codes of the lines of the batch that failed, by id of the question."""
        path = f"/v1/batches/{self.state.batch_id}/results"
        failed = [
            line
            for page in self.service.pages(path, status="failed", limit=_PAGE)
            for line in page["data"]
        ]
        return {str(line["custom_id"]): _code(line) for line in failed}

    def _stored(self) -> dict[Path, str]:
        """Upload the images, each once; return their ids."""
        stored: dict[Path, str] = {}
        refused: dict[Path, str] = {}
        faults: list[tuple[int, str]] = []
        for count, item in enumerate(self.items, 1):
            for path in dict.fromkeys(one for one in item.images if isinstance(one, Path)):
                if path not in stored and path not in refused:
                    try:
                        image = self.service.upload_image(path, detail=self.options.detail)
                        stored[path] = str(image["id"])
                    except (
                        errors.InvalidRequest,
                        errors.ImageRejected,
                        errors.BodyTooLarge,
                    ) as error:
                        refused[path] = str(error)
                if path in refused:
                    faults.append((item.number, f"{path}: {refused[path]}"))
            progress(f"{count:,} of {len(self.items):,} questions uploaded")
        dataset.refuse(self.file, faults)
        return stored

    def _lines(self, stored: Mapping[Path, str], *, model: str) -> Iterator[bytes]:
        """Yield the lines of the batch."""
        for item in self.items:
            content = [self._image(image, stored) for image in item.images]
            native = {
                "samples": self.options.samples,
                "answer_format": self.options.format_of(item),
                "guards": self.options.guards or None,
            }
            text = {"type": "input_text", "text": item.question}
            body = {
                "model": model,
                "input": [{"role": "user", "content": [*content, text]}],
                "max_output_tokens": self.options.max_output_tokens,
                "temperature": self.options.temperature,
                "metadata": {_RUN: self.state.run, _LINE: str(item.number)},
                "options": _given(native) or None,
            }
            line = {"custom_id": item.id, "method": "POST", "url": "/v1/responses"}
            yield orjson.dumps({**line, "body": _given(body)}) + b"\n"

    def _image(self, image: Path | str, stored: Mapping[Path, str]) -> dict[str, str]:
        if isinstance(image, Path):
            return {"type": "input_image", "file_id": stored[image]}
        detail = {} if self.options.detail is None else {"detail": self.options.detail}
        return {"type": "input_image", "image_url": image, **detail}

    def _ended(self, batch_id: str) -> output.Json:
        """Return the batch once it has ended, across outages of the service."""
        misses = 0
        while True:
            try:
                batch = self.service.look(f"/v1/batches/{batch_id}")
            except errors.NotFound as error:
                raise errors.InvalidRequest(
                    f"The service has no batch {batch_id}, which {self.state.path} names. Choose another folder "
                    "with --to to run the evaluation again.",
                    param="to",
                ) from error
            except errors.Unavailable:
                misses += 1
                if misses > _MISSES:
                    raise
                progress(f"{batch_id}: no response from the service; trying again")
            else:
                misses, ended = 0, batch["status"] in _ENDED
                progress(_standing(batch), end=ended)
                if ended:
                    break
            time.sleep(_POLL_SECONDS)
        if batch["status"] == "failed":
            self._refused(batch)
        if batch["in_progress_at"] is None:
            self.state.forget()
            raise errors.InvalidRequest(
                f"The batch {batch['id']} is {batch['status']} and has run no question. Repeat the command to ask "
                "again."
            )
        return batch

    def _refused(self, batch: output.Json) -> None:
        """Raise the faults of a batch that the service refused, by line of the data set; nothing of it has run."""
        self.state.forget()
        listed = (batch.get("errors") or {}).get("data") or []
        # The same fault in all lines is that of an option.
        numbers: dict[str, list[int]] = {}
        for fault in listed:
            param = str(fault.get("param") or "").removeprefix("body.")
            sentence = f"{param}: {fault.get('message')}" if param else str(fault.get("message"))
            line = fault.get("line")
            number = self.items[line - 1].number if line and line <= len(self.items) else 0
            numbers.setdefault(sentence, []).append(number)
        raise errors.InvalidRequest(
            f"The service refused the batch {batch['id']}.",
            faults=tuple(errors.Fault(_places(at), sentence) for sentence, at in numbers.items()),
        )


def _standing(batch: output.Json) -> str:
    counts = batch.get("request_counts") or {}
    done = counts.get("completed", 0) + counts.get("failed", 0)
    failed = f", {counts['failed']:,} failed" if counts.get("failed") else ""
    return (
        f"{batch['id']} {batch['status']}: {done:,} of {counts.get('total', 0):,} questions{failed}"
    )


def _places(numbers: Sequence[int]) -> str:
    first = f"line {numbers[0]}" if numbers[0] else "file"
    return first if len(numbers) == 1 else f"{first} and {len(numbers) - 1:,} more"


def _code(line: output.Json) -> str:
    """Return the code of a failed line of a batch: of the line, of its response, or of its job."""
    body = ((line.get("response") or {}).get("body")) or {}
    error = line.get("error") or body.get("error") or {}
    return str(error.get("code") or "not_submitted")


def _given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def progress(text: str, *, end: bool = False) -> None:
    """Show the progress on stderr: on a terminal one line that changes, otherwise only the last one."""
    if sys.stderr.isatty():
        cut = tables.cut(output.inline(text), output.columns() - 1)
        typer.echo(f"\r\x1b[K{cut}", err=True, nl=end)
    elif end:
        output.note(text)
