"""Types of the path parameters of all routes."""

import uuid
from typing import Annotated

from api.framework import PathId, PathText

JobId = Annotated[uuid.UUID, PathId("job", "job", "`job_` and 32 hex digits.")]
ResponseId = Annotated[uuid.UUID, PathId("resp", "response", "`resp_` and 32 hex digits.")]
GroupId = Annotated[uuid.UUID, PathId("grp", "group", "`grp_` and 32 hex digits.")]
ImageId = Annotated[uuid.UUID, PathId("img", "image", "`img_` and 32 hex digits.")]
QuarantinedImageId = Annotated[
    uuid.UUID, PathId("img", "image in quarantine", "`img_` and 32 hex digits.")
]
EndpointId = Annotated[uuid.UUID, PathId("we", "webhook endpoint")]
DeliveryId = Annotated[uuid.UUID, PathId("dlv", "delivery")]
RecoveryId = Annotated[uuid.UUID, PathId("rcv", "recovery")]
FileId = Annotated[uuid.UUID, PathId("file", "file", "`file-` and 32 hex digits.")]
BatchId = Annotated[uuid.UUID, PathId("batch", "batch", "`batch_` and 32 hex digits.")]
OperationId = Annotated[uuid.UUID, PathId("op", "operation", "`op_` and 32 hex digits.")]
ModelName = Annotated[str, PathText("The model's name.")]
