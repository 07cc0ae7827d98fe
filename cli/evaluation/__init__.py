"""``longlook eval``: run a data set through the service as a batch, grade the answers and write a report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli import client, job_options, output
from cli.evaluation import dataset, report, runs, summary
from core import errors
from core.settings import Settings


def evaluate(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.jsonl",
            help="The data set: one JSON object per line with question, answer, and optionally image or images, "
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
    window: Annotated[
        str, typer.Option(help="The time until the batch expires, such as 24h or 7d.")
    ] = "24h",
    as_json: output.AsJson = False,
) -> None:
    """Evaluate a data set: ask all questions as one batch, grade the answers, and write a report."""
    options = runs.RunOptions(
        detail=detail,
        answer_format=client.answer_format(answer_format) if answer_format else None,
        samples=samples,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        guards=client.switches(guard or []),
    )
    items = dataset.read(file, answer_format=options.answer_format)
    service = client.connect(Settings.read())
    model, limits = runs.model(service)
    dataset.check(file, items, limits)
    target = folder or file.with_name(f"{file.name}.eval")
    with runs.locked(target):
        known = runs.fingerprint(items, options, service.url)
        run = runs.Run(service, file, items, options, runs.RunState.open(target, fingerprint=known))
        batch = _finished(run, model=model, window=window)
        grades = _graded(run, target)
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


def _finished(run: runs.Run, *, model: str, window: str) -> output.Json:
    """Return the batch of a run once it has ended; at Ctrl-C, say what goes on without the command, and exit."""
    try:
        return run.batch(model=model, window=window)
    except KeyboardInterrupt:
        output.note(
            "Interrupted before the batch was submitted. Repeat the command to start again."
            if run.state.batch_id is None
            else f"{run.state.batch_id} goes on. Repeat the command to wait for it."
        )
        raise typer.Exit(output.Exit.INTERRUPTED) from None


def _graded(run: runs.Run, folder: Path) -> list[summary.Grade]:
    # Imported late: algebra and the sandbox take a moment, and a refused data set needs neither.
    from cli.evaluation import grading  # noqa: PLC0415 - see above

    jobs, refusals = run.jobs(), run.refusals()
    gone = sum(item.number not in jobs and item.id not in refusals for item in run.items)
    if gone and report.exists(folder):
        raise errors.InvalidRequest(
            f"The service does not have {gone:,} of {len(run.items):,} answers any more, so the report in {folder} "
            "stays as it is. Choose another folder with --to to ask the questions again.",
            param="to",
        )
    grades = []
    with grading.grader() as grader:
        for item in run.items:
            job = jobs.get(item.number)
            text = ((job or {}).get("answer") or {}).get("text")
            right = text is not None and grader.right(
                text,
                item.answers,
                answer_format=run.options.format_of(item),
                question=item.question,
            )
            grades.append(
                summary.grade(asdict(item), job, right=right, refusal=refusals.get(item.id))
            )
    return grades
