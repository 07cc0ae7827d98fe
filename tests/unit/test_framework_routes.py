"""Routes that are declared at their handlers: collected from an instance, guarded, converted, described."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Annotated, Any

import flask
import pytest
from flask import Response
from pydantic import BaseModel

from api import errors as problems
from api.framework import OpenApiDocument, PathId, ResponseSpec, Router, reply, route
from core import errors

SHELF = "shelf"
BookId = Annotated[uuid.UUID, PathId("img", "book", "The book's id.")]
ANSWERS = {200: ResponseSpec(None, "The book.")}


class Book(BaseModel):
    title: str


class Page(BaseModel):
    number: int = 1


class Books:
    def __init__(self, title: str) -> None:
        self.title = title

    @route.get("/books/<book_id>", operation_id="read", tag="books", guard=SHELF, answers=ANSWERS)
    def get(self, caller: str, book_id: BookId, query: Page) -> Response:
        """Read a page.

        More about it.
        """
        return reply(Book(title=f"{caller} {self.title} {book_id.hex[-1]} {query.number}"))

    @route.delete("/books/<book_id>", operation_id="burn", tag="books", answers=ANSWERS)
    def delete(self, book_id: BookId) -> Response:
        """Burn it."""
        return Response(book_id.hex)

    def plain(self) -> None:
        """Not a route."""


def refuse() -> object:
    raise errors.Unauthenticated("No key.")


def client_of(
    guard: Callable[[], object] = lambda: "reader", *, public: bool = False
) -> tuple[flask.testing.FlaskClient, Router]:
    document = OpenApiDocument(
        title="Books", version="1", description="Books.", problem=Book, webhooks={}
    )
    app = Router(document, guards={SHELF: guard}.__getitem__, max_body_bytes=100)
    app.before_request(lambda: setattr(flask.g, "request_id", "req_1"))
    problems.install(app)
    app.include(Books("Moby-Dick"), public=public)
    return app.test_client(), app


BOOK = f"/books/img_{7:032x}"


def test_a_handler_takes_its_caller_its_path_and_its_query() -> None:
    client, _ = client_of()

    assert client.get(f"{BOOK}?number=3").get_json() == {"title": "reader Moby-Dick 7 3"}
    assert client.delete(BOOK).text == f"{7:032x}"
    assert client.head(BOOK).status_code == 200


def test_an_invalid_id_is_not_found_by_the_noun_of_its_resource() -> None:
    client, _ = client_of()

    answer = client.get("/books/job_1")

    assert answer.status_code == 404
    assert answer.get_json()["detail"] == "There is no such book."


def test_the_guard_comes_first_and_public_routes_have_none() -> None:
    guarded, _ = client_of(refuse)
    public, app = client_of(refuse, public=True)

    assert guarded.get("/books/job_1?number=x").status_code == 401
    assert public.get(BOOK).get_json()["title"].startswith("None ")
    assert "security" not in app.document()["paths"]["/books/{book_id}"]["get"]


def test_the_document_says_what_the_declaration_and_the_docstring_say() -> None:
    _, app = client_of()

    operations: dict[str, Any] = app.document()["paths"]["/books/{book_id}"]

    assert list(operations) == ["get", "delete"]
    assert (operations["get"]["summary"], operations["get"]["description"]) == (
        "Read a page.",
        "More about it.",
    )
    assert [parameter["name"] for parameter in operations["get"]["parameters"]] == [
        "book_id",
        "number",
    ]
    assert operations["get"]["security"] == [{"key": []}]
    assert set(operations["delete"]["responses"]) == {"200", "500"}


def test_a_handler_that_does_not_take_its_path_is_refused_at_once() -> None:
    class Wrong:
        @route.get("/books/<book_id>", operation_id="read", tag="books", answers=ANSWERS)
        def get(self, book_id: str) -> Response:
            """Read it."""
            return Response(book_id)

    _, app = client_of()

    with pytest.raises(TypeError, match="book_id"):
        app.include(Wrong())
