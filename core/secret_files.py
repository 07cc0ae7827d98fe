"""Files that hold a secret: only their owner can read them, and a power failure leaves none of them empty."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def write(path: Path, text: str, *, replace: bool) -> None:
    """Write ``text`` to ``path`` atomically; without ``replace``, a file that exists stays as it is."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            # The database has hashes and ciphertexts that need the secret.
            os.fsync(handle)
        if replace:
            Path(draft).replace(path)
        else:
            # A link, unlike a rename, does not replace the file that another process has just made.
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(draft)
    finally:
        Path(draft).unlink(missing_ok=True)


def change(path: Path, changed: Callable[[], Iterable[str]]) -> None:
    """Replace the secrets in ``path``, one on each line, by those that ``changed`` returns.

    Of two processes that read and replace a secret in one folder, the second waits for the first.
    """
    with locked(path.parent):
        write(path, "".join(f"{secret}\n" for secret in changed()), replace=True)


@contextlib.contextmanager
def owner_only() -> Iterator[None]:
    """Let only the owner read the files that this process creates meanwhile, those of libraries included."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock on the secrets in ``folder``."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
