"""The query language for jobs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors, ids
from jobs import filters, findings
from jobs.filters import Filter
from jobs.lifecycle import Status

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
TICK = timedelta(microseconds=1)
SHA256 = "0123456789abcdef" * 4

text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"))
moments = st.datetimes(
    min_value=datetime(1, 1, 2),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9999, 12, 30),  # noqa: DTZ001 - same
    timezones=st.just(UTC),
)
supported = st.builds(
    Filter,
    account_id=st.none(),
    statuses=st.lists(st.sampled_from(Status), unique=True).map(tuple),
    error_codes=st.lists(st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True), unique=True)
    .filter(lambda codes: "timeout" not in codes)
    .map(tuple),
    findings=st.lists(st.sampled_from(findings.FindingKind), unique=True).map(tuple),
    created_after=st.none() | moments,
    created_before=st.none() | moments,
    metadata=st.dictionaries(text.filter(bool), text, max_size=3),
    image_id=st.none() | st.uuids(),
    image_sha256=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    group_id=st.none() | st.uuids(),
    rerun=st.none() | st.sampled_from(["none", "any"]),
    operation_id=st.none() | st.uuids(),
    phrases=st.lists(text.map(lambda words: f'{words[:90]} "six\\'), unique=True, max_size=3).map(
        tuple
    ),
)


def parse(words: str) -> Filter:
    return filters.parse(words, now=NOW)


def faults(words: str) -> list[str]:
    """Return the faults of the query ``words``."""
    with pytest.raises(errors.InvalidRequest) as rejected:
        parse(words)
    assert {fault.pointer for fault in rejected.value.faults} == {"q"}
    return [fault.detail for fault in rejected.value.faults]


def render(supported: Filter) -> str:
    """Return a query for the filter, without the account."""
    terms = [f"status:{status.value}" for status in supported.statuses]
    terms += [f"error:{code}" for code in supported.error_codes]
    terms += [f"finding:{kind.value}" for kind in supported.findings]
    if supported.created_after is not None:
        terms.append(f"created:>={_timestamp(supported.created_after)}")
    if supported.created_before is not None:
        terms.append(f"created:<{_timestamp(supported.created_before)}")
    terms += [f"meta.{_word(key)}:{_word(value)}" for key, value in supported.metadata.items()]
    if supported.image_id is not None:
        terms.append(f"image:{ids.show('img', supported.image_id)}")
    if supported.image_sha256 is not None:
        terms.append(f"image:{supported.image_sha256}")
    if supported.group_id is not None:
        terms.append(f"group:{ids.show('grp', supported.group_id)}")
    if supported.rerun is not None:
        terms.append(f"rerun:{supported.rerun}")
    if supported.operation_id is not None:
        terms.append(f"operation:{ids.show('op', supported.operation_id)}")
    terms += map(_quoted, supported.phrases)
    return " ".join(terms)


def _word(text: str) -> str:
    """Return ``text`` as a value of a qualifier, quoted if necessary."""
    return text if re.fullmatch(r'[^\s":]+', text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


@given(supported)
def test_a_rendered_filter_is_parsed_as_the_same_filter(parsed: Filter) -> None:
    assert parse(render(parsed)) == parsed


@given(st.text())
def test_any_text_is_parsed_or_rejected_with_positions(words: str) -> None:
    try:
        parsed = parse(words)
    except errors.InvalidRequest as rejected:
        details = [
            fault.detail for fault in rejected.faults if fault.detail.startswith("Character")
        ]
        places = [int(detail.split()[1].strip(":")) for detail in details]
        assert places == sorted(places)
        assert all(not words[place - 1].isspace() for place in places)
    else:
        assert parse(render(parsed)) == parsed


def test_qualifiers_must_all_match_and_statuses_match_any() -> None:
    image_id = ids.new()
    parsed = parse(
        f"status:failed  status:cancelled error:timeout error:worker_lost meta.case:42 meta.site:a.b "
        f"image:{ids.show('img', image_id)} image:{SHA256} status:failed"
    )

    assert parsed == Filter(
        account_id=None,
        statuses=(Status.FAILED, Status.CANCELLED),
        error_codes=("deadline_exceeded", "worker_lost"),
        metadata={"case": "42", "site": "a.b"},
        image_id=image_id,
        image_sha256=SHA256,
    )
    assert parse(" \n ") == Filter(account_id=None)


def test_words_and_phrases_combine_with_qualifiers() -> None:
    parsed = parse('pelican status:failed "six of them" 圆形 pelican "status:failed"')

    assert parsed.phrases == ("pelican", "six of them", "圆形", "status:failed")
    assert parsed.statuses == (Status.FAILED,)


def test_quotes_may_contain_delimiters() -> None:
    parsed = parse(r'meta."a b:c":"say \"six\" \\ \boxed{6}" meta.empty:""')

    assert parsed.metadata == {"a b:c": r'say "six" \ \boxed{6}', "empty": ""}


@pytest.mark.parametrize(
    ("words", "after", "before"),
    [
        ("created:<2h", NOW - timedelta(hours=2) + TICK, None),
        ("created:<=90s", NOW - timedelta(seconds=90), None),
        ("created:>10m", None, NOW - timedelta(minutes=10)),
        ("created:>=7d", None, NOW - timedelta(days=7) + TICK),
        ("created:2026-11-20", datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC)),
        ("created:>=2026-11-20", datetime(2026, 11, 20, tzinfo=UTC), None),
        ("created:<2026-11-20T12:00:00+02:00", None, datetime(2026, 11, 20, 10, tzinfo=UTC)),
        (
            "created:>=2026-11-20 created:<=2026-11-21T00:00:00Z",
            datetime(2026, 11, 20, tzinfo=UTC),
            datetime(2026, 11, 21, tzinfo=UTC) + TICK,
        ),
    ],
)  # fmt: skip
def test_times_are_compared_with_the_creation_and_durations_with_the_age(
    words: str, after: datetime | None, before: datetime | None
) -> None:
    parsed = parse(words)

    assert (parsed.created_after, parsed.created_before) == (after, before)


@pytest.mark.parametrize(
    ("words", "place", "reason"),
    [
        ("status:odd", 1, "The status must be one of"),
        ("status:failed status:", 15, "A value is missing"),
        ('meta.case:"open', 1, "a quote is not closed"),
        ('status:failed meta.a:"b"c', 15, "ends inside a word"),
        ("error:Time-Out", 1, "an error code"),
        ("image:123", 1, "an image ID, or the SHA-256"),
        (f"image:{SHA256} image:{'0' * 64}", 72, "only once"),
        ("group:job_01a2185b49b87394b739cee260c5543d", 1, "a group ID"),
        ("rerun:yes", 1, "none, any"),
        ("operation:grp_1", 1, "an operation ID"),
        ("meta.case:1 meta.case:2", 13, "only once"),
        ("meta:1", 1, "Unknown qualifier"),
        ("status.x:failed", 1, "Unknown qualifier"),
        ("12:30", 1, "Unknown qualifier"),
        ("status:failed 圆", 15, "The phrase is too short"),
        ('""', 1, "The phrase is too short"),
        ("x" * 201, 1, "at most 200 characters"),
        ("finding:odd", 1, "The finding must be one of loop"),
        ("created:2h", 1, "an age or a time"),
        ("created:>999999d", 1, "an age or a time"),
        ("created:>2026-11-20T10:00:00", 1, "an age or a time"),
        ("created:<2026-11-20 created:<2026-11-21", 21, "only once"),
    ],
)
def test_a_fault_has_its_position(words: str, place: int, reason: str) -> None:
    (fault,) = faults(words)

    assert fault.startswith(f"Character {place}: ")
    assert reason in fault


def test_all_faults_are_listed() -> None:
    assert len(faults("status:odd created:now meta.case:42 finding:odd")) == 3


def test_the_number_of_terms_is_limited() -> None:
    letters = "abcdefghij"
    words = " ".join(f"error:{first}{second}" for first in letters for second in letters)

    assert len(parse(words).error_codes) == 100
    assert faults(f"{words} status:odd meta:odd") == [
        "At most 100 qualifiers, words and phrases are allowed; there are 102."
    ]


def test_the_number_of_metadata_pairs_is_limited() -> None:
    words = [f"meta.k{number}:v" for number in range(17)]

    assert faults(" ".join(words)) == ["At most 16 metadata pairs are allowed."]
    assert len(parse(" ".join(words[:16])).metadata) == 16


def test_the_number_of_phrases_is_limited() -> None:
    words = [f"word{number}" for number in range(9)]

    assert faults(" ".join(words)) == ["At most 8 words and phrases are allowed."]
    assert len(parse(" ".join(words[:8])).phrases) == 8
