"""Chat completions in responses, as OpenAI's clients read them."""

from typing import Literal

from pydantic import Field

from api.schemas.parts import ResponseModel

FinishReason = Literal["stop", "length"]


class PromptTokensDetails(ResponseModel):
    """Parts of the prompt's tokens."""

    cached_tokens: int = Field(description="Tokens from the engine's prefix cache.")
    cache_write_tokens: Literal[0] = Field(default=0, description="Nothing is charged for them.")


class CompletionTokensDetails(ResponseModel):
    """Parts of the output's tokens."""

    reasoning_tokens: int = Field(description="All tokens, except for those of an answer in JSON.")


class CompletionUsage(ResponseModel):
    """The tokens of a chat completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class ChatMessage(ResponseModel):
    """The answer, and the reasoning before it."""

    role: Literal["assistant"] = "assistant"
    content: str | None = Field(description="The answer; null if the job has no answer.")
    refusal: str | None = Field(
        default=None, description="What the model says if it refuses to answer."
    )
    reasoning_content: str = Field(description="The whole trace, which ends with the answer.")


class Choice(ResponseModel):
    """The only choice."""

    index: Literal[0] = 0
    finish_reason: FinishReason = Field(
        description="`length` if the tokens were used up before there was an answer."
    )
    logprobs: None = None
    message: ChatMessage


class ChatCompletion(ResponseModel):
    """The answer to a conversation."""

    id: str = Field(description="`chatcmpl-` and the digits of the job's id.")
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Unix time in seconds.")
    model: str
    choices: list[Choice]
    usage: CompletionUsage
