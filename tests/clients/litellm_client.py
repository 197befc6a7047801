"""litellm, which many gateways stand on."""

import json

import litellm
from checks import KEY, MODEL, QUESTION, URL, Vitals, holds

TOOL = {"type": "function", "function": {"name": "get_vitals", "parameters": Vitals.model_json_schema()}}


def main() -> None:
    """All behaviours, by a random model that speaks bytes."""
    litellm.telemetry, litellm.suppress_debug_info = False, True
    common = {"model": f"openai/{MODEL}", "api_base": URL, "api_key": KEY, "temperature": 0, "max_tokens": 120, "num_retries": 0}
    messages = [{"role": "user", "content": QUESTION}]
    answer = litellm.completion(messages=messages, **common).choices[0].message.content
    holds("completion", answer)
    chunks = litellm.completion(messages=messages, stream=True, **common)
    holds("stream", "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer)
    parsed = litellm.completion(messages=messages, response_format=Vitals, **common).choices[0].message.content
    holds("response_format", Vitals.model_validate_json(parsed))
    called = litellm.completion(messages=messages, tools=[TOOL], tool_choice="required", **common).choices[0]
    (call,) = called.message.tool_calls
    holds("tools", call.function.name == "get_vitals" and Vitals.model_validate_json(call.function.arguments))
    history = [*messages, called.message, {"role": "tool", "tool_call_id": call.id, "content": "pulse 80"}]
    holds("results of tools", litellm.completion(messages=history, **common).choices[0].message.content)
    penalties = {"frequency_penalty": 1.0, "presence_penalty": 0.5, "seed": 1, "stop": ["never said"], "user": "a", "n": 2}
    holds("settings", len(litellm.completion(messages=messages, **penalties, **common).choices) == 2)
    text = litellm.text_completion(model=f"text-completion-openai/{MODEL}", prompt=QUESTION, api_base=URL, api_key=KEY, max_tokens=8)
    holds("text_completion", text.choices[0].text)
    try:
        litellm.completion(messages=[{"role": "user", "content": "fever " * 30000}], **common)
    except litellm.ContextWindowExceededError:
        holds("a prompt that is too long is known as one", fact=True)
    holds("usage", json.dumps(litellm.completion(messages=messages, **common).usage.model_dump()))


if __name__ == "__main__":
    main()
