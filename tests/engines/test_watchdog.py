"""An engine that has room and says nothing is given up; one that is busy is believed."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from core import errors
from jobs import engine
from scripted import Scripted
from tests.engines import asking, raw_peer, subjects
from tests.engines.quiet_engine import Quiet, Watch, drain, made
from tests.engines.raw_peer import RawPeer
from tests.engines.subjects import Connect
from tests.scripted_server import BackgroundServer
from worker.engines.watchdog import WatchedEngine, prompt_tokens

SILENT = 60.0
#: More than the prompt of :func:`asking.ask` takes.
PROMPT = 5.0


class Mute:
    """An engine whose streams say what a test puts into them, with the load that the test gives it."""

    url = "mute:"

    def __init__(self) -> None:
        self.window = 4
        #: None: it does not tell.
        self.reported: engine.EngineLoad | None = engine.EngineLoad(running=0, waiting=0)
        self.looks = 0
        self.streams: list[MuteStream] = []
        self.aborted: list[str] = []

    @contextlib.contextmanager
    def stream(self, request: engine.GenerationRequest) -> Iterator[MuteStream]:
        del request
        self.streams.append(MuteStream())
        yield self.streams[-1]

    def abort(self, rid: str) -> None:
        self.aborted.append(rid)

    def facts(self) -> engine.EngineFacts:
        return engine.EngineFacts(model="m", version="1", window=self.window)

    def load(self) -> engine.EngineLoad:
        self.looks += 1
        if self.reported is None:
            raise errors.EngineUnavailable("It does not tell.")
        return self.reported

    def close(self) -> None:
        return


class MuteStream:
    def __init__(self) -> None:
        self.said: queue.SimpleQueue[engine.Chunk | None] = queue.SimpleQueue()
        self.closed = False

    def __iter__(self) -> Iterator[engine.Chunk]:
        while (chunk := self.said.get(timeout=120)) is not None:
            yield chunk

    def close(self) -> None:
        self.closed = True
        self.said.put(None)


class ControlledEngine:
    """A watched engine, its clock, and readers that wait for it in threads of their own."""

    def __init__(self) -> None:
        self.clock = Watch()
        self.engine = Mute()
        self.watched = WatchedEngine(
            self.engine, silent_seconds=SILENT, now=self.clock, period_seconds=0
        )
        self.watched.facts()
        self.readers: list[asking.Reader] = []

    def ask(self, *images: engine.EngineImage) -> asking.Reader:
        """Return what waits for its first token."""
        request = asking.ask(images=images or (asking.png(),))
        reader = asking.Reader(self.watched, request)
        self.readers.append(reader)
        assert asking.eventually(lambda: self.watched.waiting == self._silent())
        return reader

    def _silent(self) -> int:
        return sum(not reader.spoke.is_set() and reader.error is None for reader in self.readers)

    def speak(self, which: int) -> None:
        """Give a stream its first token."""
        self.engine.streams[which].said.put(engine.Chunk(text="I"))
        self.readers[which].wait_for_text()

    def wait(self, seconds: float) -> None:
        """Let time pass, with a look every five seconds."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            self.clock.seconds = min(self.clock.seconds + 5.0, end)
            self.watched.look()


@pytest.fixture
def conducted() -> Iterator[ControlledEngine]:
    conducted = ControlledEngine()
    yield conducted
    for reader in conducted.readers:
        reader.close()
        reader.join()


def test_a_silent_idle_engine_is_given_up_with_its_reason(
    conducted: ControlledEngine,
) -> None:
    reader = conducted.ask()

    conducted.wait(SILENT)
    still = reader.error
    conducted.wait(5 + PROMPT)
    reader.join()

    assert still is None
    assert isinstance(reader.error, errors.EngineSilent)
    assert (reader.error.code, reader.error.counted) == ("engine_silent", True)
    assert "0 of 4 streams running and 0 waiting" in reader.error.message
    assert conducted.engine.aborted == [reader.request.rid]
    assert conducted.engine.streams[0].closed
    assert conducted.watched.waiting == 0


@pytest.mark.parametrize(
    "load", [engine.EngineLoad(4, 1), engine.EngineLoad(1, 1), engine.EngineLoad(5, 9)]
)
def test_an_engine_with_a_queue_is_believed(
    conducted: ControlledEngine, load: engine.EngineLoad
) -> None:
    conducted.engine.reported = load
    reader = conducted.ask()

    conducted.wait(10 * SILENT)

    assert reader.error is None
    assert conducted.watched.waiting == 1


def test_of_streams_that_fill_the_engine_and_say_nothing_the_oldest_are_given_up_first(
    conducted: ControlledEngine,
) -> None:
    readers = [conducted.ask() for _ in range(6)]
    conducted.engine.reported = engine.EngineLoad(running=4, waiting=2)

    conducted.wait(SILENT + 5 + PROMPT)
    readers[0].join()
    conducted.engine.reported = engine.EngineLoad(running=4, waiting=1)
    conducted.wait(SILENT)
    waiting = conducted.watched.waiting
    conducted.wait(5 + PROMPT)
    readers[1].join()

    assert isinstance(readers[0].error, errors.EngineSilent)
    assert waiting == 5, "whoever comes to run then has all the time for it"
    assert isinstance(readers[1].error, errors.EngineSilent)
    assert [reader.error for reader in readers[2:]] == [None] * 4


def test_the_wait_in_a_queue_does_not_count(conducted: ControlledEngine) -> None:
    conducted.engine.reported = engine.EngineLoad(running=4, waiting=1)
    reader = conducted.ask()
    conducted.wait(10 * SILENT)
    conducted.engine.reported = engine.EngineLoad(running=3, waiting=0)

    conducted.wait(SILENT)
    still = reader.error
    conducted.wait(5 + PROMPT)
    reader.join()

    assert still is None
    assert isinstance(reader.error, errors.EngineSilent)


def test_one_look_at_a_queue_begins_the_wait_anew(conducted: ControlledEngine) -> None:
    reader = conducted.ask()
    conducted.wait(SILENT - 5)
    conducted.engine.reported = engine.EngineLoad(running=4, waiting=1)
    conducted.wait(5)
    conducted.engine.reported = engine.EngineLoad(running=0, waiting=0)

    conducted.wait(SILENT)

    assert reader.error is None
    assert conducted.watched.waiting == 1


def test_an_engine_that_does_not_tell_its_load_is_given_up_too(conducted: ControlledEngine) -> None:
    conducted.engine.reported = None
    reader = conducted.ask()

    conducted.wait(SILENT + 5 + PROMPT)
    reader.join()

    assert isinstance(reader.error, errors.EngineSilent)
    assert "does not report its load" in reader.error.message


def test_an_engine_that_tells_no_load_and_is_seen_to_be_full_is_believed(
    conducted: ControlledEngine,
) -> None:
    conducted.engine.reported = None
    for which in range(conducted.engine.window):
        conducted.ask()
        conducted.speak(which)
    reader = conducted.ask()

    conducted.wait(10 * SILENT)

    assert reader.error is None


def test_a_stream_with_a_first_token_is_not_checked(
    conducted: ControlledEngine,
) -> None:
    conducted.ask()
    conducted.speak(0)

    conducted.wait(10 * SILENT)

    assert conducted.readers[0].error is None
    assert conducted.engine.looks == 0


def test_a_long_prompt_has_more_time(conducted: ControlledEngine) -> None:
    large = asking.png(width=2800, height=2800)
    seconds = prompt_tokens(asking.ask(images=(large,))) / 500
    assert 20 < seconds < 25
    reader = conducted.ask(large)

    conducted.wait(SILENT + 20)
    still = reader.error
    conducted.wait(10)
    reader.join()

    assert still is None
    assert isinstance(reader.error, errors.EngineSilent)


def test_prompts_that_were_sent_before_have_their_time_as_well(conducted: ControlledEngine) -> None:
    large = asking.png(width=2800, height=2800)
    conducted.ask(large)
    conducted.wait(5)
    small = conducted.ask()

    conducted.wait(SILENT + 15)
    still = small.error
    conducted.wait(10)
    small.join()

    assert still is None
    assert isinstance(small.error, errors.EngineSilent)


def test_other_streams_that_start_show_that_the_engine_works(
    conducted: ControlledEngine,
) -> None:
    stuck = conducted.ask()
    conducted.wait(SILENT - 10)
    conducted.ask()
    conducted.speak(1)

    conducted.wait(15 + PROMPT)
    stuck.join()

    assert isinstance(stuck.error, errors.EngineSilent)
    assert stuck.error.answers_others


def test_a_long_queue_that_moves_gives_up_no_stream(conducted: ControlledEngine) -> None:
    """At each look one stream has left the queue, each time another one: none of them is stuck."""
    for _ in range(20):
        conducted.ask()
    for which in range(40):
        conducted.engine.reported = engine.EngineLoad(running=4, waiting=19)
        conducted.wait(5)
        conducted.speak(which)
        conducted.ask()

    assert [reader.error for reader in conducted.readers] == [None] * 60
    assert conducted.watched.waiting == 20


def test_a_stream_that_later_ones_overtake_is_given_up_in_a_long_queue(
    conducted: ControlledEngine,
) -> None:
    stuck = conducted.ask()
    for _ in range(5):
        conducted.ask()
    conducted.engine.reported = engine.EngineLoad(running=4, waiting=4)
    which = 0
    while stuck.error is None and which < 20:
        conducted.wait(5)
        which += 1
        conducted.speak(which)
        conducted.ask()
    stuck.join()

    assert isinstance(stuck.error, errors.EngineSilent)
    assert stuck.error.answers_others
    assert [reader.error for reader in conducted.readers[1:]] == [None] * (
        len(conducted.readers) - 1
    )


def test_later_tokens_of_another_stream_show_that_the_engine_is_well(
    conducted: ControlledEngine,
) -> None:
    conducted.ask()
    conducted.speak(0)
    stuck = conducted.ask()
    conducted.wait(SILENT - 5)
    conducted.engine.streams[0].said.put(engine.Chunk(text=" see"))
    assert asking.eventually(lambda: conducted.watched.answers)

    conducted.wait(10 + PROMPT)
    stuck.join()

    assert isinstance(stuck.error, errors.EngineSilent)
    assert stuck.error.answers_others


def test_what_spoke_long_ago_shows_nothing(conducted: ControlledEngine) -> None:
    stuck = conducted.ask()
    conducted.ask()
    conducted.speak(1)

    conducted.wait(SILENT + 5 + PROMPT)
    stuck.join()

    assert isinstance(stuck.error, errors.EngineSilent)
    assert not stuck.error.answers_others


def test_a_stream_that_is_closed_from_outside_ends_as_ever(conducted: ControlledEngine) -> None:
    reader = conducted.ask()

    reader.close()
    reader.join()

    assert (reader.error, conducted.engine.aborted) == (None, [])
    assert conducted.watched.waiting == 0


def test_a_whole_answer_comes_through(conducted: ControlledEngine) -> None:
    reader = conducted.ask()
    end = engine.Chunk(finish_reason="stop")
    bill = engine.Chunk(usage=engine.TokenUsage(1, 1, 1, 2))
    for chunk in (engine.Chunk(), engine.Chunk(text="a"), engine.Chunk(text="b"), end, bill, None):
        conducted.engine.streams[0].said.put(chunk)

    chunks = reader.join()

    assert asking.text(chunks) == "ab"
    assert chunks[-2:] == [end, bill]


def test_an_engine_that_is_silent_to_several_is_known_as_such(conducted: ControlledEngine) -> None:
    large = asking.png(width=2800, height=2800)
    readers = [conducted.ask(), conducted.ask(large)]

    conducted.wait(SILENT + 40)

    for reader in readers:
        reader.join()
        assert isinstance(reader.error, errors.EngineSilent)
        assert reader.error.silent_to_others


def test_streams_that_have_ended_long_ago_are_no_others(conducted: ControlledEngine) -> None:
    stuck = conducted.ask()
    conducted.ask()
    conducted.speak(1)
    conducted.wait(5)
    conducted.engine.streams[1].said.put(None)
    conducted.readers[1].join()

    conducted.wait(SILENT + PROMPT)
    stuck.join()

    assert isinstance(stuck.error, errors.EngineSilent)
    assert not stuck.error.silent_to_others


class TestThePool:
    @pytest.fixture
    def watch(self) -> Watch:
        return Watch()

    def test_an_engine_that_fell_silent_rests_and_is_tried_with_one_stream(
        self, watch: Watch
    ) -> None:
        only = Quiet()
        engines = made(only, watch=watch)
        engines.report(only, errors.EngineSilent("It said nothing."))
        resting = engines.acquire()

        watch.seconds += 1.0

        assert resting is None
        assert len(drain(engines)) == 1
        engines.report(only, None)
        assert len(drain(engines)) == 11

    def test_an_engine_that_answers_others_goes_on(self, watch: Watch) -> None:
        only = Quiet()
        engines = made(only, watch=watch)
        stuck = errors.EngineSilent("It said nothing.")
        stuck.answers_others = True

        engines.report(only, stuck)

        assert len(drain(engines)) == 12


def test_the_scripted_engine_is_given_up_by_its_own_load(connect: Connect) -> None:
    """Over HTTP: a request that is stuck before the scheduler is neither running nor waiting."""
    clock = Watch()
    with BackgroundServer(subjects.OPTIONS) as server:
        watched = WatchedEngine(
            connect(server.url), silent_seconds=SILENT, now=clock, period_seconds=0
        )
        window = watched.facts().window
        reader = asking.Reader(watched, asking.ask("[[behavior:mute]] How many?"))
        assert asking.eventually(lambda: watched.load().running == 1)
        watched.look()
        clock.seconds += SILENT + PROMPT

        watched.look()

        reader.join()
        assert isinstance(reader.error, errors.EngineSilent)
        assert f"1 of {window} streams running" in reader.error.message
        assert asking.eventually(lambda: watched.load().running == 0), "it goes on for nobody"


def test_in_process_too() -> None:
    clock = Watch()
    watched = WatchedEngine(
        Scripted(options=subjects.OPTIONS), silent_seconds=SILENT, now=clock, period_seconds=0
    )
    watched.facts()
    reader = asking.Reader(watched, asking.ask("[[behavior:mute]] How many?"))
    assert asking.eventually(lambda: watched.load().running == 1)
    watched.look()
    clock.seconds += SILENT + PROMPT

    watched.look()

    reader.join()
    assert isinstance(reader.error, errors.EngineSilent)


def test_a_peer_that_takes_the_request_and_answers_nothing_at_all(connect: Connect) -> None:
    """It answers no question about its load either: the connection for that is never accepted."""
    clock = Watch()
    with RawPeer(raw_peer.holding()) as peer:
        client = connect(peer.url, connect_seconds=2.0)
        reader = asking.Reader(
            watched := WatchedEngine(client, silent_seconds=SILENT, now=clock, period_seconds=0),
            asking.ask(),
        )
        assert asking.eventually(lambda: peer.connections == 1)
        watched.look()
        clock.seconds += SILENT + PROMPT

        watched.look()

        reader.join()
    assert isinstance(reader.error, errors.EngineSilent)


@pytest.mark.parametrize(("age", "stuck"), [(1.0, False), (31.0, True)])
def test_a_load_that_was_reported_long_ago_is_none(
    age: float, connect: Connect, *, stuck: bool
) -> None:
    """The HTTP server of an engine whose scheduler is stuck goes on telling the load that it had."""
    at = datetime(2026, 11, 29, 12, tzinfo=UTC)
    rank = {"timestamp": at.timestamp() - age, "num_running_reqs": 4, "num_waiting_reqs": 7}
    reported = json.dumps({"timestamp": at.isoformat(), "loads": [rank]}).encode()
    with RawPeer(raw_peer.answering(raw_peer.status(200, reported))) as peer:
        client = connect(peer.url)
        if stuck:
            with pytest.raises(errors.EngineUnavailable, match="stopped reporting"):
                client.load()
        else:
            assert client.load() == engine.EngineLoad(running=4, waiting=7)


def test_the_watchdog_checks_on_its_own() -> None:
    clock = Watch()
    mute = Mute()
    watched = WatchedEngine(mute, silent_seconds=SILENT, now=clock, period_seconds=0.01)
    reader = asking.Reader(watched, asking.ask())
    assert asking.eventually(lambda: mute.looks > 0)
    clock.seconds += SILENT + PROMPT

    reader.join()

    assert isinstance(reader.error, errors.EngineSilent)
    watched.close()
