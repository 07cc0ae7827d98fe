"""Ids on the command line: whole, by their first characters, or ``@last``. Every command resolves them here."""

import re
import urllib.parse
from collections.abc import Sequence
from typing import Final

from cli.client import Client
from core import errors, ids

#: Stands for the id of the newest job of the key's account.
LAST: Final = "@last"
#: The list that has the ids of a kind, newest first, and the field that holds them.
_LISTS: Final[dict[ids.Kind, tuple[str, str]]] = {
    "op": ("/v1/operations", "id"),
    "we": ("/v1/webhook_endpoints", "id"),
    "dlv": ("/v1/deliveries", "id"),
    "img": ("/v1/quarantine", "image_id"),
}
_NOUNS: Final[dict[ids.Kind, str]] = {
    "job": "job",
    "op": "operation",
    "we": "webhook endpoint",
    "dlv": "delivery",
    "img": "image in quarantine",
    "key": "key",
}
#: Most ids that an error about an ambiguous prefix names.
_CANDIDATES: Final = 5
#: Digits without the kind: the beginning of an id, long enough that no word is mistaken for it.
_DIGITS: Final = re.compile(r"[0-9a-f]*[0-9][0-9a-f]*")


def find(service: Client, kind: ids.Kind, text: str) -> str:
    """Return an id of this kind by the id, by its first characters, or, for a job, by ``@last``.

    Raises:
        core.errors.NotFound: no id begins like this.
        core.errors.InvalidRequest: the text is no id of this kind, or several ids begin like it.
    """
    if kind == "job" and text == LAST:
        return _last(service)
    if ids.parse(kind, text) is not None:
        return text
    bounds = ids.prefix(kind, text)
    if bounds is None:
        raise _invalid(kind, text)
    if kind == "job":
        page, field = service.look("/v1/jobs", q=f"id:{text}", limit=_CANDIDATES), "id"
    else:
        # The list begins after the last id with this beginning: those that have it come first.
        path, field = _LISTS[kind]
        page = service.look(path, after=ids.show(kind, bounds[1]), limit=_CANDIDATES)
    listed = [str(entry[field]) for entry in page["data"]]
    return only(kind, text, listed)


def only(kind: ids.Kind, text: str, listed: Sequence[str]) -> str:
    """Return the one id of ``listed`` that is ``text`` or begins with it. Raises the errors of :func:`find`."""
    if text in listed:
        return text
    if ids.prefix(kind, text) is None:
        raise _invalid(kind, text)
    begin = f"{kind}_{text.removeprefix(f'{kind}_')}"
    matching = [name for name in listed if name.startswith(begin)]
    if not matching:
        rest = "" if ids.parse(kind, text) else "…"
        raise errors.NotFound(f"There is no {_NOUNS[kind]} {text}{rest}.")
    if len(matching) > 1:
        raise errors.InvalidRequest(
            f"{text} is the beginning of several ids: {', '.join(matching[:_CANDIDATES])}.",
            param="id",
        )
    return matching[0]


def is_job(words: Sequence[str]) -> bool:
    """Whether the words of a command, taken together, are meant as the id of one job, and not as a query."""
    if len(words) != 1:
        return False
    [word] = words
    return ids.meant(word) or (
        ids.prefix("job", word) is not None and _DIGITS.fullmatch(word) is not None
    )


def path(root: str, name: str) -> str:
    """Return the path of the resource with this id below ``root``."""
    return f"{root}/{urllib.parse.quote(name, safe='')}"


def _last(service: Client) -> str:
    own = service.look("/v1/usage")["account"]
    newest = service.look("/v1/jobs", q=f"account:{own}", limit=1)["data"]
    if not newest:
        raise errors.NotFound("This account has no job.")
    return str(newest[0]["id"])


def _invalid(kind: ids.Kind, text: str) -> errors.InvalidRequest:
    last = ", or @last" if kind == "job" else ""
    return errors.InvalidRequest(
        f"{text} is no ID of a {_NOUNS[kind]}: give {kind}_ and 32 hexadecimal digits, their first {ids.MIN_PREFIX} or "
        f"more{last}.",
        param="id",
    )
