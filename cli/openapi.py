"""``longlook openapi``: the OpenAPI document, without a running service."""

import json

from api import app
from cli import output


def openapi() -> None:
    """Print the OpenAPI document of this version's API."""
    output.lines(json.dumps(app.openapi_document(), indent=2, ensure_ascii=False))
