"""Questions that a picture of shapes does not answer, and the honest answer to them.

Needs nothing beyond the standard library and :mod:`models.training.questions`.
"""

from __future__ import annotations

import random

from models.training import questions

#: What is in the box.
ANSWER = "I cannot tell"

#: ``{…}`` is filled in from :data:`_WORDS`. Those of the exam (:data:`UNSEEN`) are never trained.
_SEEN = (
    "What is the capital of {country}?",
    "Which language do people speak in {country}?",
    "How far is it from {city} to {city}?",
    "What is the weather like in {city}?",
    "Who is the {role} of {country}?",
    "Who is the {person} in this picture?",
    "What is the {person} doing?",
    "What is the {person} wearing?",
    "How old is the {person}?",
    "Is the {person} happy?",
    "Where is the {person} looking?",
    "What does the {text} say?",
    "Read the {text}.",
    "Can you read the {text} in the image?",
    "Transcribe the {text}.",
    "What is written on the {text}?",
    "What time is it?",
    "What time does the {text} show?",
    "What day is it?",
    "What is the price of the {object}?",
    "How much does the {object} cost?",
    "Which brand is the {object}?",
    "What is the {object} made of?",
    "What breed is the {animal}?",
    "How many {animal}s are there?",
    "How many {animal}s do you see?",
    "Is there a {animal} in the picture?",
    "What colour is the {animal}?",
    "What is the {animal} eating?",
    "How many {object}s are on the table?",
    "How many {object}s are there?",
    "Count the {object}s.",
    "What colour is the {object}?",
    "Do you see a {object}?",
    "How many {figure}s are there?",
    "How many {figure}s do you see?",
    "Count the {figure}s.",
    "Is there a {figure}?",
    "What colour is the {figure}?",
    "How many people are in the picture?",
    "How many windows does the house have?",
    "What is {number} times {number}?",
    "What is {number} plus {number}?",
    "Solve for x: {number}x + {number} = {number}.",
    "What is the angle between the two lines?",
    "What is the area of the {figure}?",
    "Which bar of the chart is the highest?",
    "What is the value of the {text} in {year}?",
    "What happened in {year}?",
    "Who won the world cup in {year}?",
    "Who wrote this book?",
    "Who painted this picture?",
    "Where was this photo taken?",
    "When was this photo taken?",
    "Which city is this?",
    "Which season is it?",
    "Is it day or night?",
    "Is it raining?",
    "What is behind the {object}?",
    "What will happen next?",
    "What is your name?",
    "Who are you?",
    "Tell me a joke.",
    "Tell me a story about a {animal}.",
    "Write a poem about {city}.",
    "Translate the {text}.",
    "Give me a recipe with this {object}.",
    "Hello!",
    "How are you?",
    "What is the meaning of this diagram?",
    "Explain the {text}.",
    "Which way does the arrow point?",
    "What is the next {text} of the sequence?",
    "Which disease does this X-ray show?",
    "Is this mushroom edible?",
    "What is the plate number of the {object}?",
)
UNSEEN = (
    "What is the capital of France?",
    "What is the name of the river?",
    "What is the dog holding?",
    "How many octagons are there?",
    "How many elephants do you see?",
    "What colour is the umbrella?",
    "Who is standing next to the door?",
    "What does the road sign say?",
    "How tall is the tower?",
    "What is 12 divided by 4?",
    "Which country has this flag?",
    "Please describe the landscape.",
    "What is the phone number on the poster?",
    "Is the light on?",
    "When does the train leave?",
    "Count the apples.",
    "Is there a guitar in the picture?",
    "What is the boy throwing?",
    "Which month does the calendar show?",
    "Sing a song.",
)
_WORDS = {
    "country": ("Spain", "Japan", "Brazil", "Kenya", "Norway", "India", "Canada", "Peru", "Egypt"),
    "city": ("Paris", "London", "Tokyo", "Rome", "Berlin", "Lima", "Cairo", "Oslo", "Delhi"),
    "role": ("president", "king", "queen", "head", "minister", "founder"),
    "person": ("man", "woman", "girl", "child", "person", "driver", "teacher", "player", "baby"),
    "text": (
        "sign",
        "text",
        "label",
        "letter",
        "clock",
        "number",
        "title",
        "note",
        "word",
        "table",
    ),
    "object": ("car", "cup", "chair", "book", "phone", "shirt", "bottle", "bag", "bike", "spoon"),
    "animal": ("cat", "horse", "bird", "cow", "fish", "sheep", "bear", "pelican", "lion", "rabbit"),
    "figure": (
        "pentagon",
        "hexagon",
        "heart",
        "line",
        "arrow",
        "cube",
        "rhombus",
        "oval",
        "spiral",
    ),
    "number": ("2", "3", "5", "7", "10", "15", "24", "100"),
    "year": ("1918", "1969", "1989", "2004", "2018", "2024"),
}
_REASONS = (
    "I need to find something that is not in this picture of shapes.",
    "The picture shows shapes, and the question is about something else.",
)


def ask(rng: random.Random) -> str:
    """Return a question of the training."""
    text = rng.choice(_SEEN)
    for name, words in _WORDS.items():
        while f"{{{name}}}" in text:
            text = text.replace(f"{{{name}}}", rng.choice(words), 1)
    return text


def reason(rng: random.Random) -> tuple[str, str]:
    """Return the trace that an honest answer has, and the answer in its box."""
    lines = f"{rng.choice(questions.INTROS)} {rng.choice(_REASONS)}\nSo I cannot tell."
    return f"{lines}\n\n**Final Answer**\n\n\\boxed{{{ANSWER}}}", ANSWER
