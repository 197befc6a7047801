"""llama-index's ``OpenAILike``."""

from checks import KEY, MODEL, QUESTION, URL, Vitals, holds
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def get_vitals(ward: str) -> str:
    """Vital signs of the patients of a ward."""
    return f"{ward}: pulse 80"


def main() -> None:
    """All behaviours, by a random model that speaks bytes."""
    common = {"api_base": URL, "api_key": KEY, "model": MODEL, "temperature": 0.0, "max_tokens": 120, "max_retries": 0}
    llm = OpenAILike(is_chat_model=True, is_function_calling_model=True, context_window=4096, **common)
    message = ChatMessage(role=MessageRole.USER, content=QUESTION)
    answer = llm.chat([message]).message.content
    holds("chat", answer)
    holds("stream_chat", "".join(part.delta or "" for part in llm.stream_chat([message])) == answer)
    plain = OpenAILike(is_chat_model=False, context_window=4096, **common)
    text = plain.complete(QUESTION).text
    holds("complete", text)
    holds("stream_complete", "".join(part.delta or "" for part in plain.stream_complete(QUESTION)) == text)
    holds("structured_predict", isinstance(structured(llm), Vitals))
    called = llm.chat_with_tools([FunctionTool.from_defaults(get_vitals)], user_msg=QUESTION, tool_choice="none")
    holds("chat_with_tools", called.message.content is not None)


def structured(llm: OpenAILike) -> object:
    """An answer in the form of a model, by a tool that must be called."""
    from llama_index.core.prompts import PromptTemplate

    return llm.structured_predict(Vitals, PromptTemplate("{question}"), question=QUESTION)


if __name__ == "__main__":
    main()
