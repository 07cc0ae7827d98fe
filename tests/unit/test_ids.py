"""Ids sort by time inside and carry their kind outside."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids


def test_new_ids_are_uuids_of_version_7_and_sort_as_they_were_made() -> None:
    made = [ids.new() for _ in range(2_000)]

    assert {value.version for value in made} == {7}
    assert made == sorted(made)
    assert len(set(made)) == len(made)


@given(st.uuids(), st.sampled_from(["job", "img", "key", "acct", "req"]))
def test_what_is_shown_is_read_back(value: uuid.UUID, kind: ids.Kind) -> None:
    shown = ids.show(kind, value)

    assert shown == f"{kind}_{value.hex}"
    assert ids.parse(kind, shown) == value


def test_an_id_of_another_kind_is_none_of_this() -> None:
    assert ids.parse("job", ids.show("img", ids.new())) is None


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}0", "x{}", "{} "])
def test_an_id_with_something_around_it_is_none(change: str) -> None:
    assert ids.parse("job", change.format(ids.show("job", ids.new()))) is None


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job", "job_" + "g" * 32, "job_" + "A" * 32, "job_" + "0" * 31, "JOB_" + "0" * 32],
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert ids.parse("job", text) is None


@given(st.text())
def test_reading_never_fails(text: str) -> None:
    assert ids.parse("job", text) is None or len(text) == 36
