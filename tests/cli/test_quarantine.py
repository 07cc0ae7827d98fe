"""``longlook quarantine`` against canned answers."""

from __future__ import annotations

import json

from cli import quarantine
from tests.cli.commands import IMAGE_ID, QUARANTINED, longlook
from tests.cli.fake_api import FakeApi


def test_images_in_quarantine_are_listed_and_released(api: FakeApi) -> None:
    code, printed = longlook(api, "quarantine", "ls", "--json")
    assert (code, json.loads(printed)["data"]) == (0, [QUARANTINED])
    assert quarantine.row(QUARANTINED)[:3] == (IMAGE_ID, "acct_1", "3")

    code, printed = longlook(api, "quarantine", "release", IMAGE_ID, "--json")
    assert (code, json.loads(printed)) == (0, {"image_id": IMAGE_ID})
