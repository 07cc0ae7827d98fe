"""Submits jobs: checks every fault, replays idempotent requests, and wakes workers after the commit."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import orjson
import structlog

from api import errors as problems
from api.auth import Caller
from api.schemas import parameters, requests
from api.submission import token_budget
from api.submission.dialogue import Conversation, FoldedConversation
from api.submission.downloads import Downloads
from api.submission.images import (
    DEFAULT_DETAIL,
    Known,
    Prepared,
    SubmissionImages,
    originals,
)
from api.submission.parsing import GROUP, ParsedSubmission
from api.submission.webhook_targets import WebhookTargets
from core import errors, ids, logs
from core.database import Database, Transaction
from core.profiles import Detail
from core.settings import Settings
from core.spool import SpooledFile
from core.wakeup import Wakeup
from jobs.answers import instructions
from jobs.lifecycle import Priority
from jobs.store import history, idempotency, reruns, submission
from jobs.store.admission import Admission, Disk
from jobs.store.responses import NewResponse
from jobs.store.storage import Quota

_log = structlog.get_logger(__name__)

_TOO_LONG = "context_length_exceeded"

#: Called with a new job in the transaction that stores it.
Joined = Callable[[Transaction, uuid.UUID], None]
#: The job (of a group: its leader) that a request created, or that an identical request had created.
Accepted = submission.Submitted


class SubmissionService:
    """Submits jobs, groups, reruns and uploads.

    Args:
        settings: limits and defaults.
        database: stores jobs.
        images: looks up and decodes images.
        downloads: downloads images by URL.
        webhook_targets: checks the receivers of notifications.
        wakeup: wakes workers after a commit.
        admission: checks the limits of the queue.
        disk: checks the free disk space.
        quota: checks the storage quota of the account.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        images: SubmissionImages,
        downloads: Downloads,
        webhook_targets: WebhookTargets,
        wakeup: Wakeup,
        admission: Admission,
        disk: Disk,
        quota: Quota,
    ) -> None:
        self._settings = settings
        self._database = database
        self._images = images
        self._downloads = downloads
        self._webhook_targets = webhook_targets
        self._wakeup = wakeup
        self._admission = admission
        self._disk = disk
        self._quota = quota
        self._key_lifetime = timedelta(hours=settings.idempotency_hours)

    @property
    def limits(self) -> requests.RequestLimits:
        """The limits for parsing submissions."""
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
        parsed: ParsedSubmission,
        *,
        header: parameters.GroupHeaders,
        request_id: str,
        held: bool = False,
        joined: Joined = lambda _transaction, _job_id: None,
    ) -> Accepted:
        """Store a job or a whole group, or return what an identical request has created.

        Args:
            caller: whose job it is.
            parsed: the request.
            header: its headers.
            request_id: the request's id.
            held: whether the client waits for the answer on this connection; see :mod:`jobs.store.holds`.
            joined: called with a new job at the end of its transaction; what it raises undoes the submission.

        Raises:
            core.errors.RequestError: lists every fault; or another request had the same idempotency key.
            core.errors.Unavailable: the service cannot accept it now; nothing is stored.
        """
        faults = list(parsed.faults)
        known = self._images.known(caller.account_id, parsed.images, faults)
        requested_webhook = parsed.job.options.webhook if parsed.job is not None else None
        webhook = self._webhook_targets.of_job(caller.account_id, requested_webhook, faults)
        fingerprint: str | None = None
        if header.idempotency_key is not None and parsed.job is not None and not faults:
            requested = _requested(parsed, parsed.job, originals(parsed.images, known), header)
            fingerprint = _fingerprint(parsed.kind.path, caller.account_id, requested)
            replayed = self._replay(caller.account_id, header.idempotency_key, fingerprint)
            if replayed is not None:
                return replayed
        # After the replay, which must still return a job that was accepted before the key had this limit.
        faults += _priority_fault(parsed, caller.highest_priority)
        if parsed.job is not None and not faults:
            # Before decoding, which is the costly part.
            replayed = self._admit(
                caller.account_id,
                header.idempotency_key,
                fingerprint,
                jobs=len(parsed.job.requested),
            )
            if replayed is not None:
                return replayed
        submitted_images = self._prepared(caller, parsed, known, faults)
        if parsed.job is None or faults:
            raise problems.refused([*faults, *self._length_faults(parsed.conversation)])
        job, options = parsed.job, parsed.job.options
        questions, submitted_images, response = self._questions(parsed, job, submitted_images)
        tokens = [tokens for _, tokens in submitted_images]
        system = parsed.conversation.system if parsed.conversation is not None else ""
        first, *others = (
            submission.Follower(question, self._effective(options, question, tokens, system))
            for question in questions
        )
        return self._store(
            submission.Submission(
                account_id=caller.account_id,
                actor=caller.actor,
                model=self._settings.model,
                question=first.question,
                images=submitted_images,
                options=first.options,
                metadata=options.metadata or {},
                priority=_priority(options, caller.highest_priority),
                deadline=timedelta(
                    seconds=_deadline(options, header) or self._settings.deadline_seconds
                ),
                max_attempts=options.max_attempts or self._settings.max_attempts,
                request_id=request_id,
                idempotency_key=header.idempotency_key,
                fingerprint=fingerprint,
                followers=others if parsed.kind is GROUP else None,
                webhook=webhook.plain() if webhook is not None else None,
                held=held,
                response=response,
            ),
            joined,
        )

    def count(self, caller: Caller, parsed: ParsedSubmission) -> int:
        """Return the most tokens that the input of a submission takes; nothing is stored.

        Raises:
            core.errors.RequestError: lists every fault.
            core.errors.Unavailable: the images cannot be read now.
        """
        faults = list(parsed.faults)
        known = self._images.known(caller.account_id, parsed.images, faults)
        submitted_images = self._prepared(caller, parsed, known, faults)
        if parsed.job is None or faults:
            raise problems.refused([*faults, *self._length_faults(parsed.conversation)])
        questions, submitted_images, _ = self._questions(parsed, parsed.job, submitted_images)
        system = parsed.conversation.system if parsed.conversation is not None else ""
        return token_budget.input_tokens(
            self._settings.profile,
            question=system + "".join(questions),
            image_tokens=[tokens for _, tokens in submitted_images],
        )

    def rerun(
        self, caller: Caller, job_id: uuid.UUID, *, key: str | None, request_id: str
    ) -> Accepted:
        """Store a new job with the input of ``job_id``, for the account of that job.

        Raises:
            core.errors.NotFound: ``caller`` has no such job.
            core.errors.Conflict: its input was removed, or its model is not served now.
            core.errors.ImageQuarantined: one of its images is in quarantine.
        """
        view = history.get(self._database, job_id, account_id=caller.scope)
        view = problems.existing(view, "job")
        job = view.job
        path = f"/v1/jobs/{ids.show('job', job_id)}/rerun"
        fingerprint = _fingerprint(path, job.account_id, None)
        if key is not None:
            replayed = self._replay(job.account_id, key, fingerprint)
            if replayed is not None:
                return replayed
        new = reruns.prepare(
            job,
            view.images,
            model=self._settings.model,
            actor=caller.actor,
            highest=caller.highest_priority,
            request_id=request_id,
            key=key,
            fingerprint=fingerprint,
        )
        self._images.check(job.account_id, [image.image.image_key for image in view.images])
        replayed = self._admit(job.account_id, key, fingerprint)
        if replayed is not None:
            return replayed
        return self._store(new)

    def store_image(self, caller: Caller, data: SpooledFile, *, detail: Detail) -> uuid.UUID:
        """Store an uploaded image; return its id, which is the same for the same file and detail.

        Raises:
            core.errors.ImageRejected: the file cannot be used.
            core.errors.ImageQuarantined: the image is in quarantine.
            core.errors.Overloaded: no decoding process became free in time.
            core.errors.StorageQuotaExceeded: the storage quota is reached.
            core.database_faults.DiskFull: there is no disk space.
        """
        self._disk.check()
        limit = self._quota.check(caller.account_id)
        image = self._images.decode(caller.account_id, data, detail=detail)
        data.close()
        self._images.check(caller.account_id, [image.key])
        return submission.store_image(
            self._database, account_id=caller.account_id, image=image, storage_limit=limit
        )

    def check_image(self, caller: Caller, data: SpooledFile) -> None:
        """Check that a job of ``caller`` can use the image in ``data``; store nothing.

        Raises:
            core.errors.ImageRejected: it cannot.
            core.errors.Overloaded: no decoding process became free in time.
        """
        self._images.decode(caller.account_id, data, detail=DEFAULT_DETAIL)

    def _prepared(
        self, caller: Caller, parsed: ParsedSubmission, known: Known, faults: list[errors.Fault]
    ) -> list[Prepared]:
        """Return the images of a submission, and free their files; with faults nothing is downloaded."""
        with self._downloads.memory(caller.account_id) as memory:
            sent = (
                parsed.images
                if faults
                else self._downloads.download(
                    caller.account_id, parsed.images, faults, memory=memory
                )
            )
            submitted_images = self._images.prepare(caller.account_id, sent, known, faults)
        # Decoded images need their files no more, and the response may wait for the job.
        parsed.close()
        return submitted_images

    def _questions(
        self,
        parsed: ParsedSubmission,
        job: requests.JobFields | requests.GroupFields,
        submitted_images: list[Prepared],
    ) -> tuple[Sequence[str], list[Prepared], NewResponse | None]:
        """Return the questions of a submission, their images, and what its client sent.

        The questions and images of a conversation are those of the turns that fit.
        """
        response = parsed.response
        if parsed.conversation is None:
            return job.requested, submitted_images, response
        folded = self._fold(parsed.conversation, job.options, submitted_images)
        images = [submitted_images[position] for position in folded.images]
        return [folded.question], images, response and response.with_images(folded.images)

    def _length_faults(self, conversation: Conversation | None) -> list[errors.Fault]:
        """Return a fault if the text of a conversation is too long, for a request that has other faults, too."""
        longest = self._settings.profile.max_question_chars
        if conversation is None or next(conversation.foldings(longest=longest), None) is not None:
            return []
        return [errors.Fault(conversation.place, conversation.too_long(longest), _TOO_LONG)]

    def _fold(
        self,
        conversation: Conversation,
        options: requests.JobOptions,
        submitted_images: Sequence[tuple[object, int]],
    ) -> FoldedConversation:
        """Return the longest part of a conversation that fits.

        Raises:
            core.errors.InvalidRequest: not even the shortest one fits.
        """
        longest = self._settings.profile.max_question_chars
        fault: errors.RequestError | None = None
        for folded in conversation.foldings(longest=longest):
            tokens = [submitted_images[position][1] for position in folded.images]
            try:
                self._effective(options, folded.question, tokens, conversation.system)
            except errors.InvalidRequest as error:
                fault = error
            else:
                return folded
        sentence = conversation.too_long(longest) if fault is None else fault.message
        raise problems.refused([errors.Fault(conversation.place, sentence, _TOO_LONG)])

    def _effective(
        self,
        options: requests.JobOptions,
        question: str,
        image_tokens: list[int],
        system: str = "",
    ) -> dict[str, Any]:
        """Return all options of the job, with the defaults of today."""
        profile = self._settings.profile
        samples = options.samples or 1
        sampling = profile.sampling_of(samples)
        answer_format = (
            options.answer_format.model_dump(exclude_none=True, by_alias=True)
            if options.answer_format is not None
            else None
        )
        return {
            "max_output_tokens": token_budget.output_tokens(
                profile,
                question=system + question + instructions.behind(question, answer_format, profile),
                image_tokens=image_tokens,
                requested=options.max_output_tokens,
            ),
            "temperature": _first(options.temperature, sampling.temperature),
            "top_p": _first(options.top_p, sampling.top_p),
            "seed": options.seed,
            "samples": samples,
            "answer_format": answer_format,
            "guards": self._guards(options.guards),
            **({"system": system} if system else {}),
        }

    def _guards(self, requested: requests.Guards | None) -> dict[str, bool]:
        """Return which guards watch the job: as requested, or as the settings say."""
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
        """Return None if there is room for ``jobs`` new jobs, or what an identical request has just created.

        Raises:
            core.errors.QueueFull: the limit of queued jobs is reached.
            core.errors.StorageQuotaExceeded: the storage quota is reached.
            core.database_faults.DiskFull: there is no disk space.
        """
        self._disk.check()
        try:
            self._quota.check(account_id)
            self._admission.check(account_id, jobs=jobs)
        except (errors.QueueFull, errors.StorageQuotaExceeded):
            # An identical request may have taken the last place, and a replay is never refused.
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
        job_id = idempotency.replay(
            self._database,
            account_id=account_id,
            key=key,
            fingerprint=fingerprint,
            stored=self._key_lifetime,
        )
        return None if job_id is None else Accepted(job_id)

    def _store(
        self,
        new: submission.Submission,
        joined: Joined = lambda _transaction, _job_id: None,
    ) -> Accepted:
        try:
            stored = submission.submit(
                self._database,
                new,
                key_lifetime=self._key_lifetime,
                storage_limit=self._quota.check(new.account_id),
                joined=joined,
            )
        except errors.StorageQuotaExceeded:
            # An identical request may have used the rest of the quota.
            replayed = self._replay(new.account_id, new.idempotency_key, new.fingerprint)
            if replayed is None:
                raise
            return replayed
        logs.bind(job_id=ids.show("job", stored.job_id))
        if not stored.replayed:
            jobs = 1 + len(new.followers or ())
            self._admission.took(new.account_id, jobs=jobs)
            # One wakeup, for the leader of a group: its followers wait for it.
            self._wakeup.notify()
            _log.info(
                "job_submitted",
                images=len(new.images),
                rerun=new.rerun_of is not None,
                jobs=jobs,
            )
        return stored


def _priority(options: requests.JobOptions, highest: Priority) -> Priority:
    """Return the requested priority; the default is normal, or the key's ``highest`` if that is lower."""
    if options.priority is not None:
        return Priority(options.priority)
    return highest if Priority.NORMAL.exceeds(highest) else Priority.NORMAL


def _priority_fault(parsed: ParsedSubmission, highest: Priority) -> list[errors.Fault]:
    """Return a fault if the requested priority is above ``highest``."""
    requested = parsed.job.options.priority if parsed.job is not None else None
    if requested is None or not Priority(requested).exceeds(highest):
        return []
    sentence = f"The priority must be at most `{highest}` for this key; it is `{requested}`."
    return [errors.Fault("#/options/priority", sentence, "priority_not_allowed")]


def _requested(
    parsed: ParsedSubmission,
    job: requests.JobFields | requests.GroupFields,
    submitted_images: list[tuple[str, str]],
    header: parameters.GroupHeaders,
) -> dict[str, Any]:
    """Return the content of a submission, the same for JSON and forms."""
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
        **_of_response(parsed),
    }


def _of_response(parsed: ParsedSubmission) -> dict[str, Any]:
    response = parsed.response
    if response is None:
        return {}
    # A client that waits ends the job when it hangs up: a request in the background must not get such a job.
    return {"response": {**response.requested, "background": response.background}}


def _fingerprint(path: str, account_id: uuid.UUID, requested: dict[str, Any] | None) -> str:
    """Return the SHA-256 of a POST to ``path``, which identifies a repeated request."""
    request = ["POST", path, account_id.hex, requested]
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _deadline(options: requests.JobOptions, header: parameters.GroupHeaders) -> int | None:
    """Return the earlier of the two requested deadlines, in seconds."""
    requested = [seconds for seconds in (options.deadline_seconds, header.cancel_after) if seconds]
    return min(requested, default=None)


def _first(requested: float | None, default: float) -> float:
    return default if requested is None else requested
