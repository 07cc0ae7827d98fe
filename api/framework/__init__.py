"""The web framework behind one thin room: routes and their OpenAPI document, parameters, bodies, answers.

flask-openapi3 collects the document from the same models that check requests and build answers. It is
named in :mod:`api.framework.router` only, so that it can be replaced.
"""

from __future__ import annotations

from api.framework.bodies import FormBody, FormFile, read_form, read_json, read_model
from api.framework.document import RequestBodySpec, ResponseSpec
from api.framework.middleware import install, reply
from api.framework.parameters import Unknown, faults_of, parse
from api.framework.router import Router
from api.framework.strict_json import loads

__all__ = [
    "FormBody",
    "FormFile",
    "RequestBodySpec",
    "ResponseSpec",
    "Router",
    "Unknown",
    "faults_of",
    "install",
    "loads",
    "parse",
    "read_form",
    "read_json",
    "read_model",
    "reply",
]
