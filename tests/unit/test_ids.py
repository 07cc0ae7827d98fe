"""Ids: they sort by time internally and show their kind externally."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import ids


def test_new_ids_are_uuids_of_version_7_and_sort_by_creation() -> None:
    created = [ids.new() for _ in range(2_000)]

    assert {value.version for value in created} == {7}
    assert created == sorted(created)
    assert len(set(created)) == len(created)


@given(st.uuids(), st.sampled_from(["job", "img", "key", "acct", "req"]))
def test_a_shown_id_parses_to_the_same_id(value: uuid.UUID, kind: ids.Kind) -> None:
    shown = ids.show(kind, value)

    assert shown == f"{kind}_{value.hex}"
    assert ids.parse(kind, shown) == value


def test_an_id_of_another_kind_is_rejected() -> None:
    assert ids.parse("job", ids.show("img", ids.new())) is None


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}0", "x{}", "{} "])
def test_an_id_with_surrounding_text_is_rejected(change: str) -> None:
    assert ids.parse("job", change.format(ids.show("job", ids.new()))) is None


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job", "job_" + "g" * 32, "job_" + "A" * 32, "job_" + "0" * 31, "JOB_" + "0" * 32],
)
def test_other_text_is_not_an_id(text: str) -> None:
    assert ids.parse("job", text) is None


@given(st.text())
def test_parsing_accepts_any_text(text: str) -> None:
    assert ids.parse("job", text) is None or len(text) == 36
