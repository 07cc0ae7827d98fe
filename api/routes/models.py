"""``/v1/models``: the model that is served, and its limits."""

from __future__ import annotations

from http import HTTPMethod

from flask import Response

from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas.models import Model, ModelList
from api.schemas.requests import ModelPath
from core import errors
from core.settings import Settings


class ModelRoutes:
    """What callers may ask of models."""

    def __init__(self, settings: Settings) -> None:
        self._model = Model.served(settings)

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.GET,
            "/v1/models",
            self.listed,
            name="listModels",
            tag="models",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(ModelList, "The models.")},
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/models/<model_id>",
            self.shown,
            name="getModel",
            tag="models",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(Model, "The model.")},
            faults=(404,),
        )

    def listed(self, _caller: Caller) -> Response:
        """List the models that are served: there is one."""
        shown = self._model.id
        return reply(ModelList(data=[self._model], first_id=shown, last_id=shown))

    def shown(self, _caller: Caller, path: ModelPath) -> Response:
        """Get a model and its limits."""
        if path.model_id != self._model.id:
            raise errors.NotFound("There is no such model.")
        return reply(self._model)
