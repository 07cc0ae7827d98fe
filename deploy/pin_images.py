"""Writes deploy/images.env: the images of docker-compose.yml with the digests that their tags have now.

A digest is looked up with ``docker buildx imagetools``; a tag may move later, but a digest identifies one
image permanently. It needs only the standard library.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
PINNED = ROOT / "deploy" / "images.env"
_VARIABLE = re.compile(r"\$\{(\w+_IMAGE):-([^}]+)\}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(compose: str) -> dict[str, str]:
    """Return the images in a Compose file, without digests, by the variables that replace them."""
    return {variable: image.partition("@")[0] for variable, image in _VARIABLE.findall(compose)}


def digest(image: str) -> str:
    """Return the digest of an image's tag. Ends the process with an error message if it finds no digest."""
    command = ["docker", "buildx", "imagetools", "inspect", "--format", "{{json .Manifest}}", image]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            sys.exit(f"{image} cannot be looked up: {ended.stderr.strip()}")
        found = str(json.loads(ended.stdout)["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.exit(f"{image} cannot be looked up: {error}")
    if not _DIGEST.fullmatch(found):
        sys.exit(f"{image} has no digest: {found!r}")
    return found


def main(pinned: Path) -> None:
    """Find the digests of all images, then write them."""
    lines = [
        f"{variable}={image}@{digest(image)}"
        for variable, image in sorted(images(COMPOSE.read_text()).items())
    ]
    pinned.write_text("\n".join(lines) + "\n")
    print(f"{len(lines)} images are pinned in {pinned}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PINNED)
