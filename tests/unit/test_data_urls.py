"""Data URLs: WHATWG's rules, in pieces of any size, and errors that say what is wrong with the others."""

from __future__ import annotations

import itertools
import urllib.parse
from base64 import b64encode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import errors
from jobs import images
from jobs.images import data_urls

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
TEXT = b64encode(PNG).decode()
HEAD = "data:image/png;base64,"


def sentence(url: str) -> str:
    """Return the error of a URL."""
    with pytest.raises(errors.ImageRejected) as refused:
        images.from_data_url(url)
    assert refused.value.specific_code == "invalid_base64_image"
    return refused.value.message


@given(data=st.binary(max_size=200), media_type=st.sampled_from(["image/png", "text/plain", ""]))
def test_a_data_url_is_decoded_for_any_media_type(data: bytes, media_type: str) -> None:
    text = b64encode(data).decode()
    lines = "\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))

    assert images.from_data_url(f"data:{media_type};base64,{text}") == data
    assert images.from_data_url(f"DATA:{media_type};charset=x;Base64,{lines}\n") == data


@pytest.mark.parametrize(
    "url",
    [
        HEAD + TEXT,
        HEAD + TEXT.rstrip("="),
        HEAD + TEXT.replace("=", "%3D").replace("+", "%2B").replace("/", "%2F"),
        HEAD + "".join(f"%{ord(char):02x}" for char in TEXT),
        HEAD + urlsafe_b64encode(PNG).decode(),
        HEAD + urlsafe_b64encode(PNG).decode().rstrip("="),
        f" \n{HEAD} {TEXT} \t\n",
        HEAD + "\n" + "\n".join("    " + TEXT[at : at + 76] + " " for at in range(0, len(TEXT), 76)),
        HEAD + "%0A".join(TEXT[at : at + 64] for at in range(0, len(TEXT), 64)),
        HEAD + "\r\n\r\n \f\n".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60)),
        "da\nta:image/png;ba\tse64," + TEXT,
        "data:image/png;name=a.png; base64 ," + TEXT,
        "data:;base64," + TEXT,
        HEAD + TEXT + "#fragment, which is not part of the content",
        "data:image/png," + urllib.parse.quote_from_bytes(PNG),
    ],
)  # fmt: skip
def test_what_browsers_read_is_read(url: str) -> None:
    assert images.from_data_url(url) == PNG


@given(
    data=st.binary(max_size=60),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    spell=st.sampled_from([
        lambda text: text,
        lambda text: text.rstrip("="),
        lambda text: urllib.parse.quote(text, safe=""),
        lambda text: "  \n " + " \n  ".join(text[at : at + 5] for at in range(0, len(text), 5)),
        lambda text: "%20\r%20".join(text[at : at + 7] for at in range(0, len(text), 7)),
    ]),
)  # fmt: skip
def test_pieces_of_any_size_give_the_same_bytes(
    data: bytes, cuts: list[int], spell: object
) -> None:
    assert callable(spell)
    url = (HEAD + spell(b64encode(data).decode())).encode()
    edges = sorted({0, len(url), *(cut for cut in cuts if cut < len(url))})
    pieces = [url[first:last] for first, last in itertools.pairwise(edges)]

    assert b"".join(data_urls.decode(pieces)) == data


def test_spaces_where_pluses_were_are_counted_and_refused() -> None:
    spoiled = HEAD + TEXT.replace("+", " ")
    count = TEXT.count("+")
    assert count
    first = TEXT.index("+")
    assert f"has {count} space(s) inside, the first after {first} characters." in sentence(spoiled)
    assert "space(s) inside" in sentence(HEAD + "%20".join([TEXT[:40], TEXT[40:]]))
    assert "space(s) inside" in sentence(HEAD + f"\n  {TEXT[:40]} \t {TEXT[40:]}\n")


def test_spaces_are_counted_over_all_pieces() -> None:
    url = HEAD.encode() + b"AAAA " * 10 + b"AAAA"
    with pytest.raises(errors.ImageRejected, match=r"10 space\(s\) inside, the first after 4"):
        list(data_urls.decode([url[:30], url[30:41], url[41:]]))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "such as data:image/png;base64,"),
        ("aGVsbG8=", "such as data:image/png;base64,"),
        (TEXT, "this is a PNG as base64 text without the part up to the comma."),
        ("https://example.com/cat.png", "this is a URL: send it in `url`."),
        ("<html><body>", "this is an HTML page."),
        (str(PNG), "Python's text of bytes (b'…')"),
        (f'"{HEAD}{TEXT}"', "begins with a quotation mark."),
        ("data:image/png;base64", "no comma after its media type."),
        ("data:image/png;base64" + "x" * 10_000, "no comma after its media type."),
        ("data:image/png,plain", "does not have `;base64` before its comma"),
        ("data:image/png;base64;x," + TEXT, "does not have `;base64` before its comma"),
        (HEAD + str(TEXT.encode()), "Python's text of bytes (b'…')"),
        (HEAD + HEAD + TEXT, "The data URL begins twice"),
        (HEAD + TEXT[:76] + r"\n" + TEXT[76:], "a backslash and a letter where a line break was, after 76"),
        (HEAD + "aGVs*bG8=", "has the character `*` after 4 characters."),
        (HEAD + "aGVsbé8=", "has the character `é` after 5 characters."),
        (HEAD + "aGVs\x00bG8=", "has the character `U+0000` after 4 characters."),
        (HEAD + "aGVs%zzbG8=", "has the character `%` after 4 characters."),
        (HEAD + "aGVsb", "has 5 characters, one too many or some too few"),
        (HEAD + "aGVsbG8=aGVsbG8=", "padding (`=`) where none belongs, after 7"),
        (HEAD + "aGVsbA=", "padding (`=`) where none belongs, after 6"),
        (HEAD + "aGVsbG8==", "padding (`=`) where none belongs, after 7"),
        (HEAD + "====", "padding (`=`) where none belongs, after 0"),
    ],
)  # fmt: skip
def test_an_invalid_data_url_is_refused_with_what_is_wrong(url: str, said: str) -> None:
    assert said in sentence(url)


def test_a_long_run_of_spaces_costs_no_more_than_its_bytes() -> None:
    for run in (" " * 2_000_000, "\n" * 2_000_000, " \n" * 1_000_000, "%20" * 500_000):
        assert images.from_data_url(f"{HEAD}{run}{TEXT}") == PNG
        assert "space(s) inside" in sentence(f"{HEAD}AAAA{' ' * 1_000_000}{TEXT}")
