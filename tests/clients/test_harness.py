"""A public harness gets from the real model what ``longlook eval`` gets. It is run where it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import scenes
from tests.clients.service import Service
from tests.harness import programs
from tests.harness.answers import accuracy, faults
from tests.real_engine import RealEngine

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("service", ["sqlite"], indirect=True),
]

SCENES, SEED = 20, 1


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> RealEngine:
    """Return the real engine, in place of the scripted one, unless lmms-eval is not installed."""
    try:
        programs.check()
    except programs.Missing as missing:
        pytest.skip(str(missing))
    started: RealEngine = request.getfixturevalue("real_engine")
    return started


@pytest.fixture
def target(service: Service) -> programs.Target:
    """Return the service."""
    return programs.Target(service.stack.url, service.key, service.model)


def test_lmms_eval_and_longlook_eval_get_the_same_answers_of_the_promised_accuracy(
    target: programs.Target, tmp_path: Path
) -> None:
    ids = programs.draw(tmp_path, SCENES, SEED)

    chats = programs.lmms_eval(tmp_path, target)
    batch = programs.longlook_eval(tmp_path, target)

    assert list(faults(ids, {"lmms-eval": chats, "longlook eval": batch})) == []
    counted = accuracy(chats)
    assert counted.questions == SCENES
    # What the model card states is not above what this sample allows.
    assert scenes.card_total().share <= counted.high


def test_requests_that_fail_are_faults_and_no_wrong_answers(
    target: programs.Target, tmp_path: Path
) -> None:
    ids = programs.draw(tmp_path, 2, SEED)

    refused = programs.lmms_eval(tmp_path, replace(target, key="ll_unknown"))

    assert accuracy(refused).failed == len(ids)
    found = list(faults(ids, {"lmms-eval": refused}))
    assert [fault.partition(" failed: ")[0] for fault in found] == [f"{i}: lmms-eval" for i in ids]
    assert all("[LMMS_EVAL_REQUEST_FAILED" in fault for fault in found)
