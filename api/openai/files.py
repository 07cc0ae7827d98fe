"""``/v1/files``: upload, list, get, download and delete files."""

from __future__ import annotations

import re
import urllib.parse
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import flask
from flask import Response
from pydantic import ValidationError

from api import errors as problems
from api import framework
from api.auth import Caller, Right
from api.framework import RequestBodySpec, ResponseSpec, reply, route
from api.schemas import files as schemas
from api.schemas.paths import FileId
from api.serving import current
from api.submission import SubmissionService
from core import errors, ids
from core.database import Database
from core.settings import Settings
from core.shares import Shares
from core.spool import SpooledFile
from jobs import images, records
from jobs.store import files
from jobs.store.admission import Disk
from jobs.store.storage import Quota

_ONE = "/v1/files/<file_id>"
_FORM: Final = "multipart/form-data"
_FIELD: Final = "file"
#: Form fields of a nested object, by their names in the object.
_EXPIRY: Final = {"expires_after[anchor]": "anchor", "expires_after[seconds]": "seconds"}
#: More are never valid, and the conversion refuses thousands.
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
#: How long files of batches are stored if the caller does not say.
BATCH_DAYS: Final = 30
#: The server sends this much of a response by itself; a longer one needs a thread until its client has it.
_HELD_BYTES: Final = 2**20
_BUSY_SECONDS: Final = 5
_CONTENT = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class FileRoutes:
    """The routes of files.

    Args:
        settings: limits, and the periods of retention.
        database: stores files.
        service: decodes images.
        quota: the storage quota of accounts.
        disk: the free disk space.
        held_open: the places of responses that take long.
    """

    TAG = "files"
    ERRORS = problems.OPENAI

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        service: SubmissionService,
        quota: Quota,
        disk: Disk,
        held_open: Shares,
    ) -> None:
        self._max_bytes = settings.max_file_bytes
        self._max_image_bytes = settings.max_image_mb * 2**20
        self._settings = settings
        self._database = database
        self._service = service
        self._quota = quota
        self._disk = disk
        self._held_open = held_open

    @route.post(
        "/v1/files",
        operation_id="createFile",
        guard=Right.SUBMIT,
        answers={200: ResponseSpec(schemas.File, "The file.")},
        faults=(400, 403, 413, 415),
        body=RequestBodySpec({_FORM: schemas.FileForm}, carries_file=True),
    )
    def create(self, caller: Caller) -> Response:
        """Upload a file: the requests of a batch (`batch`), an image (`vision`), or anything else.

        The largest file is `LONGLOOK_MAX_FILE_MB`, whatever the limit of other requests is. Files of batches expire
        after 30 days unless `expires_after` says otherwise; other files do not expire on their own.
        """
        if flask.request.mimetype != _FORM:
            raise errors.UnsupportedMediaType(
                f"The Content-Type header must be {_FORM}.", param="Content-Type"
            )
        self._disk.check()
        limit = self._quota.check(caller.account_id)
        body = framework.read_body(flask.request)
        # Without the file: a copy of it would take as much of the account's share of the disk again.
        form = framework.read_form(flask.request, body, files=(_FIELD,), max_file_bytes=0)
        requested, sent = _parse(form)
        self._check_size(sent.size)
        if requested.purpose == "vision":
            self._check_image(caller, body, sent.size)
        new = files.NewFile(
            caller.account_id,
            purpose=requested.purpose,
            filename=sent.name or "upload",
            lifetime=self._lifetime(requested),
        )
        pieces = framework.file_pieces(flask.request, body, _FIELD)
        stored = files.store(self._database, new, pieces, limit=limit)
        return reply(schemas.File.of(stored))

    @route.get(
        "/v1/files",
        operation_id="listFiles",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.FileList, "A page of files.")},
        faults=(400,),
    )
    def list_all(self, caller: Caller, query: schemas.FilesQuery) -> Response:
        """List files, those that batches wrote included. Operators see those of all accounts."""
        listed, more = files.page(
            self._database,
            account_id=caller.scope,
            purpose=query.purpose,
            limit=query.limit,
            after=query.after,
            newest_first=query.order == "desc",
        )
        data = [schemas.File.of(file) for file in listed]
        return reply(schemas.FileList.of(data, has_more=more))

    @route.get(
        _ONE,
        operation_id="getFile",
        guard=Right.READ,
        answers={200: ResponseSpec(schemas.File, "The file.")},
        faults=(404,),
    )
    def get(self, caller: Caller, file_id: FileId) -> Response:
        """Get what is known of a file."""
        return reply(schemas.File.of(self._find(caller, file_id)))

    @route.get(
        f"{_ONE}/content",
        operation_id="getFileContent",
        guard=Right.READ,
        answers={200: ResponseSpec(None, "The bytes as they were sent.", (), _CONTENT)},
        faults=(404,),
    )
    def content(self, caller: Caller, file_id: FileId) -> Response:
        """Download a file."""
        file = self._find(caller, file_id)
        if flask.request.method == "HEAD":
            response = Response(content_type="application/octet-stream")
        else:
            sent = _Content(self._database, file, self._held_open, account_id=caller.account_id)
            response = Response(sent, content_type="application/octet-stream")
        response.headers["Content-Length"] = str(file.bytes)
        response.headers["Content-Disposition"] = attachment(file.filename)
        return response

    @route.delete(
        _ONE,
        operation_id="deleteFile",
        guard=Right.COMMAND,
        answers={200: ResponseSpec(schemas.FileDeleted, "The file is deleted.")},
        faults=(404, 409),
    )
    def delete(self, caller: Caller, file_id: FileId) -> Response:
        """Delete a file.

        The input file of a batch that has not ended cannot be deleted (`file_in_use`): cancel the batch first. Jobs
        that used an image keep it, and the results of a batch stay when its input file is deleted.
        """
        if not files.remove(self._database, file_id, account_id=caller.scope):
            raise problems.not_found("file")
        return reply(schemas.FileDeleted(id=ids.show("file", file_id)))

    def _find(self, caller: Caller, file_id: uuid.UUID) -> records.files.FileEntry:
        known = files.get(self._database, file_id, account_id=caller.scope)
        return problems.existing(known, "file")

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise errors.BodyTooLarge(
                f"A file must have at most {self._max_bytes:,} bytes; this one has {size:,}.",
                param=_FIELD,
            )

    def _check_image(self, caller: Caller, body: SpooledFile, size: int) -> None:
        """Check that the file of a form is an image that jobs can use."""
        try:
            images.check_size(size, self._max_image_bytes)
            content = framework.new_file()
            for piece in framework.file_pieces(flask.request, body, _FIELD):
                content.write(piece)
            self._service.check_image(caller, content)
        except errors.ImageRejected as error:
            fault = errors.Fault(f"#/{_FIELD}", error.message, error.specific_code)
            raise problems.refused([fault]) from None

    def _lifetime(self, requested: schemas.FileForm) -> timedelta | None:
        expiry = requested.expires_after
        seconds = None if expiry is None else expiry.seconds
        if requested.purpose == "batch":
            return lifetime_of_batches(self._settings, seconds)
        return None if seconds is None else timedelta(seconds=seconds)


def lifetime_of_batches(settings: Settings, seconds: int | None = None) -> timedelta:
    """Return how long a file of a batch is stored: as requested, or 30 days, but not longer than answers or batches.

    A batch goes after the retention period of answers or of timelines, and with it goes what finds the copies of a job
    in its files.
    """
    wanted = timedelta(days=BATCH_DAYS) if seconds is None else timedelta(seconds=seconds)
    longest = (settings.retention_answer_days, settings.retention_timeline_days)
    return min(wanted, *(timedelta(days=days or BATCH_DAYS) for days in longest))


def attachment(filename: str) -> str:
    """Return the Content-Disposition of a download: the name in UTF-8 by RFC 6266, and in ASCII for old clients."""
    plain = "".join(char if char.isascii() and char not in '"\\%' else "_" for char in filename)
    encoded = urllib.parse.quote(filename, safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}"


def _parse(form: framework.FormBody) -> tuple[schemas.FileForm, framework.FormFile]:
    """Return the fields of the form, and its file.

    Raises:
        core.errors.RequestError: lists every fault.
    """
    form.refuse_undecodable(form.fields)
    values: dict[str, Any] = {}
    expiry: dict[str, str | int] = {}
    faults: list[errors.Fault] = []
    for name, texts in form.fields.items():
        if len(texts) > 1:
            faults.append(errors.Fault(problems.pointer(name), "This must be given only once."))
        inner = _EXPIRY.get(name)
        if inner is None:
            values[name] = texts[0]
        else:
            expiry[inner] = _number(texts[0]) if inner == "seconds" else texts[0]
    if expiry:
        values.setdefault("expires_after", expiry)
    if len(form.files) == 1 and form.files[0].field == _FIELD:
        values[_FIELD] = ""
    elif form.files or form.unnamed:
        faults.append(
            errors.Fault(f"#/{_FIELD}", "This must be exactly one file, with a file name.")
        )
        values[_FIELD] = ""
    requested: schemas.FileForm | None = None
    try:
        requested = schemas.FileForm.model_validate(values)
    except ValidationError as error:
        faults += framework.faults_of(error)
    if requested is None or faults:
        raise problems.refused(faults)
    return requested, form.files[0]


def _number(text: str) -> str | int:
    """Return a text of digits as a number; others stay, and are refused."""
    return int(text) if _DIGITS.fullmatch(text) else text


class _Content:
    """The bytes of a file, as the body of a response. A large one holds a place while its client reads it.

    Raises:
        core.errors.StreamsInUse: the account has no free place.
    """

    def __init__(
        self,
        database: Database,
        file: records.files.FileEntry,
        held_open: Shares,
        *,
        account_id: uuid.UUID,
    ) -> None:
        self._database = database
        self._file = file
        self._held_open = held_open
        self._account_id = account_id
        self._holds = file.bytes > _HELD_BYTES
        if self._holds and not held_open.take(account_id):
            raise errors.StreamsInUse(
                "Too many downloads, streams and waits are open, for this account or for this process.",
                retry_after=_BUSY_SECONDS,
            )

    def __iter__(self) -> Iterator[bytes]:
        if self._holds:
            # A client that has hung up accepts nothing more, which ends the response.
            current.hold(lambda: None)
        return files.read(self._database, self._file.id)

    def close(self) -> None:
        """Give the place back. Idempotent."""
        holds, self._holds = self._holds, False
        if holds:
            self._held_open.give_back(self._account_id)
