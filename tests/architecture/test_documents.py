"""What is written down beside the code says what the code says."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from api.submission import downloads
from core import errors
from core.errors import LonglookError
from core.settings import PREFIX, Settings
from tests.architecture import source
from tools import reference

#: A relative link to a file, without its anchor.
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)[^)]*\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_CODE_NAME = re.compile(r"[a-z]+(_[a-z0-9]+)+")
_BRANCH = re.compile(r"^( *)\* (\w+)", re.MULTILINE)


@pytest.mark.parametrize("page", sorted(reference.pages()), ids=str)
def test_a_generated_page_says_what_the_code_says(page: Path) -> None:
    # `make reference` writes it.
    assert (source.ROOT / page).read_text(encoding="utf-8") == reference.pages()[page]


def test_the_page_of_settings_has_the_table_of_all_of_them() -> None:
    page = (source.ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")

    assert {f"`{PREFIX}{name.upper()}`" for name in Settings.model_fields} == set(
        re.findall(r"^\| (`LONGLOOK_\w+`) \|", page, re.MULTILINE)
    )


def test_the_pages_of_the_api_need_no_script_and_no_inline_style() -> None:
    pages = reference.pages()
    render = MarkdownIt("commonmark").enable("table").render
    html = "".join(
        render(pages[Path("docs", "reference", name)]) for name in ("api.md", "schemas.md")
    )

    # A strict Content Security Policy leaves nothing out of a page that is made of these alone.
    tags = {
        (tag, name)
        for tag, attributes in re.findall(r"<([a-z0-9]+)((?: [^<>]*)?)>", html)
        for name in re.findall(r" ([a-z-]+)=", attributes) or [""]
    }
    assert {tag for tag, _ in tags} >= {"h1", "h2", "h3", "table", "code", "a"}
    assert {tag for tag, _ in tags}.isdisjoint({"script", "style", "iframe", "object", "img"})
    assert {name for _, name in tags} <= {"", "href", "class"}


def test_the_readme_is_short() -> None:
    readme = (source.ROOT / "README.md").read_text(encoding="utf-8")

    assert len(readme.splitlines()) <= 120


def alert_rules() -> list[Any]:
    """Return the rules for Prometheus."""
    text = (source.ROOT / "deploy" / "alerts.yaml").read_text(encoding="utf-8")
    rules: list[Any] = yaml.safe_load(text)["groups"][0]["rules"]
    return rules


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    metrics = (source.ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    runbook = (source.ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")

    alerts = {rule["alert"]: rule for rule in alert_rules()}
    assert alerts
    assert set(re.findall(r"^## (\w+)$", runbook, re.MULTILINE)) == set(alerts)
    rows = re.findall(r"^\| \[(\w+)\]\(\.\./runbook\.md#(\w+)\)", metrics, re.MULTILINE)
    assert rows == [(name, name.lower()) for name in alerts]
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    page = (source.ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(longlook_\w+)` \| (\w+) \| ([^|]*)\|", page, re.MULTILINE)
    known = {name: {*re.findall(r"`(\w+)`", labels), "le"} for name, _, labels in rows}
    board = json.loads((source.ROOT / "deploy" / "grafana-dashboard.json").read_text())
    queries = [rule["expr"] for rule in alert_rules()]
    queries += [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]

    assert len(queries) > 30
    for query in queries:
        for name, selector in re.findall(r"(longlook_\w+)(?:\{([^}]*)\})?", query):
            metric = re.sub(r"_(bucket|sum|count)$", "", name)
            assert metric in known, query
            assert set(re.findall(r"(\w+)=", selector)) <= known[metric], query
    shown = {name for query in queries for name in re.findall(r"longlook_\w+", query)}
    assert {"longlook_share_places", "longlook_limit", "longlook_storage_accounts"} <= shown


def error_codes() -> Iterator[str]:
    """Yield the codes of all errors that a response can have: of classes, of faults, and of single calls."""
    classes = [errors.LonglookError]
    for kind in classes:
        classes += kind.__subclasses__()
        is_shown = issubclass(kind, errors.RequestError | errors.Unavailable | errors.VaultError)
        in_service = kind.__module__.startswith(("core.", "api.", "jobs."))
        if (is_shown and in_service) or kind is errors.LonglookError:
            yield kind.code
    yield from downloads.OUTCOMES[1:]
    for path in source.modules("api", "core", "jobs"):
        for node in ast.walk(source.tree(path)):
            if not isinstance(node, ast.Call):
                continue
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [word.value for word in node.keywords if word.arg == "code"]
            if called in {"Fault", "InvalidValue", "_rejected"}:
                given += node.args[1:]
            for value in given:
                if isinstance(value, ast.Constant) and _CODE_NAME.fullmatch(str(value.value)):
                    yield str(value.value)


def test_the_reference_has_every_error_code() -> None:
    page = (source.ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    codes = set(error_codes())

    assert {"unavailable", "overloaded", "invalid_base64_image", "image_parse_error"} <= codes
    assert {"model_not_found", "context_length_exceeded", "insufficient_storage"} <= codes
    assert {code for code in codes if f"`{code}`" not in page} == set()


def test_the_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{source.name(path)}: {target}"
        for path in source.files()
        if path.suffix == ".md"
        for target in _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8")))
        if not (path.parent / target).exists()
    ]

    assert broken == []


def test_each_word_of_the_glossary_has_one_meaning() -> None:
    page = (source.ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(
        r"^\| ([A-Za-z][\w -]*) \| [A-Z](?:[^|]|\\\|)+\. \| [^|]+ \|$", page, re.MULTILINE
    )

    rows = [line for line in page.splitlines() if line.startswith("| ") and "Meaning" not in line]
    assert len(words) == len(rows)
    assert len(words) == len(set(words))
    assert len(words) >= 50


def branches(fault: type[LonglookError], depth: int = 0) -> Iterator[tuple[int, str]]:
    """Return the tree of faults below ``fault`` as (depth, name), as far as it stands in the module."""
    yield depth, fault.__name__
    for child in fault.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from branches(child, depth + 1)


def test_the_tree_of_faults_is_drawn_as_it_is() -> None:
    drawn = [(len(indent) // 2, name) for indent, name in _BRANCH.findall(errors.__doc__ or "")]

    assert sorted(drawn) == sorted(branches(LonglookError))
    parents: dict[int, str] = {}
    for depth, name in drawn:
        parents[depth] = name
        if depth:
            assert getattr(errors, name).__bases__ == (getattr(errors, parents[depth - 1]),)


def test_no_two_faults_have_the_same_code() -> None:
    faults = [getattr(errors, name) for _, name in branches(LonglookError)]
    codes = [fault.code for fault in faults if "code" in vars(fault)]

    assert len(codes) == len(set(codes))
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


def test_the_page_of_errors_names_no_code_that_does_not_exist() -> None:
    page = (source.ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (?:\d{3} )?`(\w+)` \|", page, re.MULTILINE)
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in source.files()
        if path.suffix == ".py" and not source.name(path).startswith(("tests/", "bench/"))
    )

    assert len(named) > 40
    assert {name for name in named if f'"{name}"' not in code} == set()


def test_make_bench_runs_every_benchmark_and_their_page_names_it() -> None:
    benchmarks = {
        path.stem
        for path in source.modules("bench")
        if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    recipe = (source.ROOT / "Makefile").read_text(encoding="utf-8")
    [names] = re.findall(r"for name in ([a-z_ ]+); do .venv/bin/python -m bench", recipe)
    page = (source.ROOT / "bench" / "README.md").read_text(encoding="utf-8")

    assert set(names.split()) == benchmarks
    assert {name for name in benchmarks if f"`{name}.py`" not in page} == set()


def test_each_fault_says_what_it_is() -> None:
    for _, name in branches(LonglookError):
        assert getattr(errors, name).__doc__, name
