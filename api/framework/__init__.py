"""The web framework: routes and their OpenAPI document, parameters, bodies, answers.

The models that check requests and build answers also make the document.
"""

from api.framework import links, route, spooling
from api.framework.bodies import (
    FormBody,
    FormFile,
    file_pieces,
    read_body,
    read_form,
    read_model,
)
from api.framework.document import OpenApiDocument, RequestBodySpec, ResponseSpec, WebhookSpec
from api.framework.middleware import install, reply
from api.framework.parameters import Unknown, faults_of, parse
from api.framework.paths import PathId, PathText
from api.framework.router import Router
from api.framework.spooling import new_file
from api.framework.strict_json import LongString, loads

__all__ = [
    "FormBody",
    "FormFile",
    "LongString",
    "OpenApiDocument",
    "PathId",
    "PathText",
    "RequestBodySpec",
    "ResponseSpec",
    "Router",
    "Unknown",
    "WebhookSpec",
    "faults_of",
    "file_pieces",
    "install",
    "links",
    "loads",
    "new_file",
    "parse",
    "read_body",
    "read_form",
    "read_model",
    "reply",
    "route",
    "spooling",
]
