"""instructor, in the modes that its users choose between."""

import instructor
from checks import CLOSING_BRACE, KEY, MODEL, QUESTION, URL, Anything, Vitals, holds
from openai import OpenAI


def main() -> None:
    """All behaviours, by a random model that speaks bytes."""
    client = OpenAI(base_url=URL, api_key=KEY, max_retries=0)
    common = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 120, "temperature": 0, "max_retries": 0}
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        answer = instructor.from_openai(client, mode=mode).chat.completions.create(response_model=Vitals, **common)
        holds(mode.name, isinstance(answer, Vitals))
    bias = {"logit_bias": {CLOSING_BRACE: 100}}
    empty = instructor.from_openai(client, mode=instructor.Mode.JSON).chat.completions.create(response_model=Anything, **common, **bias)
    holds("JSON", isinstance(empty, Anything))


if __name__ == "__main__":
    main()
