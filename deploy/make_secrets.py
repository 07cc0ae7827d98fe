"""Makes the secrets of docker-compose.yml, one file each; existing files stay. It needs only the standard library.

Only its owner can enter the folder. The files in it are readable for all users, because the user of a
container, to which Compose mounts single files, must read them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "secrets"


def main(folder: Path) -> None:
    """Make the missing files in ``folder``."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("postgres_password", "redis_password", "pepper", "vault_key", "engine_api_key"):
        make(folder / name, secrets.token_hex(32))
    # For models that are not public: put a token of the hub into this file.
    make(folder / "hf_token", "")
    # For a network that only a proxy leaves: put its URL, with its password, into this file.
    make(folder / "outbound_proxy", "")
    password, broker = read(folder / "postgres_password"), read(folder / "redis_password")
    make(folder / "database_url", f"postgresql://longlook:{password}@postgres/longlook")
    make(folder / "redis_url", f"redis://:{broker}@redis:6379/0")
    make(folder / "redis.conf", f"requirepass {broker}")


def make(path: Path, content: str) -> None:
    """Write a file atomically, unless it exists."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(f"{content}\n")
            file.flush()
            os.fsync(handle)
        Path(draft).chmod(0o444)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
            print(f"made {path}")
    finally:
        Path(draft).unlink()


def read(path: Path) -> str:
    """Return an existing secret."""
    return path.read_text().strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
