"""Orders become jobs: the same order twice is one job, every fault is told, the bell rings after the commit."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta
from typing import Any, Protocol

import orjson
import structlog

from api import errors as problems
from api.auth import Caller
from api.schemas import requests
from api.submission import token_budget
from api.submission.downloads import Downloads
from api.submission.images import SubmissionImages, originals
from api.submission.parsing import GROUP, ParsedSubmission
from api.submission.webhook_targets import WebhookTargets
from core import errors, ids, logs
from core.database import Database
from core.profiles import Detail
from core.settings import Settings
from jobs.answers import instructions
from jobs.delivery import Webhook
from jobs.lifecycle import Priority
from jobs.store import history, idempotency, submission
from jobs.store.admission import Admission, Disk
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)


class Wakeup(Protocol):
    """What rings for workers, as :class:`jobs.queue.Wakeup` does."""

    def notify(self) -> None:
        """Ask for a bell and return at once."""


#: A job (of a group: its leader) that came in now, or had come in before by the same request.
Accepted = submission.Submitted


class SubmissionService:
    """Takes orders.

    Args:
        settings: limits and defaults.
        database: where jobs are kept.
        images: what finds and makes images.
        downloads: what fetches those that are named by URL.
        receivers: says who may be told of jobs.
        wakeup: what is rung after a job was kept.
        admission: says whether the queue has room.
        disk: says whether the disk has.
        quota: says whether the account may store more.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        images: SubmissionImages,
        downloads: Downloads,
        receivers: WebhookTargets,
        wakeup: Wakeup,
        admission: Admission,
        disk: Disk,
        quota: Quota,
    ) -> None:
        self._settings = settings
        self._database = database
        self._images = images
        self._downloads = downloads
        self._webhook_targets = receivers
        self._wakeup = wakeup
        self._admission = admission
        self._disk = disk
        self._quota = quota
        self._key_lifetime = timedelta(hours=settings.idempotency_hours)

    @property
    def limits(self) -> requests.RequestLimits:
        """What orders are checked against while they are read."""
        profile = self._settings.profile
        return requests.RequestLimits(
            model=self._settings.model,
            question_chars=profile.max_question_chars,
            output_tokens=profile.max_output_tokens,
            images=self._settings.max_images,
            samples=self._settings.max_samples,
            generations=self._settings.max_generations_per_request,
            special_tokens=profile.special_tokens,
        )

    def submit(
        self,
        caller: Caller,
        order: ParsedSubmission,
        *,
        header: requests.GroupHeaders,
        request_id: str,
    ) -> Accepted:
        """Keep what was ordered, a job or a whole group, or find what the same request has made before.

        Raises:
            core.errors.RequestError: with every fault of the order; or its key came with another one.
            core.errors.Unavailable: not now; nothing was kept.
        """
        faults = list(order.faults)
        known = self._images.known(caller.account_id, order.images, faults)
        asked_webhook = order.job.options.webhook if order.job is not None else None
        webhook = self._webhook_targets.of_job(caller.account_id, asked_webhook, faults)
        fingerprint: str | None = None
        if header.idempotency_key is not None and order.job is not None and not faults:
            requested = _requested(order.job, originals(order.images, known), header)
            fingerprint = _fingerprint(order.kind.path, caller.account_id, requested)
            replayed = self._replay(caller.account_id, header.idempotency_key, fingerprint)
            if replayed is not None:
                return replayed
        # After the replay: what was accepted before the key had this limit is still found.
        faults += _above(order, caller.highest_priority)
        if order.job is not None and not faults:
            # Before anything is decoded: that is the costly part.
            replayed = self._admit(
                caller.account_id,
                header.idempotency_key,
                fingerprint,
                jobs=len(order.job.requested),
            )
            if replayed is not None:
                return replayed
        # With faults the job will not be; then nobody's server is asked for its pictures.
        with self._downloads.memory(caller.account_id) as memory:
            sent = (
                order.images
                if faults
                else self._downloads.fetched(caller.account_id, order.images, faults, memory=memory)
            )
            submitted_images = self._images.chosen(caller.account_id, sent, known, faults)
        del sent
        if order.job is None or faults:
            raise problems.refused(faults)
        job, options = order.job, order.job.options
        tokens = [tokens for _, tokens in submitted_images]
        first, *others = (
            submission.Follower(question, self._effective(options, question, tokens))
            for question in job.requested
        )
        return self._keep(
            submission.Submission(
                account_id=caller.account_id,
                actor=caller.actor,
                model=self._settings.model,
                question=first.question,
                images=submitted_images,
                options=first.options,
                metadata=options.metadata or {},
                priority=_class_of(options, caller.highest_priority),
                deadline=timedelta(
                    seconds=_deadline(options, header) or self._settings.deadline_seconds
                ),
                max_attempts=options.max_attempts or self._settings.max_attempts,
                request_id=request_id,
                idempotency_key=header.idempotency_key,
                fingerprint=fingerprint,
                followers=others if order.kind is GROUP else None,
                webhook=webhook,
            )
        )

    def rerun(
        self, caller: Caller, job_id: uuid.UUID, *, key: str | None, request_id: str
    ) -> Accepted:
        """Keep a new job with the input of ``job_id``, for the account that had that one.

        Raises:
            core.errors.NotFound: there is no such job for ``caller``.
            core.errors.Conflict: its input is gone, or its model is no longer served.
            core.errors.ImageQuarantined: an image of it may not be asked about.
        """
        view = history.get(self._database, job_id, account_id=caller.scope)
        if view is None:
            raise errors.NotFound("There is no such job.")
        job = view.job
        path = f"/v1/jobs/{ids.show('job', job_id)}/rerun"
        fingerprint = _fingerprint(path, job.account_id, None)
        if key is not None:
            replayed = self._replay(job.account_id, key, fingerprint)
            if replayed is not None:
                return replayed
        if job.question is None or any(image.image.removed_at for image in view.images):
            raise errors.Conflict("The input of this job was removed.")
        if job.model != self._settings.model:
            raise errors.Conflict("The model of this job is no longer served here.")
        self._images.check(job.account_id, [image.image.image_key for image in view.images])
        replayed = self._admit(job.account_id, key, fingerprint)
        if replayed is not None:
            return replayed
        return self._keep(
            submission.Submission(
                account_id=job.account_id,
                actor=caller.actor,
                model=job.model,
                question=job.question,
                images=[(image.image.id, image.tokens) for image in view.images],
                options=job.options,
                metadata=job.metadata_,
                priority=caller.highest_priority
                if job.priority.exceeds(caller.highest_priority)
                else job.priority,
                deadline=job.deadline_at - job.created_at,
                max_attempts=job.max_attempts,
                request_id=request_id,
                idempotency_key=key,
                fingerprint=fingerprint if key is not None else None,
                rerun_of=job.id,
                webhook=Webhook.of(job.webhook),
            )
        )

    def keep_image(self, caller: Caller, data: bytes, *, detail: Detail) -> uuid.UUID:
        """Keep an uploaded image; return its id, the same for the same file and detail.

        Raises:
            core.errors.ImageRejected: the file cannot be used.
            core.errors.ImageQuarantined: it may not be asked about.
            core.errors.Overloaded: no decoding process was free in time.
            core.errors.StorageQuotaExceeded: the account may not store it.
            core.database.DiskFull: there is no disk space.
        """
        self._disk.check()
        limit = self._quota.check(caller.account_id)
        image = self._images.new(caller.account_id, data, detail=detail)
        self._images.check(caller.account_id, [image.key])
        return submission.keep_image(
            self._database, account_id=caller.account_id, image=image, storage_limit=limit
        )

    def _effective(
        self, options: requests.JobOptions, question: str, image_tokens: list[int]
    ) -> dict[str, Any]:
        """Return all options of sampling as they will hold, whatever the defaults are later."""
        profile = self._settings.profile
        samples = options.samples or 1
        sampling = profile.sampling_of(samples)
        form = options.answer_format
        wanted = form.model_dump(exclude_none=True, by_alias=True) if form is not None else None
        return {
            "max_output_tokens": token_budget.output_tokens(
                profile,
                question=question + instructions.suffix(question, wanted, profile),
                image_tokens=image_tokens,
                requested=options.max_output_tokens,
            ),
            "temperature": _first(options.temperature, sampling.temperature),
            "top_p": _first(options.top_p, sampling.top_p),
            "seed": options.seed,
            "samples": samples,
            "answer_format": wanted,
            "guards": self._guards(options.guards),
        }

    def _guards(self, requested: requests.Guards | None) -> dict[str, bool]:
        """Return which guards watch the job: those asked for, the others as the installation has them."""
        settings = self._settings
        return {
            "loop": settings.guard_loop,
            "budget": settings.guard_budget,
            "convergence": settings.guard_convergence,
            "language": settings.guard_language,
            "verify": settings.guard_verify,
        } | (requested.model_dump(exclude_none=True) if requested else {})

    def _admit(
        self, account_id: uuid.UUID, key: str | None, fingerprint: str | None, *, jobs: int = 1
    ) -> Accepted | None:
        """Return None when there is room for so many new jobs, or what the same request has made just now.

        Raises:
            core.errors.QueueFull: as many wait as may.
            core.errors.StorageQuotaExceeded: the account stores as much as it may.
            core.database.DiskFull: there is no disk space.
        """
        self._disk.check()
        try:
            self._quota.check(account_id)
            self._admission.check(account_id, jobs=jobs)
        except (errors.QueueFull, errors.StorageQuotaExceeded):
            # The same request may be the one that took the last place: a replay is never refused.
            replayed = self._replay(account_id, key, fingerprint)
            if replayed is None:
                raise
            return replayed
        return None

    def _replay(
        self, account_id: uuid.UUID, key: str | None, fingerprint: str | None
    ) -> Accepted | None:
        if key is None or fingerprint is None:
            return None
        found = idempotency.replay(
            self._database,
            account_id=account_id,
            key=key,
            fingerprint=fingerprint,
            stored=self._key_lifetime,
        )
        return None if found is None else Accepted(found)

    def _keep(self, order: submission.Submission) -> Accepted:
        try:
            stored = submission.submit(
                self._database,
                order,
                key_lifetime=self._key_lifetime,
                storage_limit=self._quota.check(order.account_id),
            )
        except errors.StorageQuotaExceeded:
            # The same request may have used the last of the quota meanwhile.
            replayed = self._replay(order.account_id, order.idempotency_key, order.fingerprint)
            if replayed is None:
                raise
            return replayed
        logs.bind(job_id=ids.show("job", stored.job_id))
        if not stored.replayed:
            jobs = 1 + len(order.followers or ())
            self._admission.took(order.account_id, jobs=jobs)
            # For the leader of a group; its followers wait for it.
            self._wakeup.notify()
            _log.info(
                "job_submitted",
                images=len(order.images),
                rerun=order.rerun_of is not None,
                jobs=jobs,
            )
        return stored


def _class_of(options: requests.JobOptions, highest: Priority) -> Priority:
    """Return the class that is asked for, by default normal or, if the key's ``highest`` one is lower, that."""
    if options.priority is not None:
        return Priority(options.priority)
    return highest if Priority.NORMAL.exceeds(highest) else Priority.NORMAL


def _above(order: ParsedSubmission, highest: Priority) -> list[errors.Fault]:
    """Return the fault of an order whose class is above ``highest``, if it is."""
    requested = order.job.options.priority if order.job is not None else None
    if requested is None or not Priority(requested).exceeds(highest):
        return []
    sentence = f"The highest priority of this key is `{highest}`; `{requested}` was asked for."
    return [errors.Fault("#/options/priority", sentence, "priority_not_allowed")]


def _requested(
    job: requests.JobFields | requests.GroupFields,
    submitted_images: list[tuple[str, str]],
    header: requests.GroupHeaders,
) -> dict[str, Any]:
    """Return what an order comes to, the same for each way to write it."""
    options = job.options.model_dump(exclude_none=True, exclude={"detail", "deadline_seconds"})
    requested = (
        {"question": job.question}
        if isinstance(job, requests.JobFields)
        else {"questions": job.questions}
    )
    return {
        **requested,
        "images": submitted_images,
        "options": options,
        "deadline_seconds": _deadline(job.options, header),
    }


def _fingerprint(path: str, account_id: uuid.UUID, requested: dict[str, Any] | None) -> str:
    """Return the sha256 of a POST to ``path``, by which it is known when it comes again."""
    request = ["POST", path, account_id.hex, requested]
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _deadline(options: requests.JobOptions, header: requests.GroupHeaders) -> int | None:
    """Return the earlier of the two ways to ask for a deadline, in seconds."""
    requested = [seconds for seconds in (options.deadline_seconds, header.cancel_after) if seconds]
    return min(requested, default=None)


def _first(requested: float | None, default: float) -> float:
    return default if requested is None else requested
