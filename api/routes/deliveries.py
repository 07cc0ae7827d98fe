"""Routes of webhook deliveries: list those of a job, an endpoint or an account, get one, send one again."""

import uuid
from collections.abc import Sequence
from http import HTTPStatus

from flask import Response

from api import errors as problems
from api.auth import Caller, Right
from api.framework import ResponseSpec, reply, route
from api.schemas import deliveries as schemas
from api.schemas.paths import DeliveryId, EndpointId, JobId
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

    TAG = "webhooks"

    def __init__(self, *, database: Database, quota: Quota) -> None:
        self._database = database
        self._quota = quota

    @route.get(
        "/v1/jobs/<job_id>/deliveries",
        operation_id="listJobDeliveries",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
        faults=(404, 422),
    )
    def of_job(self, caller: Caller, job_id: JobId, query: schemas.JobDeliveriesQuery) -> Response:
        """List the deliveries of a job, oldest first, with the newest delivery attempts of each."""
        if not history.exists(self._database, job_id, account_id=caller.scope):
            raise problems.not_found("job")
        views, more = queries.of_job(self._database, job_id, limit=query.limit, after=query.after)
        return reply(_page(views, caller, has_more=more))

    @route.get(
        "/v1/webhook_endpoints/<endpoint_id>/deliveries",
        operation_id="listWebhookEndpointDeliveries",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
        faults=(404, 422),
    )
    def of_endpoint(
        self, caller: Caller, endpoint_id: EndpointId, query: schemas.DeliveriesQuery
    ) -> Response:
        """List the deliveries of an endpoint, newest first, with the newest delivery attempts of each."""
        if not endpoints.exists(self._database, endpoint_id, account_id=caller.scope):
            raise problems.not_found("webhook endpoint")
        views, more = queries.of_endpoint(
            self._database,
            endpoint_id,
            account_id=caller.scope,
            limit=query.limit,
            after=query.after,
            statuses=query.statuses,
        )
        return reply(_page(views, caller, has_more=more))

    @route.get(
        "/v1/deliveries",
        operation_id="listDeliveries",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.DeliveryList, "A page of deliveries.")},
        faults=(422,),
    )
    def of_account(self, caller: Caller, query: schemas.DeliveriesQuery) -> Response:
        """List all deliveries, newest first. Operators see those of all accounts."""
        views, more = queries.of_account(
            self._database,
            account_id=caller.scope,
            limit=query.limit,
            after=query.after,
            statuses=query.statuses,
        )
        return reply(_page(views, caller, has_more=more))

    @route.get(
        "/v1/deliveries/<delivery_id>",
        operation_id="getDelivery",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.DeliveryWithPayload, "The delivery.")},
        faults=(404,),
    )
    def get(self, caller: Caller, delivery_id: DeliveryId) -> Response:
        """Get a delivery with each attempt, the responses of the receiver, and the body that is sent."""
        return reply(_shown(self._find(delivery_id, caller), caller))

    @route.post(
        "/v1/deliveries/<delivery_id>/redeliver",
        operation_id="redeliver",
        guard=Right.COMMAND,
        answers={202: ResponseSpec(schemas.DeliveryWithPayload, "The delivery, with its new try.")},
        faults=(404, 409),
    )
    def redeliver(self, caller: Caller, delivery_id: DeliveryId) -> Response:
        """Send once more, now, with the same `webhook-id`.

        It is sent to a disabled endpoint, too. The automatic schedule does not change.
        """
        # Each try is kept.
        if caller.scope is not None:
            self._quota.check(caller.scope)
        made = redelivery.redeliver(self._database, delivery_id, account_id=caller.scope)
        if made is None:
            raise problems.not_found("delivery")
        return reply(_shown(self._find(delivery_id, caller), caller), HTTPStatus.ACCEPTED)

    def _find(self, delivery_id: uuid.UUID, caller: Caller) -> queries.DeliveryView:
        view = queries.get(self._database, delivery_id, account_id=caller.scope)
        return problems.existing(view, "delivery")


def _page(
    views: Sequence[queries.DeliveryView], caller: Caller, *, has_more: bool
) -> schemas.DeliveryList:
    data = [schemas.Delivery.of(view, everywhere=caller.everywhere) for view in views]
    return schemas.DeliveryList.of(data, has_more=has_more)


def _shown(view: queries.DeliveryView, caller: Caller) -> schemas.DeliveryWithPayload:
    return schemas.DeliveryWithPayload.of(view, everywhere=caller.everywhere)
