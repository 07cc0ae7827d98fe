"""Runs LangChain's ``ChatOpenAI``: text, stream, and a schema, over chat completions and over Responses."""

import json
import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel

base_url, key, model = sys.argv[1:]


class Count(BaseModel):
    """The number of things."""

    count: int


chat = ChatOpenAI(base_url=base_url, api_key=key, model=model)
responses = ChatOpenAI(base_url=base_url, api_key=key, model=model, use_responses_api=True)
print(
    json.dumps(
        {
            "text": chat.invoke("How many?").text,
            "stream": "".join(chunk.text for chunk in chat.stream("How many?")),
            "structured": chat.with_structured_output(Count).invoke("How many?").model_dump(),
            "responses": responses.invoke("How many?").text,
        }
    )
)
