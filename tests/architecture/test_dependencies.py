"""What the product imports is what it declares: an installation has nothing else."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.architecture import source

CONFIG = tomllib.loads((source.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = tuple(CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
#: Modules of libraries that the product loads by a name in its configuration.
LOADED_BY_NAME = ("kombu.transport.redis",)
#: Folders of the packages that other interpreters run, with libraries of their own.
ELSEWHERE = ("models/training/", "cli/environments/engine-cpu/")


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of what a file imports, also lazily, and also by a name in a string."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "find_spec")
        ):
            [given, *_] = node.args
            if isinstance(given, ast.Constant):
                yield str(given.value).partition(".")[0]


def third_party(path: Path) -> set[str]:
    """Return the names that a file imports from neither the product nor the standard library."""
    return set(imported(path)) - set(PACKAGES) - sys.stdlib_module_names


def declared() -> list[Requirement]:
    """Return the requirements in pyproject.toml, those of its extras included."""
    project = CONFIG["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]


def closure(requirements: list[Requirement]) -> set[str]:
    """Return the names of all distributions that requirements bring, as far as they are installed here."""
    found: set[tuple[str, str]] = set()
    waiting = [(one.name, extra) for one in requirements for extra in ("", *one.extras)]
    while waiting:
        name, extra = waiting.pop()
        one = (canonicalize_name(name), extra)
        if one in found:
            continue
        found.add(one)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [
            (needed.name, more)
            for needed in map(Requirement, lines)
            if needed.marker is None or needed.marker.evaluate({"extra": extra})
            for more in ("", *needed.extras)
        ]
    return {name for name, _ in found}


@functools.cache
def distributions() -> dict[str, set[str]]:
    """Return the distributions that each module is in."""
    found = importlib.metadata.packages_distributions()
    return {module: {canonicalize_name(name) for name in names} for module, names in found.items()}


def test_every_library_that_the_product_imports_is_declared() -> None:
    names = {canonicalize_name(one.name) for one in declared()}
    missing = {
        f"{source.name(path)}: {module}"
        for path in source.modules(*PACKAGES)
        if not source.name(path).startswith(ELSEWHERE)
        for module in third_party(path)
        # An optional library need not be installed here: then its module is called as it is.
        if not distributions().get(module, {canonicalize_name(module)}) & names
    }

    assert missing == set()


def test_what_libraries_import_that_are_loaded_by_name_comes_with_what_is_declared() -> None:
    brought = closure(declared())
    for name in LOADED_BY_NAME:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        undeclared = {
            module
            for module in third_party(Path(spec.origin))
            if not distributions()[module] & brought
        }
        assert undeclared == set(), name
