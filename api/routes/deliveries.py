"""Routes of webhook deliveries: list those of a job, an endpoint or an account, get one, send one again."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from http import HTTPMethod, HTTPStatus

from flask import Response

from api import cursors
from api.auth import Caller, Gate, Right
from api.framework import ResponseSpec, Router, reply
from api.schemas import deliveries as schemas
from api.schemas.requests import JobPath
from api.schemas.webhooks import EndpointPath
from core import errors, ids, logs
from core.database import Database
from jobs.store import history
from jobs.store.storage import Quota
from webhooks import endpoints, queries, redelivery


class DeliveryRoutes:
    """The routes of deliveries.

    Args:
        database: where they are stored.
        quota: refuses to send again for an account over its storage quota.
    """

    def __init__(self, *, database: Database, quota: Quota) -> None:
        self._database = database
        self._quota = quota

    def declare(self, router: Router, gate: Gate) -> None:
        """Register the routes with ``router``."""
        look = gate.admits(Right.READ)
        router.declare(
            HTTPMethod.GET,
            "/v1/jobs/<job_id>/deliveries",
            self.of_job,
            name="listJobDeliveries",
            tag="webhooks",
            guard=look,
            answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/webhook_endpoints/<endpoint_id>/deliveries",
            self.of_endpoint,
            name="listWebhookEndpointDeliveries",
            tag="webhooks",
            guard=look,
            answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
            faults=(404, 422),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/deliveries",
            self.of_account,
            name="listDeliveries",
            tag="webhooks",
            guard=look,
            answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
            faults=(422,),
        )
        router.declare(
            HTTPMethod.GET,
            "/v1/deliveries/<delivery_id>",
            self.show,
            name="getDelivery",
            tag="webhooks",
            guard=look,
            answers={200: ResponseSpec(schemas.DeliveryWithPayload, "The delivery.")},
            faults=(404,),
        )
        router.declare(
            HTTPMethod.POST,
            "/v1/deliveries/<delivery_id>/redeliver",
            self.redeliver,
            name="redeliver",
            tag="webhooks",
            guard=gate.admits(Right.STEER),
            answers={
                202: ResponseSpec(
                    schemas.DeliveryWithPayload, "The delivery, with its new attempt."
                )
            },
            faults=(404, 409),
        )

    def of_job(self, caller: Caller, path: JobPath, query: schemas.JobDeliveriesQuery) -> Response:
        """List the deliveries of a job, oldest first, with the newest attempts of each."""
        job_id = ids.parse("job", path.job_id)
        if job_id is None or history.get(self._database, job_id, account_id=caller.scope) is None:
            raise errors.NotFound("There is no such job.")
        logs.bind(job_id=path.job_id)
        page = cursors.page("dlv", query.after, limit=query.limit, order="asc")
        views, more = queries.of_job(self._database, job_id, limit=page.limit, after=page.after)
        return reply(_page(views, caller, has_more=more))

    def of_endpoint(
        self, caller: Caller, path: EndpointPath, query: schemas.DeliveriesQuery
    ) -> Response:
        """List the deliveries to an endpoint, newest first, with the newest attempts of each."""
        endpoint_id = ids.parse("we", path.endpoint_id)
        if (
            endpoint_id is None
            or endpoints.get(self._database, endpoint_id, account_id=caller.scope) is None
        ):
            raise errors.NotFound("There is no such webhook endpoint.")
        page = cursors.page("dlv", query.after, limit=query.limit, order="desc")
        views, more = queries.of_endpoint(
            self._database,
            endpoint_id,
            limit=page.limit,
            after=page.after,
            statuses=query.statuses,
        )
        return reply(_page(views, caller, has_more=more))

    def of_account(self, caller: Caller, query: schemas.DeliveriesQuery) -> Response:
        """List all deliveries, newest first. Operators see those of all accounts."""
        page = cursors.page("dlv", query.after, limit=query.limit, order="desc")
        views, more = queries.of_account(
            self._database,
            account_id=caller.scope,
            limit=page.limit,
            after=page.after,
            statuses=query.statuses,
        )
        return reply(_page(views, caller, has_more=more))

    def show(self, caller: Caller, path: schemas.DeliveryPath) -> Response:
        """Get a delivery with all attempts, the responses, and the payload."""
        return reply(_shown(self._find(_id(path), caller), caller))

    def redeliver(self, caller: Caller, path: schemas.DeliveryPath) -> Response:
        """Send a delivery once more, now, with the same `webhook-id`.

        It is sent to a disabled endpoint, too. The automatic schedule does not change.
        """
        delivery_id = _id(path)
        # Each attempt is stored.
        if caller.scope is not None:
            self._quota.check(caller.scope)
        attempt_id = redelivery.redeliver(self._database, delivery_id, account_id=caller.scope)
        if attempt_id is None:
            raise _not_found()
        return reply(_shown(self._find(delivery_id, caller), caller), HTTPStatus.ACCEPTED)

    def _find(self, delivery_id: uuid.UUID, caller: Caller) -> queries.DeliveryView:
        view = queries.get(self._database, delivery_id, account_id=caller.scope)
        if view is None:
            raise _not_found()
        return view


def _page(
    views: Sequence[queries.DeliveryView], caller: Caller, *, has_more: bool
) -> schemas.DeliveryList:
    return schemas.DeliveryList.of(views, has_more=has_more, everywhere=caller.everywhere)


def _shown(view: queries.DeliveryView, caller: Caller) -> schemas.DeliveryWithPayload:
    return schemas.DeliveryWithPayload.of(view, everywhere=caller.everywhere)


def _id(path: schemas.DeliveryPath) -> uuid.UUID:
    delivery_id = ids.parse("dlv", path.delivery_id)
    if delivery_id is None:
        raise _not_found()
    return delivery_id


def _not_found() -> errors.NotFound:
    return errors.NotFound("There is no such delivery.")
