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
_LABELS, _BAR, _ROW, _GAP = 150, 360, 22, 8
_BINS: Final = 20
#: Characters of a kind next to its bar.
_KIND_CHARS: Final = 22
_STYLE: Final = """
:root { color-scheme: light dark; --text: #1c2430; --page: #fff; --line: #d8dee8; --axis: #6b7788; --bar: #3f7ecb; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e8ee; --page: #14181e; --line: #343c48; --axis: #96a2b4; --bar: #3f7ecb; }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
body { background: var(--page); color: var(--text); }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2rem }
.wide { overflow-x: auto; margin: .75rem 0 }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; white-space: nowrap }
td.text { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 5rem; max-width: 24rem }
td.long, td.id { min-width: 12rem }
svg { display: block; max-width: 100%; min-width: 26rem; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: var(--text) }
.bar { fill: var(--bar) } .interval { stroke: var(--text); stroke-width: 1.5 } .axis { stroke: var(--axis) }
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
    "engine seconds",
)
#: The headings of the page's tables, with the classes of their columns.
_HEADINGS: Final = {
    name: "number" if position else "text" for position, name in enumerate(_COLUMNS)
}
_WRONG: Final = {
    "id": "text",
    "kind": "text",
    "question": "text long",
    "expected": "text",
    "answer": "text",
    "why": "text",
    "job": "text id",
}


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


def exists(folder: Path) -> bool:
    """Return whether the folder has a report."""
    return (folder / _REPORT).exists()


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
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{_escaped(title)}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>Evaluation of {_escaped(title)}</h1>",
        _table({"option": "text", "value": "text"}, [*map(_fact, facts.items())]),
        "<h2>Accuracy by kind, with 95 % intervals</h2>",
        _bars(summaries),
        _table(_HEADINGS, [cells(summary) for summary in summaries]),
        "<h2>Output tokens per question</h2>",
        _histogram([grade.output_tokens for grade in grades]),
        f"<h2>Wrong answers: {len(wrong):,}</h2>",
        _table(_WRONG, [*map(_wrong, wrong)]),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _fact(fact: tuple[str, Any]) -> tuple[str, str]:
    name, value = fact
    return name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _wrong(grade: Grade) -> tuple[str, ...]:
    why = [grade.error] if grade.error else []
    why += ["forced"] * grade.forced + list(grade.findings)
    return (
        grade.id,
        grade.kind,
        grade.question,
        " or ".join(grade.expected),
        grade.text or "",
        ", ".join(why),
        grade.job or "",
    )


def _table(columns_: Mapping[str, str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, which scrolls where it is too wide.

    Args:
        columns_: the class of each column, by its heading.
        rows: the cells.
    """
    kinds = list(columns_.values())
    head = "".join(f'<th class="{kind}">{_escaped(name)}</th>' for name, kind in columns_.items())
    lines = [f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>']
    for row in rows:
        row_cells = "".join(
            f'<td class="{kind}">{_escaped(cell)}</td>'
            for kind, cell in zip(kinds, row, strict=True)
        )
        lines.append(f"<tr>{row_cells}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def _bars(summaries: Sequence[Summary]) -> str:
    """Return horizontal bars of the accuracies, each with its interval."""
    height = len(summaries) * (_ROW + _GAP) + _ROW
    lines = [_svg(_LABELS + _BAR + 70, height, "Accuracy by kind")]
    for number, summary in enumerate(summaries):
        top = number * (_ROW + _GAP)
        middle = top + _ROW / 2
        low, high = (_LABELS + share * _BAR for share in (summary.low, summary.high))
        lines += [
            f'<text x="{_LABELS - 8}" y="{middle + 4}" text-anchor="end">{_escaped(_short(summary.kind))}</text>',
            f'<rect class="bar" x="{_LABELS}" y="{top}" width="{summary.accuracy * _BAR:.1f}" height="{_ROW}"/>',
            f'<line class="interval" x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>',
            *(
                f'<line class="interval" x1="{end:.1f}" y1="{middle - 5}" x2="{end:.1f}" y2="{middle + 5}"/>'
                for end in (low, high)
            ),
            f'<text x="{_LABELS + _BAR + 8}" y="{middle + 4}">{_percent(summary.accuracy)}</text>',
        ]
    lines += _axis(height, ["0 %", "25 %", "50 %", "75 %", "100 %"])
    return "\n".join([*lines, "</svg></div>"])


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
    lines.append(f'<text x="{_LABELS - 8}" y="16" text-anchor="end">{most:,} questions</text>')
    ticks = [f"{greatest * part // 4:,}" for part in range(5)]
    lines += _axis(height + _ROW, ticks)
    return "\n".join([*lines, "</svg></div>"])


def _axis(height: int, ticks: Sequence[str]) -> Iterator[str]:
    base = height - _ROW + 2
    yield f'<line class="axis" x1="{_LABELS}" y1="{base}" x2="{_LABELS + _BAR}" y2="{base}"/>'
    for number, tick in enumerate(ticks):
        left = _LABELS + number * _BAR / (len(ticks) - 1)
        yield f'<text x="{left:.1f}" y="{base + 15}" text-anchor="middle">{tick}</text>'


def _svg(width: int, height: int, label: str) -> str:
    return (
        f'<div class="wide"><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}">'
    )


def _short(kind: str) -> str:
    return kind if len(kind) <= _KIND_CHARS else f"{kind[: _KIND_CHARS - 1]}…"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _escaped(text: str) -> str:
    return html.escape(escapes.visible(text))
