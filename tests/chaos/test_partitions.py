"""The service on hosts of their own, whose network separates them for a time."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest

from core.database import Database
from tests import children, postgres
from tests.chaos.partitions import PartitionedDeployment, Partitions
from tests.chaos.run import report
from tests.namespaces import Missing

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def test_separated_workers_lose_no_job_and_work_again_when_the_network_is_whole() -> None:
    folder = children.short_folder()
    with contextlib.ExitStack() as exits:
        exits.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            deployment = PartitionedDeployment(folder)
            exits.callback(deployment.close)
            deployment.start()
        except postgres.Missing as missing:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(missing))
        except Missing as missing:
            pytest.skip(str(missing))
        database = exits.enter_context(contextlib.closing(Database(deployment.stack.database_url)))
        partitions = Partitions(deployment, database)
        found = report(deployment, partitions, partitions.inject, seed=7)

    assert found.wrong == []
    assert found.unasked == []
    assert found.figures.faults.total() == 5
