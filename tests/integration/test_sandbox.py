"""The sandbox: a pool of killable children, with real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from core import errors
from core.sandbox import Sandbox, SandboxCpuExceeded, SandboxCrashed, SandboxTimeout
from tests import children
from tests.integration.sandbox_targets import BEGUN

TARGET = "tests.integration.sandbox_targets:obey"
MEBIBYTE = 2**20


#: Fills the only place of a pool with an endless call, prints the child's pid, and waits to be killed.
ENDLESS = f"""
import threading
from core.sandbox import Sandbox
pool = Sandbox({TARGET!r}, processes=1)
pool.warm()
pool.call(b"", order="echo")
print(*pool.pids, flush=True)
pool.call(b"", order="sleep_forever")
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(TARGET, processes=2, seconds=60, memory_mb=512, wait_seconds=60) as pool:
        yield pool


@pytest.fixture
def hasty() -> Iterator[Sandbox]:
    """Return a pool of one child with a short time limit."""
    with Sandbox(TARGET, processes=1, seconds=0.3) as pool:
        pool.warm()
        yield pool


@contextmanager
def endless_call(pool: Sandbox) -> Iterator[Future[tuple[dict[str, Any], bytes]]]:
    """Keep one child of ``pool`` busy until it is killed."""
    with ThreadPoolExecutor(1) as thread:
        call = thread.submit(pool.call, b"", order="tell_and_sleep")
        assert eventually(lambda: any(children.name(pid) == BEGUN for pid in pool.pids))
        yield call


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not (held := holds()) and time.monotonic() < deadline:
        os.sched_yield()
    return held


def is_gone(pid: int) -> bool:
    """Whether a process has ended, even if its parent has not read the exit status yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def pid_of(pool: Sandbox) -> int:
    facts, _ = pool.call(b"", order="about")
    return int(facts["pid"])


def test_facts_and_bytes_return_unchanged(sandbox: Sandbox) -> None:
    assert sandbox.call(b"\x00bytes\xff", order="echo", n=1, word="é") == (
        {"n": 1, "word": "é"},
        b"\x00bytes\xff",
    )


def test_payloads_larger_than_any_buffer_pass_in_both_directions(sandbox: Sandbox) -> None:
    payload = os.urandom(1024) * (8 * 1024)
    assert sandbox.call(payload, order="echo") == ({}, payload)


def test_an_empty_payload_passes(sandbox: Sandbox) -> None:
    assert sandbox.call(b"", order="echo") == ({}, b"")


def test_a_rejection_is_raised_in_the_parent(sandbox: Sandbox) -> None:
    with pytest.raises(errors.ImageRejected) as refused:
        sandbox.call(b"", order="refuse")
    assert refused.value.message == "It is too blue."
    assert refused.value.specific_code == "invalid_image_mode"
    assert refused.value.param == "image"


def test_a_child_survives_a_rejection(sandbox: Sandbox) -> None:
    before = pid_of(sandbox)
    with pytest.raises(errors.ImageRejected):
        sandbox.call(b"", order="refuse")

    assert pid_of(sandbox) == before


def test_output_and_input_of_a_library_do_not_disturb_the_protocol(
    sandbox: Sandbox,
) -> None:
    assert sandbox.call(b"intact", order="chatter") == ({"read": ""}, b"intact")


def test_a_child_gets_no_setting_and_no_secret_of_its_parent() -> None:
    script = (
        f"from core.sandbox import Sandbox\nwith Sandbox({TARGET!r}, processes=1) as pool:\n"
        "    print(*pool.call(b'', order='about')[0]['environment'])"
    )
    environment = {**os.environ, "LONGLOOK_PEPPER": "hot", "PYTHONPATH": str(Path.cwd())}
    names = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, check=True, text=True
    ).stdout.split()

    assert "PYTHONPATH" in names
    assert "LONGLOOK_PEPPER" not in names
    assert len(names) <= 9


def test_a_child_leads_its_own_session(sandbox: Sandbox) -> None:
    facts, _ = sandbox.call(b"", order="about")

    assert facts["session"] == facts["pid"] != os.getsid(0)


@pytest.mark.parametrize("order", ["fail", "die", "leave"])
def test_a_child_that_dies_is_a_crash_without_details_and_is_replaced(
    sandbox: Sandbox, order: str
) -> None:
    with pytest.raises(SandboxCrashed) as crashed:
        sandbox.call(b"", order=order)
    assert "own words" not in str(crashed.value)
    assert sandbox.call(b"next", order="echo") == ({}, b"next")


def test_a_child_cannot_grow_past_its_memory(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxCrashed):
        sandbox.call(b"", order="eat")


def test_a_call_that_uses_too_much_cpu_time_is_ended_and_the_next_one_has_its_own_time() -> None:
    with Sandbox(TARGET, processes=1, seconds=600, cpu_seconds=0.2) as pool:
        before = pid_of(pool)
        with pytest.raises(SandboxCpuExceeded):
            pool.call(b"", order="burn")
        assert eventually(lambda: is_gone(before))
        for _ in range(3):
            assert pool.call(b"x", order="echo") == ({}, b"x")


def test_time_without_cpu_does_not_count_as_cpu_time(hasty: Sandbox) -> None:
    with Sandbox(TARGET, processes=1, seconds=0.3, cpu_seconds=0.1) as pool:
        pool.warm()
        with pytest.raises(SandboxTimeout):
            pool.call(b"", order="sleep_forever")
    # A pool without a limit of the CPU time has one of the clock.
    with pytest.raises(SandboxTimeout):
        hasty.call(b"", order="burn")


def test_a_call_past_its_deadline_is_killed_and_the_child_replaced(hasty: Sandbox) -> None:
    (before,) = hasty.pids
    with pytest.raises(SandboxTimeout):
        hasty.call(b"", order="sleep_forever")
    assert is_gone(before)
    assert len(hasty.pids - {before}) == len(hasty.pids) == 1


def test_the_deadline_holds_while_the_payload_is_still_being_sent(hasty: Sandbox) -> None:
    (pid,) = hasty.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(SandboxTimeout):
        hasty.call(bytes(4 * MEBIBYTE), order="echo")
    assert is_gone(pid)


def test_a_child_that_died_while_idle_is_replaced_transparently(sandbox: Sandbox) -> None:
    first = pid_of(sandbox)
    os.kill(first, signal.SIGKILL)

    assert eventually(partial(is_gone, first))
    assert pid_of(sandbox) != first


def test_a_child_is_recycled_after_its_uses() -> None:
    with Sandbox(TARGET, processes=1, recycle_after=2) as pool:
        pids = [pid_of(pool) for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]
        assert is_gone(pids[0])


def test_sixteen_threads_share_two_children(sandbox: Sandbox) -> None:
    def round_trip(number: int) -> bool:
        payload = number.to_bytes(2, "big") * 50_000
        return sandbox.call(payload, order="echo", number=number) == ({"number": number}, payload)

    with ThreadPoolExecutor(16) as threads:
        assert all(threads.map(round_trip, range(160)))
    assert len(sandbox.pids) <= 2


def test_a_child_outlives_the_thread_that_started_it() -> None:
    with Sandbox(TARGET, processes=1) as pool:
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(pid_of(pool)))
        thread.start()
        thread.join()
        assert pid_of(pool) == pids[0]


def test_a_call_without_a_free_child_is_refused_in_time() -> None:
    with (
        Sandbox(TARGET, processes=1, seconds=60, wait_seconds=0.05) as pool,
        endless_call(pool),
    ):
        with pytest.raises(errors.Unavailable) as refused:
            pool.call(b"", order="echo")
        pool.close()

    assert refused.value.retryable


def test_close_kills_a_busy_child_and_its_caller_gets_unavailable() -> None:
    pool = Sandbox(TARGET, processes=2, seconds=60)
    none_yet = pool.pids
    pool.warm()
    pids = pool.pids
    with endless_call(pool) as call:
        pool.close()
        failure = call.exception()

    assert isinstance(failure, errors.Unavailable)
    assert (len(none_yet), len(pids)) == (0, 2)
    assert all(is_gone(pid) for pid in pids)
    assert pool.pids == frozenset()


def test_a_closed_pool_refuses_calls() -> None:
    pool = Sandbox(TARGET, processes=1)
    pool.close()

    with pytest.raises(errors.Unavailable):
        pool.call(b"", order="echo")
    pool.close()


def test_warming_the_pool_reports_a_target_that_does_not_load() -> None:
    with Sandbox("tests.integration.no_such_module:obey", processes=1) as pool:
        with pytest.raises(errors.Unavailable):
            pool.warm()
        assert pool.pids == frozenset()


def test_a_busy_child_dies_with_its_parent() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        alive_before = not is_gone(child)
        parent.kill()

    assert alive_before
    assert eventually(partial(is_gone, child))
