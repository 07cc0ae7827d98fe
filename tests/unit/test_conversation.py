"""Messages of OpenAI's clients become one question: roles, images, what is refused, and what is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from api.openai import conversation
from api.openai.conversation import ReadConversation
from api.submission.parsing import ImageLink
from core.spool import SpooledFile
from tests.api import image_files

URL = "https://example.com/pelican.png"


def read(*messages: Any, name: str = "input", max_images: int = 4, **more: Any) -> ReadConversation:  # noqa: ANN401 - JSON
    return conversation.read(
        {name: list(messages)},
        name,  # type: ignore[arg-type] # both names are tried
        max_images=max_images,
        **more,
    )


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    return {
        "role": "user",
        "content": [
            {"type": "input_text", "text": part} if isinstance(part, str) else part
            for part in parts
        ],
    }


def image(url: str = URL, **more: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url, **more}


def folded(read_one: ReadConversation) -> str:
    assert not read_one.faults
    assert read_one.conversation is not None
    return read_one.conversation.whole().question


def places(read_one: ReadConversation) -> list[str]:
    return [fault.pointer for fault in read_one.faults]


def test_a_string_is_the_question() -> None:
    read_one = conversation.read({"input": "How many?"}, "input", max_images=1)

    assert folded(read_one) == "How many?"
    assert read_one.images == ()


def test_one_turn_is_its_text_with_its_images_in_any_order() -> None:
    data = image_files.data_url(image_files.png())

    read_one = read(
        user(image(data, detail="low"), "How many?", image(detail="original"), "Count.")
    )

    assert folded(read_one) == "How many?\nCount."
    first, second = read_one.images
    assert isinstance(first.source, SpooledFile)
    assert first.source.getvalue() == image_files.png()
    assert (first.pointer, first.detail) == ("#/input/0/content/0/image_url", "low")
    assert second.source == ImageLink(URL)
    assert second.detail == "max"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_texts_follow_the_instructions(role: str) -> None:
    read_one = read({"role": role, "content": "Be brief."}, user("Hi"), instructions="Be kind.")

    assert read_one.conversation is not None
    assert read_one.conversation.system == "Be kind.\n\nBe brief."
    assert folded(read_one) == "Hi"


def test_earlier_turns_come_first_and_name_their_images() -> None:
    read_one = read(
        user("What is it?", image()),
        {"role": "assistant", "content": [{"type": "output_text", "text": "A pelican."}]},
        user("And this?", image(URL + "?2")),
    )

    assert folded(read_one) == (
        "This is the conversation so far.\n\nUser (image 1): What is it?\n\nAssistant: A pelican.\n\n"
        "Answer this message (image 2):\n\nAnd this?"
    )


def test_the_newest_images_are_chosen_and_older_ones_are_not_even_decoded() -> None:
    broken = "data:image/png;base64,****"
    read_one = read(
        user("One", image(broken)),
        {"role": "assistant", "content": "Yes"},
        user("Two", image(), image()),
        max_images=2,
    )

    assert "User (an image that is not shown): One" in folded(read_one)
    assert "(image 1, image 2)" in folded(read_one)
    assert len(read_one.images) == 2


def test_messages_in_a_row_are_one_turn() -> None:
    read_one = read(user(image()), user("How many?"))

    assert folded(read_one) == "How many?"
    assert len(read_one.images) == 1


def test_an_image_alone_gets_a_question() -> None:
    assert folded(read(user(image()))).strip()


def test_reasoning_that_comes_back_is_ignored() -> None:
    read_one = read(
        user("Hi"),
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
        user("Again"),
    )

    assert "Assistant: x" in folded(read_one)


def test_chat_messages_have_their_own_parts() -> None:
    read_one = read(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "How many?"},
                {"type": "image_url", "image_url": {"url": URL, "detail": "high"}},
            ],
        },
        name="messages",
    )

    assert folded(read_one) == "How many?"
    assert read_one.images[0].pointer == "#/messages/0/content/1/image_url/url"
    assert read_one.images[0].detail == "high"


def test_a_refusal_that_comes_back_as_a_chat_completion_has_it_is_what_the_model_said() -> None:
    refusal = {"role": "assistant", "content": None, "refusal": "I can't.", "tool_calls": None}
    question = folded(read(user("Who?"), refusal, user("Why?"), name="messages"))

    assert "Assistant: I can't." in question
    answer = refusal | {"content": "One.", "refusal": None}
    assert "Assistant: One." in folded(read(user("Who?"), answer, user("Why?"), name="messages"))
    nothing = refusal | {"refusal": None}
    assert "Assistant" not in folded(read(user("Who?"), nothing, user("Why?"), name="messages"))


def test_every_fault_is_named_with_its_place() -> None:
    read_one = read(
        "text",
        {"type": "function_call_output", "output": "x"},
        {"role": "tool", "content": "x"},
        user({"type": "input_audio", "data": ""}, {"type": "input_text", "text": 1}, "fine"),
        {"role": "assistant", "content": [image()]},
        {"role": "user", "content": 7},
        user({"type": "input_image"}, image("ftp://example.com/x"), image(detail="huge")),
        user({"type": "input_image", "file_id": "file-1"}, image("data:image/png;base64,****")),
    )

    assert places(read_one) == [
        "#/input/0",
        "#/input/1/type",
        "#/input/2/role",
        "#/input/3/content/0/type",
        "#/input/3/content/1/text",
        "#/input/4/content/0/type",
        "#/input/5/content",
        "#/input/6/content/0",
        "#/input/6/content/1/image_url",
        "#/input/6/content/2/detail",
        "#/input/7/content/0/file_id",
        "#/input/7/content/1/image_url",
    ]


@pytest.mark.parametrize("kind", [["input_text"], {"a": 1}, 7, True])
def test_a_type_that_is_no_text_is_a_fault(kind: object) -> None:
    read_one = read({"type": kind, "role": "user", "content": "x"}, user({"type": kind}))

    assert places(read_one) == ["#/input/0/type", "#/input/1/content/0/type"]


@pytest.mark.parametrize(
    "messages", [[], [{"role": "system", "content": "x"}], [user(" ")], [user()]]
)
def test_nothing_to_answer_is_a_fault(messages: list[Any]) -> None:
    assert len(read(*messages).faults) == 1


def test_an_answer_cannot_be_begun_for_the_model() -> None:
    read_one = read(user("Hi"), {"role": "assistant", "content": "I"})

    assert places(read_one) == ["#/input/1/role"]


def test_a_file_is_found_by_its_id() -> None:
    file = SpooledFile.of(image_files.png())
    read_one = read(
        user({"type": "input_image", "file_id": "file-1"}),
        user({"type": "input_image", "file_id": "img_" + "0" * 32, "detail": "high"}),
        files={"file-1": file}.get,
    )

    assert [image.source for image in read_one.images] == [file, "img_" + "0" * 32]
    assert [image.detail for image in read_one.images] == [None, None]


def test_only_files_that_the_job_gets_are_read() -> None:
    read_ones: list[str] = []

    def files(file_id: str) -> SpooledFile:
        read_ones.append(file_id)
        return SpooledFile.of(image_files.png())

    parts = [{"type": "input_image", "file_id": f"file-{number}"} for number in range(1_000)]
    read_one = read(user(*parts, "How many?"), max_images=2, files=files)

    assert not read_one.faults
    assert read_ones == ["file-998", "file-999"]


@pytest.mark.parametrize("file_id", [7, "", "x" * 65, "file_\0", "data:image/png;base64,AAAA"])
def test_what_cannot_be_an_id_is_a_fault_wherever_it_is(file_id: object) -> None:
    read_one = read(user({"type": "input_image", "file_id": file_id}), user(image()), max_images=1)

    assert places(read_one) == ["#/input/0/content/0/file_id"]


def test_texts_that_are_too_long_together_are_never_folded() -> None:
    one = {"role": "assistant", "content": "x" * 50}
    read_one = read(*([user("y" * 50), one] * 20), user("Hi"), drops_oldest=True)

    assert read_one.conversation is not None
    questions = [one.question for one in read_one.conversation.foldings(longest=300)]
    assert max(map(len, questions)) <= 300
    assert questions[0].count("User: y") == 2
    assert questions[-1] == "Hi"


def test_too_long_conversations_lose_their_oldest_turns_with_their_images() -> None:
    read_one = read(
        user("One", image()),
        {"role": "assistant", "content": "1"},
        user("Two", image()),
        drops_oldest=True,
    )

    assert read_one.conversation is not None
    folded_ones = list(read_one.conversation.foldings(longest=10_000))
    assert [one.images for one in folded_ones] == [(0, 1), (1,), (1,)]
    assert folded_ones[-1].question == "Two"


def test_turns_beyond_the_longest_question_are_not_kept() -> None:
    read_one = read(
        user("a" * 50),
        {"role": "system", "content": "s" * 50},
        user("b" * 4, "c" * 50, image(), "d"),
        {"role": "assistant", "content": "e" * 8},
        user("Why?"),
        drops_oldest=True,
        most_chars=20,
    )

    texts = [[part.get("text") for part in item["content"]] for item in read_one.items]
    assert texts == [
        ["s" * 50],
        ["b" * 4, "c" * 17, None, ""],
        ["e" * 8],
        ["Why?"],
    ]
    assert read_one.conversation is not None
    assert len(read_one.conversation.turns) == 3


def test_long_strings_are_known_by_their_place() -> None:
    assert conversation.is_image(("input", 0, "content", 1, "image_url"))
    assert conversation.is_image(("messages", 0, "content", 1, "image_url", "url"))
    assert not conversation.is_image(("input", 0, "content"))
    assert not conversation.is_image(("metadata", 0, "content", 1, "image_url"))


def test_system_texts_have_a_limit_together_with_the_instructions() -> None:
    messages = [{"role": "system", "content": "ab"}, {"role": "user", "content": "c"}]
    for instructions, faulty in (("", False), ("i", False), ("ii", True), ("i" * 9, False)):
        read = conversation.read(
            {"input": messages},
            "input",
            max_images=1,
            max_system_chars=3,
            instructions=instructions,
        )
        assert [fault.pointer for fault in read.faults] == (["#/input/0"] if faulty else [])
