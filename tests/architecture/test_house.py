"""The rules of the house that a machine can hold: rooms, names, boundaries, and no traces of a workshop."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib

import pytest
from importlinter.cli import lint_imports

from tests.architecture import source

PACKAGES = ("api", "cli", "core", "jobs", "migrations", "net", "scripted", "webhooks", "worker")
EVERYTHING = (*PACKAGES, "bench", "deploy", "models", "tests", "tools")
#: Where whatever nobody foresaw ends, besides the error handler that Flask is given.
BOUNDARIES = {
    "api/openai/batches/lines.py",
    "api/openai/batches/line_results.py",
    "api/openai/batches/runner.py",
    "api/openai/batches/slices.py",
    "api/openai/foreground.py",
    "api/openai/preparation.py",
    "api/serving/answers.py",
    "api/serving/loop.py",
    "api/streams/tail.py",
    "worker/run/slot.py",
}
#: The module with the patterns of markup; the values of answers drop all markup.
MARKUP = {"jobs/document/markup.py", "jobs/answers/values.py"}
#: Spelled in two parts, so that this file passes its own test.
WORKSHOP_PATHS = ("/wo" + "rk/", "/ro" + "ot/")


def test_imports_point_down_and_every_module_has_its_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    broken = lint_imports(str(source.ROOT / "pyproject.toml"), no_cache=True, no_logo=True)

    assert broken == 0, capsys.readouterr().out


def test_the_contracts_cover_every_package_to_the_last_module() -> None:
    config = tomllib.loads((source.ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]

    assert set(config["root_packages"]) == set(PACKAGES)
    exhaustive = {
        container
        for contract in config["contracts"]
        if contract.get("exhaustive")
        for container in contract["containers"]
    }
    assert (
        set(PACKAGES) - {"migrations", "scripted"} | {"jobs.store", "worker.guards", "worker.run"}
        <= exhaustive
    )
    packaged = {
        path.relative_to(source.ROOT).parts[0]
        for path in source.files()
        if path.name == "__init__.py"
    }
    assert packaged <= {*PACKAGES, "bench", "deploy", "models", "tests"}


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}

    assert [source.name(path) for path in source.modules(*EVERYTHING) if path.stem in empty] == []


def test_exceptions_of_every_kind_are_caught_at_the_boundaries_only() -> None:
    caught = {
        source.name(path)
        for path in source.modules(*PACKAGES)
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.ExceptHandler) and swallows_all(node)
    }

    assert caught <= BOUNDARIES


def swallows_all(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes every exception and does not raise it again."""
    kind = handler.type
    broad = kind is None or (
        isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}
    )
    return broad and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_every_exception_to_a_rule_has_its_reason() -> None:
    # Put together here, so that this file passes its own test.
    silenced = re.compile("# no" + r"qa(?!: [A-Z]+\d+(, [A-Z]+\d+)* - \S)")
    ignored = re.compile("# type: " + r"ignore(?!\[[a-z, -]+\]\s+# \S)")
    found = [
        f"{source.name(path)}:{number}"
        for path in source.modules(*EVERYTHING)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if silenced.search(line) or ignored.search(line)
    ]

    assert found == []


def test_no_file_knows_the_machine_that_it_was_written_on() -> None:
    found = []
    for path in source.files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # Weights and pictures.
        found += [source.name(path) for workshop in WORKSHOP_PATHS if workshop in text]

    assert found == []


def test_one_module_has_the_patterns_of_headings_boxes_and_text_commands() -> None:
    command = re.compile(
        r"\\\\[+*{(?:\d,}]*(?:f?boxe?d?|text(?:bf|it|rm)?|math(?:rm|bf|it))\b(?!\{)"
    )
    heading = re.compile(r"final(?:\W|\\[a-z])*answer|(?:最终|最終)(?:\W)*答案", re.IGNORECASE)
    syntax = re.compile(r"\(\?|\\[swb]|[*+?]\+|\{\d")
    found = [
        f"{source.name(path)}:{node.lineno}"
        for path in source.modules(*PACKAGES)
        if source.name(path) not in MARKUP
        for node in ast.walk(source.tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        # A docstring may show what a pattern matches.
        if "\n" not in node.value
        if command.search(node.value) or (heading.search(node.value) and syntax.search(node.value))
    ]

    assert found == []


def test_nothing_that_is_ignored_is_tracked() -> None:
    try:
        tracked = source.git("ls-files", "--cached", "--ignored", "--exclude-standard")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this copy is no checkout of git")

    assert tracked == []
