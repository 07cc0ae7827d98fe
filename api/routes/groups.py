"""``/v1/groups``: several questions about the same images, and how they do."""

from __future__ import annotations

import uuid
from http import HTTPMethod, HTTPStatus

import flask
from flask import Response

from api import errors as problems
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.routes import texts
from api.schemas.groups import Group
from api.schemas.requests import GroupHeaders, GroupPath
from api.submission import GROUP, SubmissionService, read_order
from core import errors, ids, logs
from core.database import Database
from core.settings import Settings
from jobs.store import history
from jobs.store.positions import PositionForecast


class GroupRoutes:
    """What callers may do with groups.

    Args:
        settings: limits.
        database: where jobs are kept.
        service: what takes new ones.
        forecast: when they may begin.
    """

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

    def declare(self, router: Router, gate: Gate) -> None:
        """Put the routes into ``router``."""
        router.declare(
            HTTPMethod.POST,
            "/v1/groups",
            self.create,
            name="createGroup",
            tag="groups",
            guard=gate.admits(Right.SUBMIT),
            answers={
                202: ResponseSpec(
                    Group, "The group and its jobs.", ("Location", "Idempotent-Replayed")
                )
            },
            faults=(400, 409, 413, 415, 422),
            body=texts.CREATE_GROUP,
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/groups/<group_id>",
            self.show,
            name="getGroup",
            tag="groups",
            guard=gate.admits(Right.READ),
            answers={200: ResponseSpec(Group, "The group and its jobs.")},
            faults=(404,),
        )

    def create(self, caller: Caller, header: GroupHeaders) -> Response:
        """Ask several questions about the same images.

        Each question becomes a job, with the same options; all of them are kept, or none. The first runs
        first, and the others when it has its first token, so that the engine computes the images once.
        """
        order = read_order(
            flask.request,
            kind=GROUP,
            limits=self._service.limits,
            max_file_bytes=self._max_file_bytes,
        )
        accepted = self._service.submit(
            caller, order, header=header, request_id=problems.request_id()
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

    def show(self, caller: Caller, path: GroupPath) -> Response:
        """Get a group: its jobs, where they stand, what they cost and what they shared."""
        group_id = ids.parse("grp", path.group_id)
        if group_id is None:
            raise _not_found()
        logs.bind(group_id=path.group_id)
        return reply(self._find(group_id, caller.scope))

    def _find(self, group_id: uuid.UUID, scope: uuid.UUID | None) -> Group:
        views = history.group(self._database, group_id, account_id=scope)
        if not views:
            raise _not_found()
        return Group.of(views)


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such group.")
