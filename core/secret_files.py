"""Files that hold a secret: only their owner can read them, and a power failure leaves none of them empty."""

import contextlib
import os
import tempfile
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
