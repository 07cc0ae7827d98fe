"""What is written down beside the code says what the code says."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cli import config
from core import errors
from core.errors import LonglookError
from tests.architecture import source

_RAISED = re.compile(r'code="([a-z_]+)"')
_BRANCH = re.compile(r"^( *)\* (\w+)", re.MULTILINE)


def test_the_readme_has_the_table_of_all_settings_with_their_defaults() -> None:
    readme = (source.ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- settings -->\n")[2].partition("\n<!-- /settings -->")[0]

    # `longlook config show --markdown` prints it.
    assert table == config.documentation()


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


def test_the_readme_names_every_code_that_a_request_can_be_refused_with() -> None:
    # Of classes the code is in the class; more specific ones stand where they are raised.
    codes = {
        fault.code
        for _, name in branches(LonglookError)
        if issubclass(fault := getattr(errors, name), errors.RequestError | errors.Unavailable)
    }
    for path in source.modules("api", "core", "jobs", "net", "webhooks"):
        if source.name(path).startswith(("api/", "jobs/images/")):
            codes |= set(_RAISED.findall(path.read_text(encoding="utf-8")))
    # What stands for itself: what it cannot do now, and our own faults.
    codes -= {errors.Unavailable.code, "server_error"}

    reported = (source.ROOT / "README.md").read_text(encoding="utf-8")
    assert {code for code in codes if f"`{code}`" not in reported} == set()
    assert {"invalid_image_mode", "context_length_exceeded", "rate_limit_exceeded"} <= codes


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
