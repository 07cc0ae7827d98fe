"""The files of an evaluation: ``results.jsonl``, ``summary.json`` and ``report.html``."""

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from cli.evaluation.summary import Grade, Summary
from core import escapes

_RESULTS: Final = "results.jsonl"
_SUMMARY: Final = "summary.json"
_REPORT: Final = "report.html"
#: Pixels.
_LABELS, _BAR, _ROW, _GAP = 160, 420, 22, 8
_BINS: Final = 20
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #d8dee8; vertical-align: top }
td.number, th.number { text-align: right }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 24rem }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #1c2430 }
.bar { fill: #3f7ecb } .interval { stroke: #1c2430; stroke-width: 1.5 } .axis { stroke: #8a96a8 }
"""
_COLUMNS: Final = (
    "kind",
    "questions",
    "accuracy",
    "95 % interval",
    "answered",
    "forced",
    "failed",
    "cached input",
    "output tokens",
    "engine s",
)


def write(
    folder: Path,
    grades: Sequence[Grade],
    summaries: Sequence[Summary],
    *,
    title: str,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write the files of an evaluation; return their paths.

    Args:
        folder: exists.
        grades: in the order of the data set.
        summaries: by kind; the last one is of all.
        title: the name of the data set.
        facts: the model and the options.
    """
    paths = [folder / name for name in (_RESULTS, _SUMMARY, _REPORT)]
    results = "".join(json.dumps(asdict(grade), ensure_ascii=False) + "\n" for grade in grades)
    document = {"data_set": title, **facts, "summaries": [asdict(one) for one in summaries]}
    texts = [
        results,
        json.dumps(document, ensure_ascii=False, indent=2) + "\n",
        page(grades, summaries, title=title, facts=facts),
    ]
    for path, text in zip(paths, texts, strict=True):
        # The name of a data set may be in another encoding.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    return paths


def cells(summary: Summary) -> tuple[str, ...]:
    """Return a summary as a row of the columns in :func:`columns`."""
    return (
        summary.kind,
        str(summary.questions),
        _percent(summary.accuracy),
        f"{_percent(summary.low)} to {_percent(summary.high)}",
        _percent(summary.answered),
        _percent(summary.forced),
        str(summary.failed),
        _percent(summary.cached),
        f"{summary.output_tokens:.0f}",
        f"{summary.engine_seconds:.1f}",
    )


def columns() -> tuple[str, ...]:
    """Return the columns of a table of summaries."""
    return _COLUMNS


def page(
    grades: Sequence[Grade], summaries: Sequence[Summary], *, title: str, facts: Mapping[str, Any]
) -> str:
    """Return the report as one HTML page that loads nothing."""
    wrong = [grade for grade in grades if not grade.right]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Evaluation of {_escaped(title)}</h1>",
        _table(("option", "value"), [(name, json.dumps(value)) for name, value in facts.items()]),
        "<h2>Accuracy by kind, with 95 % intervals</h2>",
        _bars(summaries),
        _table(_COLUMNS, [cells(summary) for summary in summaries], numbers=True),
        "<h2>Output tokens per question</h2>",
        _histogram([grade.output_tokens for grade in grades]),
        f"<h2>Wrong answers: {len(wrong):,}</h2>",
        _table(
            ("id", "kind", "question", "expected", "answer", "why", "job"), [*map(_wrong, wrong)]
        ),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _wrong(grade: Grade) -> tuple[str, ...]:
    why = [grade.error] if grade.error else []
    why += ["forced"] * grade.forced + list(grade.findings)
    return (
        grade.id,
        grade.kind,
        grade.question,
        grade.expected,
        grade.text or "",
        ", ".join(why),
        grade.job or "",
    )


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    kinds = ["number" if numbers and position else "text" for position in range(len(names))]
    head = "".join(
        f'<th class="{kind}">{_escaped(name)}</th>' for kind, name in zip(kinds, names, strict=True)
    )
    lines = [f"<table><thead><tr>{head}</tr></thead><tbody>"]
    for row in rows:
        columns_ = "".join(
            f'<td class="{kind}">{_escaped(cell)}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        )
        lines.append(f"<tr>{columns_}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


def _bars(summaries: Sequence[Summary]) -> str:
    """Return horizontal bars of the accuracies, each with its interval."""
    height = len(summaries) * (_ROW + _GAP) + _ROW
    lines = [_svg(_LABELS + _BAR + 70, height, "Accuracy by kind")]
    for number, summary in enumerate(summaries):
        top = number * (_ROW + _GAP)
        middle = top + _ROW / 2
        low, high = (_LABELS + share * _BAR for share in (summary.low, summary.high))
        lines += [
            f'<text x="{_LABELS - 8}" y="{middle + 4}" text-anchor="end">{_escaped(summary.kind)}</text>',
            f'<rect class="bar" x="{_LABELS}" y="{top}" width="{summary.accuracy * _BAR:.1f}" height="{_ROW}"/>',
            f'<line class="interval" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
            *(
                f'<line class="interval" x1="{end:.1f}" y1="{middle - 5}" x2="{end:.1f}" y2="{middle + 5}"/>'
                for end in (low, high)
            ),
            f'<text x="{_LABELS + _BAR + 8}" y="{middle + 4}">{_percent(summary.accuracy)}</text>',
        ]
    lines += _axis(height, ["0 %", "25 %", "50 %", "75 %", "100 %"])
    return "\n".join([*lines, "</svg>"])


def _histogram(values: Sequence[int]) -> str:
    """Return vertical bars: how many values lie in each of twenty equal intervals from 0 to the greatest."""
    greatest = max([*values, 1])
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, value * _BINS // greatest)] += 1
    height, most, width = 140, max([*counts, 1]), _BAR / _BINS
    lines = [_svg(_LABELS + _BAR + 70, height + _ROW, "Output tokens per question")]
    for number, count in enumerate(counts):
        tall = count / most * (height - 16)
        left = _LABELS + number * width
        lines.append(
            f'<rect class="bar" x="{left:.1f}" y="{height - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}">'
            f"<title>{count:,}</title></rect>"
        )
    lines.append(f'<text x="{_LABELS - 8}" y="16" text-anchor="end">{most:,}</text>')
    ticks = [f"{greatest * part // 4:,}" for part in range(5)]
    lines += _axis(height + _ROW, ticks)
    return "\n".join([*lines, "</svg>"])


def _axis(height: int, ticks: Sequence[str]) -> Iterator[str]:
    base = height - _ROW + 2
    yield f'<line class="axis" x1="{_LABELS}" y1="{base}" x2="{_LABELS + _BAR}" y2="{base}"/>'
    for number, tick in enumerate(ticks):
        left = _LABELS + number * _BAR / (len(ticks) - 1)
        yield f'<text x="{left:.1f}" y="{base + 15}" text-anchor="middle">{tick}</text>'


def _svg(width: int, height: int, label: str) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" aria-label="{label}">'


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _escaped(text: str) -> str:
    return html.escape(escapes.visible(text))
