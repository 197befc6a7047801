"""LangChain's ``ChatOpenAI``."""

from checks import CLOSING_BRACE, KEY, MODEL, QUESTION, URL, Anything, Vitals, holds
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def get_vitals(ward: str) -> str:
    """Vital signs of the patients of a ward."""
    return f"{ward}: pulse 80"


def main() -> None:
    """All behaviours, by a random model that speaks bytes."""
    llm = ChatOpenAI(base_url=URL, api_key=KEY, model=MODEL, temperature=0, max_tokens=120, max_retries=0)  # type: ignore[arg-type]
    answer = llm.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    holds("invoke", isinstance(answer, AIMessage) and answer.content and answer.usage_metadata)
    streamed = "".join(str(chunk.content) for chunk in llm.stream([SystemMessage("Be brief."), HumanMessage(QUESTION)]))
    holds("stream", streamed == answer.content)
    holds("batch", llm.batch([QUESTION, "Condition 4"])[0].content == llm.invoke(QUESTION).content)
    holds("json_schema", isinstance(llm.with_structured_output(Vitals, method="json_schema").invoke(QUESTION), Vitals))
    holds("function_calling", isinstance(llm.with_structured_output(Vitals, method="function_calling").invoke(QUESTION), Vitals))
    brace = llm.model_copy(update={"logit_bias": {CLOSING_BRACE: 100}})
    holds("json_mode", isinstance(brace.with_structured_output(Anything, method="json_mode").invoke("Answer as JSON."), Anything))
    short = llm.model_copy(update={"logit_bias": {}})
    called = short.bind_tools([get_vitals], tool_choice="none").invoke(QUESTION)
    holds("tools that are not called", called.content and not called.tool_calls)
    call = {"name": "get_vitals", "args": {"ward": "3"}, "id": "call_1", "type": "tool_call"}
    history = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call]), ToolMessage("pulse 80", tool_call_id="call_1")]
    holds("results of tools", llm.invoke(history).content)


if __name__ == "__main__":
    main()
