"""What accounts share in the API: one that holds or queues all it can delays no other one's next call."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from jobs.images import Images
from jobs.settings import Settings
from tests.api import pictures
from tests.api.conftest import Caller
from tests.integration import sandbox_targets

Send = Callable[[Caller, bytes], TestResponse]


@pytest.fixture
def listener(short_folder: Path) -> Iterator[socket.socket]:
    """Where a decode that hangs tells that it has begun."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(short_folder / "begun"))
        server.listen(64)
        server.settimeout(60)
        yield server


@pytest.fixture
def decoder() -> Iterator[Images]:
    """Return the real decoders, which hang over some images."""
    images = Images.start(
        Settings.read({}, sandbox_processes=2, max_image_mb=1, sandbox_seconds=30),
        target=sandbox_targets.DECODE_OR_HANG,
    )
    yield images
    images.close()


#: All routes on which images come in.
_SENDS: tuple[Send, ...] = (
    lambda caller, image: caller("POST", "/v1/images", data=image, content_type="image/png"),
    lambda caller, image: caller("POST", "/v1/images", json={"data": pictures.data_url(image)}),
    lambda caller, image: caller.form("/v1/images", {"file": image}),
    lambda caller, image: caller.submit(image=image),
    lambda caller, image: caller.form("/v1/jobs", {"image": image, "question": "How many?"}),
    lambda caller, image: caller(
        "POST",
        "/v1/groups",
        json={"questions": ["How many?"], "images": [{"data": pictures.data_url(image)}]},
    ),
)


def test_images_that_hang_leave_a_decoder_to_another_account(
    caller: Caller, stranger: Caller, decoder: Images, listener: socket.socket
) -> None:
    begun = listener.getsockname()
    with ThreadPoolExecutor(2 * len(_SENDS)) as threads:
        hanging = [
            threads.submit(send, caller, sandbox_targets.hanging(pictures.png(), begun, salt=salt))
            for salt, send in enumerate(2 * _SENDS)
        ]
        for _ in range(2):
            listener.accept()[0].close()
        served = [send(stranger, pictures.png()).status_code for send in _SENDS]
        held, done = decoder.shares.held, [one for one in hanging if one.done()]
        decoder.close()

    assert served == [201, 201, 201, 202, 202, 202]
    assert (held, done) == (2, [])
    assert {one.result().status_code for one in hanging} == {503}
