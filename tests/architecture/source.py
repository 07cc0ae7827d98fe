"""The repository as its rules see it: the files that git knows, and their syntax trees."""

from __future__ import annotations

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def files() -> list[Path]:
    """Return the files that are tracked, or new and not ignored; those of a copy without git, too."""
    try:
        listed = git("ls-files", "--cached", "--others", "--exclude-standard")
    except (OSError, subprocess.CalledProcessError):
        return [
            path
            for path in sorted(ROOT.rglob("*"))
            if path.is_file()
            and not any(
                part.startswith(".venv") or part == "__pycache__"
                for part in path.relative_to(ROOT).parts
            )
        ]
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def git(*arguments: str) -> list[str]:
    """Return the lines that git answers."""
    answered = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return answered.stdout.splitlines()


def modules(*folders: str) -> list[Path]:
    """Return the Python files in ``folders``."""
    return [
        path
        for path in files()
        if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders
    ]


@functools.cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name(path: Path) -> str:
    """Return a file's path as people write it."""
    return path.relative_to(ROOT).as_posix()
