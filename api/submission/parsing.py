"""Parses submissions: forms and JSON become the same structure, with every fault of the request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from werkzeug import Request

from api import errors as problems
from api import framework
from api.schemas import fields, requests
from api.submission.dialogue import Conversation
from core import errors
from core.profiles import Detail
from core.spool import SpooledFile
from jobs import images
from jobs.images import contents
from jobs.store.responses import NewResponse

FORM = "multipart/form-data"
JSON = "application/json"
#: Types that clients send without knowing the content: none, those of object stores and browsers, and curl's default
#: for a body that is not a form. The body is taken for what its bytes are.
_UNSTATED = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/binary",
        "application/x-binary",
        "application/unknown",
        "unknown/unknown",
        "application/x-www-form-urlencoded",
    }
)
#: The fields for files in the forms of submissions, and of uploads.
_IMAGE = "image"
_UPLOADS = ("image", "file")
#: The types of bodies whose bytes show them.
_SHOWN = {contents.FORM: FORM, contents.JSON: JSON}
_UNNAMED = "This must be a file, with a file name."


@dataclass(frozen=True)
class ImageLink:
    """The URL of an image to download."""

    url: str = field(repr=False)


@dataclass(frozen=True)
class SubmittedImage:
    """An image as sent: a file, a URL, or the id of a stored image."""

    #: The JSON pointer of its place in the request.
    pointer: str
    source: SpooledFile | str | ImageLink = field(repr=False)
    #: The requested detail, of this image or of all; None: the default.
    detail: Detail | None


@dataclass(frozen=True)
class SubmissionKind:
    """The kind of a submission: a job or a group."""

    #: The path of the route.
    path: str
    fields: type[requests.JobFields | requests.GroupFields]
    request: type[requests.JobRequest | requests.GroupRequest]
    #: Fields that a form may contain several times.
    lists: frozenset[str] = frozenset()


JOB = SubmissionKind("/v1/jobs", requests.JobFields, requests.JobRequest)
GROUP = SubmissionKind(
    "/v1/groups", requests.GroupFields, requests.GroupRequest, lists=frozenset({"questions"})
)


@dataclass(frozen=True)
class ParsedSubmission:
    """A parsed job or group. With faults, ``job`` may be None and images may be missing."""

    kind: SubmissionKind
    job: requests.JobFields | requests.GroupFields | None
    images: tuple[SubmittedImage, ...]
    faults: tuple[errors.Fault, ...]
    #: The conversation whose folding is the question, from OpenAI's surface; its images are positions in ``images``.
    conversation: Conversation | None = None
    #: What else a client of that surface sent.
    response: NewResponse | None = None

    def close(self) -> None:
        """Free the memory and the disk space of all files."""
        for image in self.images:
            if isinstance(image.source, SpooledFile):
                image.source.close()


def read_submission(
    request: Request, *, kind: SubmissionKind, limits: requests.RequestLimits, max_file_bytes: int
) -> ParsedSubmission:
    """Parse the body of ``request``.

    Raises:
        core.errors.UnsupportedMediaType: the body is neither a form nor JSON.
        core.errors.RequestError: the body is malformed.
        werkzeug.exceptions.RequestEntityTooLarge: the body exceeds its limit.
    """
    body = framework.read_body(request)
    kind_sent = _kind(request, body)
    if kind_sent == FORM:
        form = framework.read_form(request, body, files=(_IMAGE,), max_file_bytes=max_file_bytes)
        body.close()
        return _parse_form(form, kind, limits, max_file_bytes)
    if kind_sent == JSON:
        with body.view() as data:
            parsed = _parse_json(framework.loads(data, long=_is_image), kind, limits)
        body.close()
        return parsed
    raise _wrong_type(request, body, f"{FORM} or {JSON}")


def read_upload(request: Request, *, max_file_bytes: int) -> SpooledFile:
    """Return the one image file in ``request``: in a form, in JSON or as the body.

    Raises:
        core.errors.RequestError: see :func:`read_submission`; or there is not exactly one file.
    """
    body = framework.read_body(request)
    kind_sent = _kind(request, body)
    if kind_sent == FORM:
        form = framework.read_form(request, body, files=_UPLOADS, max_file_bytes=max_file_bytes)
        file = _only_file(form)
        images.check_size(file.size, max_file_bytes)
        return file.content
    if kind_sent == JSON:
        with body.view() as data:
            try:
                upload = requests.ImageUpload.model_validate(
                    framework.loads(data, long=_is_uploaded_image)
                )
            except ValidationError as error:
                raise problems.refused(framework.faults_of(error)) from None
            content = decoded(upload.file)
        body.close()
        return content
    if request.mimetype in _UNSTATED or request.mimetype.startswith("image/"):
        return body
    raise _wrong_type(request, body, f"that of an image, {FORM} or {JSON}")


def _is_image(place: tuple[str | int, ...]) -> bool:
    """Whether the JSON of a submission has an image at ``place``."""
    return place[:1] == ("images",) and _is_uploaded_image(place[2:])


def _is_uploaded_image(place: tuple[str | int, ...]) -> bool:
    """Whether the JSON of an upload has an image at ``place``."""
    return place in {("data",), ("url",), ("image_url",), ("image_url", "url")}


def decoded(url: fields.LongText) -> SpooledFile:
    """Return the file in a data URL."""
    file = framework.new_file()
    pieces = url.pieces() if isinstance(url, framework.LongString) else images.pieces_of(url)
    for data in images.decode_data_url(pieces):
        file.write(data)
    return file


def _kind(request: Request, body: SpooledFile) -> str:
    """Return the type of a body: as its header says, or as its bytes show if the header says nothing.

    Raises:
        core.errors.UnsupportedMediaType: the header says one of the types for submissions, and the body is another one.
    """
    stated, head = request.mimetype, body.head(contents.HEAD_BYTES)
    shown = _SHOWN.get(images.describe(head) or "")
    if stated in _UNSTATED:
        if shown == FORM:
            # Without its boundary, which is in the header, a form cannot be read.
            raise _wrong_type(request, body, f"{FORM} with the boundary of the form")
        return shown or stated
    if stated in {FORM, JSON} and (images.sniff(head) or shown not in (None, stated)):
        raise _wrong_type(request, body, "that of the body")
    return stated


def _wrong_type(request: Request, body: SpooledFile, expected: str) -> errors.UnsupportedMediaType:
    """Return the error for a Content-Type header that must be ``expected``."""
    stated = problems.shortened(request.mimetype)
    sent = images.describe(body.head(contents.HEAD_BYTES))
    return errors.UnsupportedMediaType(
        f"The Content-Type header must be {expected}; it is {f'`{stated}`' if stated else 'missing'}"
        + (f", and the body is {sent}." if sent else "."),
        param="Content-Type",
    )


def _only_file(form: framework.FormBody) -> framework.FormFile:
    """Return the file of an upload's form. Raises :class:`core.errors.InvalidRequest` for any other form."""
    faults = [errors.Fault(problems.pointer(name), _UNNAMED) for name in sorted(form.unnamed)]
    unknown = [*form.fields, *(file.field for file in form.files if file.field not in _UPLOADS)]
    if not faults and (unknown or len(form.files) != 1):
        sentence = (
            f"The form must have exactly one part, a file called `image` or `file`; it has {len(form.files):,} file(s)"
            f" and {sum(map(len, form.fields.values())):,} text field(s)."
        )
        faults = [errors.Fault("#", sentence)]
    if faults:
        raise problems.refused(faults)
    return form.files[0]


def _parse_json(
    body: Any,  # noqa: ANN401 - JSON
    kind: SubmissionKind,
    limits: requests.RequestLimits,
) -> ParsedSubmission:
    faults: list[errors.Fault] = []
    job: requests.JobRequest | requests.GroupRequest | None = None
    try:
        job = kind.request.model_validate(body, context=limits)
    except ValidationError as error:
        faults = framework.faults_of(error, unknown=requests.unknown)
    faults += _too_many_generations(job, limits)
    inputs = list(enumerate(job.images)) if job else list(_valid_images(body, limits))
    submitted_images: list[SubmittedImage] = []
    for index, image in inputs:
        detail = image.requested_detail or (job.options.detail if job else None)
        place, source = _source(image)
        pointer = f"#/images/{index}/{place}"
        if isinstance(source, ImageLink) or place == "image_id":
            assert not isinstance(source, framework.LongString)  # noqa: S101 - ids are short
            submitted_images.append(SubmittedImage(pointer, source, detail))
            continue
        try:
            data = decoded(source)
        except errors.ImageRejected as error:
            faults.append(errors.Fault(pointer, error.message, error.specific_code))
        else:
            submitted_images.append(SubmittedImage(pointer, data, detail))
    return ParsedSubmission(kind, job, tuple(submitted_images), tuple(faults))


def _source(image: requests.ImageInput) -> tuple[str, fields.LongText | ImageLink]:
    """Return the place of an image's source in the image, and the source: an id, a link or a data URL."""
    if image.image_id is not None:
        return "image_id", image.image_id
    if image.address is None:
        return "data", image.data or ""
    place, url = image.address
    if fields.is_data_url(url) or isinstance(url, framework.LongString):
        return place, url
    return place, ImageLink(url)


def _too_many_generations(
    job: requests.JobFields | requests.GroupFields | None, limits: requests.RequestLimits
) -> list[errors.Fault]:
    """Return a fault if the request needs too many generations."""
    if job is None:
        return []
    questions, samples = len(job.requested), job.options.samples or 1
    if questions * samples <= limits.generations:
        return []
    sentence = (
        f"A request must need at most {limits.generations:,} generations; {questions} question(s) times "
        f"{samples} sample(s) are {questions * samples:,}."
    )
    return [errors.Fault("#/options/samples", sentence, "too_many_generations")]


def _valid_images(
    body: Any,  # noqa: ANN401 - JSON
    limits: requests.RequestLimits,
) -> Iterator[tuple[int, requests.ImageInput]]:
    """Yield the valid images of an invalid body, to report the faults of their files, too."""
    listed = body.get("images") if isinstance(body, dict) else None
    if not isinstance(listed, list) or len(listed) > limits.images:
        return
    for index, item in enumerate(listed):
        try:
            yield index, requests.ImageInput.model_validate(item)
        except ValidationError:
            continue  # The faults include it already.


def _parse_form(
    form: framework.FormBody,
    kind: SubmissionKind,
    limits: requests.RequestLimits,
    max_file_bytes: int,
) -> ParsedSubmission:
    form.refuse_undecodable(kind.fields.model_fields)
    values, faults = _form_values(form, kind.lists)
    job: requests.JobFields | requests.GroupFields | None = None
    try:
        job = kind.fields.model_validate(values, context=limits)
    except ValidationError as error:
        faults += framework.faults_of(error, unknown=requests.unknown)
    faults += _too_many_generations(job, limits)
    files = [file for file in form.files if file.field == _IMAGE]
    unknown = {file.field for file in form.files if file.field != _IMAGE}
    faults += [
        errors.Fault(
            problems.pointer(name), "There is no such file; the name of an image must be `image`."
        )
        for name in sorted(unknown)
    ]
    if not files and form.unnamed:
        return ParsedSubmission(kind, job, (), tuple(faults))
    if not 1 <= len(files) <= limits.images:
        sentence = (
            f"There must be 1 to {limits.images} files called `image`; there are {len(files):,}."
        )
        faults.append(errors.Fault("#/image", sentence))
        return ParsedSubmission(kind, job, (), tuple(faults))
    submitted_images: list[SubmittedImage] = []
    for index, file in enumerate(files):
        pointer = f"#/image/{index}"
        try:
            images.check_size(file.size, max_file_bytes)
        except errors.ImageRejected as error:
            faults.append(errors.Fault(pointer, error.message, error.specific_code))
        else:
            submitted_images.append(
                SubmittedImage(pointer, file.content, job.options.detail if job else None)
            )
    return ParsedSubmission(kind, job, tuple(submitted_images), tuple(faults))


def _form_values(
    form: framework.FormBody, lists: frozenset[str]
) -> tuple[dict[str, Any], list[errors.Fault]]:
    """Return the text fields of a form as the equivalent JSON."""
    values: dict[str, Any] = {}
    faults: list[errors.Fault] = []
    for name, texts in form.fields.items():
        if name in lists:
            values[name] = texts
            continue
        if len(texts) > 1:
            sentence = f"This must be given only once; it is given {len(texts):,} times."
            faults.append(errors.Fault(problems.pointer(name), sentence))
        values[name] = texts[0]
    faults += [errors.Fault(problems.pointer(name), _UNNAMED) for name in sorted(form.unnamed)]
    if "options" in values:
        try:
            values["options"] = framework.loads(values["options"].encode(), place=("options",))
        except errors.RequestError as error:
            del values["options"]
            not_json = errors.Fault("#/options", "This must be a JSON object.")
            faults += error.faults or (not_json,)
    return values, faults
