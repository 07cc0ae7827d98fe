"""``/v1/models``: the served model and its limits."""

from flask import Response

from api import errors as problems
from api.auth import Right
from api.framework import ResponseSpec, reply, route
from api.schemas.models import Model, ModelList
from api.schemas.paths import ModelName
from core import errors
from core.settings import Settings


class ModelRoutes:
    """The routes of models."""

    TAG = "models"
    ERRORS = problems.OPENAI_CHAT

    def __init__(self, settings: Settings) -> None:
        self._model = Model.served(settings)

    @route.get(
        "/v1/models",
        operation_id="listModels",
        guard=Right.READ,
        answers={200: ResponseSpec(ModelList, "The models.")},
    )
    def list_all(self) -> Response:
        """List the served models: there is one."""
        model_id = self._model.id
        return reply(ModelList(data=[self._model], first_id=model_id, last_id=model_id))

    @route.get(
        "/v1/models/<path:model_id>",
        operation_id="getModel",
        guard=Right.READ,
        answers={200: ResponseSpec(Model, "The model.")},
        faults=(404,),
    )
    def get(self, model_id: ModelName) -> Response:
        """Get a model and its limits.

        A slash in its name is encoded: `/v1/models/Qwen%2FQVQ-72B-Preview`.
        """
        if model_id != self._model.id:
            raise errors.NotFound(
                f"There is no such model; the service has `{self._model.id}`.",
                code="model_not_found",
                param="model",
            )
        return reply(self._model)
