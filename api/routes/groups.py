"""``/v1/groups``: several questions about the same images."""

from http import HTTPStatus

import flask
from flask import Response

from api import errors as problems
from api.auth import Caller, Right
from api.framework import ResponseSpec, reply, route
from api.routes import texts
from api.schemas.groups import Group
from api.schemas.parameters import GroupHeaders
from api.schemas.paths import GroupId
from api.submission import GROUP, SubmissionService, read_submission
from core.database import Database
from core.settings import Settings
from jobs.store import history
from jobs.store.positions import PositionForecast


class GroupRoutes:
    """The routes of groups.

    Args:
        settings: limits.
        database: stores jobs.
        service: submits groups.
        forecast: estimates when jobs start.
    """

    TAG = "groups"

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        service: SubmissionService,
        forecast: PositionForecast,
    ) -> None:
        self._max_file_bytes = settings.max_image_mb * 2**20
        self._database = database
        self._service = service
        self._forecast = forecast

    @route.post(
        "/v1/groups",
        operation_id="createGroup",
        guard=Right.SUBMIT,
        answers={
            202: ResponseSpec(Group, "The group and its jobs.", ("Location", "Idempotent-Replayed"))
        },
        faults=(400, 409, 413, 415, 422),
        body=texts.CREATE_GROUP,
    )
    def create(self, caller: Caller, header: GroupHeaders) -> Response:
        """Ask several questions about the same images.

        Each question becomes a job with the same options; either all of them are stored or none. The first job runs
        first, and the others start after its first token, so the engine computes the images only once.
        """
        parsed = read_submission(
            flask.request,
            kind=GROUP,
            limits=self._service.limits,
            max_file_bytes=self._max_file_bytes,
        )
        accepted = self._service.submit(
            caller, parsed, header=header, request_id=problems.request_id()
        )
        views = history.group(self._database, accepted.job_id, account_id=None)
        if accepted.job is None:
            group = Group.of(views)
        else:
            last = history.last_place(
                self._database, accepted.job, self._forecast, behind=len(views) - 1
            )
            group = Group.of(views, last=last)
        headers = {"Location": group.urls.self}
        if accepted.replayed:
            headers["Idempotent-Replayed"] = "true"
        return reply(group, HTTPStatus.ACCEPTED, headers=headers)

    @route.get(
        "/v1/groups/<group_id>",
        operation_id="getGroup",
        guard=Right.READ,
        answers={200: ResponseSpec(Group, "The group and its jobs.")},
        faults=(404,),
    )
    def get(self, caller: Caller, group_id: GroupId) -> Response:
        """Get a group: its jobs, their status and their usage."""
        views = history.group(self._database, group_id, account_id=caller.scope)
        return reply(Group.of(problems.existing(views or None, "group")))
