"""``longlook eval``: run a data set through the service as a batch, grade the answers and write a report."""

import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from cli import client, job_options, output
from cli.evaluation import dataset, report, summary
from cli.evaluation.dataset import Item
from core import errors
from core.settings import Settings

_STATE: Final = "state.json"
#: Pause between two requests for the state of the batch.
_POLL_SECONDS: Final = 2.0
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
#: The metadata of the jobs: the run, and the line of the data set.
_RUN, _LINE = "eval", "eval_line"


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl",
            help="The data set: one JSON object per line with image or images, question, answer, and optionally "
            "choices, id and kind.",
            show_default=False,
        ),
    ],
    *,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="Folder of the report; default: FILE.eval. The same command continues an interrupted evaluation.",
            show_default=False,
        ),
    ] = None,
    detail: job_options.Detail = None,
    answer_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Answer format of questions without choices: free, number, boolean, json or json:@schema.json.",
            show_default=False,
        ),
    ] = None,
    samples: job_options.Samples = None,
    max_output_tokens: job_options.MaxOutputTokens = None,
    temperature: job_options.Temperature = None,
    guard: job_options.Guards = None,
    as_json: output.AsJson = False,
) -> None:
    """Evaluate a data set: ask all questions as one batch, grade the answers, and write a report."""
    items = dataset.read(file)
    options = _Options(
        detail=detail,
        answer_format=client.answer_format(answer_format) if answer_format else None,
        samples=samples,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        guards=client.switches(guard or []),
    )
    service = client.connect(Settings.read())
    target = folder or file.with_name(f"{file.name}.eval")
    state = _State.open(target, fingerprint=_fingerprint(file, options, service.url))
    model = str(service.look("/v1/models")["data"][0]["id"])
    batch = _run(service, items, options, state=state, model=model)
    grades = _graded(items, _jobs(service, state.run), options)
    summaries = summary.summarize(grades)
    paths = report.write(
        target,
        grades,
        summaries,
        title=file.name,
        facts={"model": model, "batch": batch["id"], **options.stated()},
    )
    if not output.for_people(as_json=as_json):
        output.as_json([asdict(one) for one in summaries])
        return
    output.table(report.columns(), map(report.cells, summaries))
    for path in paths:
        output.line(f"Wrote {path}")


@dataclass(frozen=True)
class _Options:
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


@dataclass
class _State:
    """How far an evaluation is, in the folder of its report, so that the same command continues it.

    The ids are written before and after the requests that create files and batches: an interruption between them
    creates nothing twice, because the batch has an Idempotency-Key.
    """

    path: Path
    fingerprint: str
    run: str
    file_id: str | None = None
    batch_id: str | None = None

    @classmethod
    def open(cls, folder: Path, *, fingerprint: str) -> "_State":
        """Read the state of an earlier run with the same questions, options and service, or begin a new run.

        Raises:
            core.errors.InvalidRequest: the folder cannot be used, or has another evaluation.
        """
        path = folder / _STATE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            known = json.loads(path.read_bytes()) if path.exists() else None
            if known is None:
                state = cls(path, fingerprint, uuid.uuid4().hex)
                state.save()
                return state
            state = cls(path, **known)
        except (OSError, ValueError, TypeError) as error:
            raise errors.InvalidRequest(
                f"The folder {folder} cannot be used.", param="to"
            ) from error
        if state.fingerprint != fingerprint:
            raise errors.InvalidRequest(
                f"The folder {folder} has another evaluation: other questions, options or another service. Choose "
                "another folder with --to.",
                param="to",
            )
        return state

    def save(self) -> None:
        """Write the state: a reader sees the old one or the new one."""
        fields = {name: value for name, value in vars(self).items() if name != "path"}
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(fields), encoding="utf-8")
        new.replace(self.path)


def _fingerprint(file: Path, options: _Options, url: str) -> str:
    described = orjson.dumps([asdict(options), url], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(file.read_bytes() + described).hexdigest()


def _run(
    service: client.Client,
    items: Sequence[Item],
    options: _Options,
    *,
    state: _State,
    model: str,
) -> output.Json:
    """Submit the batch, unless an earlier run has, and return it once it has ended."""
    if state.file_id is None:
        lines = b"".join(_lines(service, items, options, run=state.run, model=model))
        stored = service.upload(f"eval-{state.run}.jsonl", lines, purpose="batch")
        state.file_id = str(stored["id"])
        state.save()
    if state.batch_id is None:
        batch = service.act(
            "/v1/batches",
            {
                "input_file_id": state.file_id,
                "endpoint": "/v1/responses",
                "completion_window": "24h",
                "metadata": {_RUN: state.run},
            },
            key=f"eval-{state.run}",
        )
        state.batch_id = str(batch["id"])
        state.save()
    return _wait(service, state.batch_id)


def _lines(
    service: client.Client, items: Sequence[Item], options: _Options, *, run: str, model: str
) -> Iterator[bytes]:
    """Upload the images, each once; yield the lines of the batch."""
    stored: dict[Path, str] = {}
    for number, item in enumerate(items, 1):
        for path in item.images:
            if path not in stored:
                stored[path] = str(service.upload_image(path, detail=options.detail)["id"])
        _progress(f"{number:,} of {len(items):,} questions uploaded")
        yield orjson.dumps(_line(item, stored, options, run=run, model=model)) + b"\n"


def _line(
    item: Item, stored: Mapping[Path, str], options: _Options, *, run: str, model: str
) -> dict[str, Any]:
    content = [{"type": "input_image", "file_id": stored[path]} for path in item.images]
    native = {
        "samples": options.samples,
        "answer_format": options.format_of(item),
        "guards": options.guards or None,
    }
    body = {
        "model": model,
        "input": [
            {"role": "user", "content": [*content, {"type": "input_text", "text": item.question}]}
        ],
        "max_output_tokens": options.max_output_tokens,
        "temperature": options.temperature,
        "metadata": {_RUN: run, _LINE: str(item.number)},
        "options": {name: value for name, value in native.items() if value is not None} or None,
    }
    return {
        "custom_id": item.id,
        "method": "POST",
        "url": "/v1/responses",
        "body": {name: value for name, value in body.items() if value is not None},
    }


def _wait(service: client.Client, batch_id: str) -> output.Json:
    """Return a batch once it has ended.

    Raises:
        core.errors.InvalidRequest: the service refused the batch: the error lists its faults.
    """
    while True:
        batch = service.look(f"/v1/batches/{batch_id}")
        counts = batch.get("request_counts") or {}
        done = counts.get("completed", 0) + counts.get("failed", 0)
        ended = batch["status"] in _ENDED
        text = f"{batch['id']} {batch['status']}: {done:,} of {counts.get('total', 0):,} questions"
        _progress(text, end=ended)
        if ended:
            break
        time.sleep(_POLL_SECONDS)
    if batch["status"] == "failed":
        listed = (batch.get("errors") or {}).get("data") or []
        raise errors.InvalidRequest(
            f"The service refused the batch {batch_id}.",
            faults=tuple(
                errors.Fault(f"line {fault.get('line')}", str(fault.get("message")))
                for fault in listed
            ),
        )
    return batch


def _jobs(service: client.Client, run: str) -> dict[int, output.Json]:
    """Return the jobs of a run by the line of the data set."""
    pages = service.pages("/v1/jobs", q=f"meta.{_RUN}:{run}", limit=100)
    return {int(job["metadata"][_LINE]): job for page in pages for job in page["data"]}


def _graded(
    items: Sequence[Item], jobs: Mapping[int, output.Json], options: _Options
) -> list[summary.Grade]:
    # Imported late: algebra and the sandbox take a moment, and a refused data set needs neither.
    from cli.evaluation import grading  # noqa: PLC0415 - see above

    grades = []
    with grading.grader() as grader:
        for item in items:
            job = jobs.get(item.number)
            text = ((job or {}).get("answer") or {}).get("text")
            right = text is not None and grader.right(
                text,
                item.answer,
                answer_format=options.format_of(item),
                question=item.question,
            )
            grades.append(summary.grade(asdict(item), job, right=right))
    return grades


def _progress(text: str, *, end: bool = False) -> None:
    """Show the progress on stderr: on a terminal one line that changes, otherwise only the last one."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{output.inline(text)}", err=True, nl=end)
    elif end:
        output.note(text)
