"""What litellm makes of a server's answers; run by the environment that has it. Prints one JSON object."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches one from the network

import litellm

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            },
        },
    }
]
QUESTION = [{"role": "user", "content": "12 + 5?"}]


def read(message):
    """The parts of a message."""
    calls = [(one.function.name, json.loads(one.function.arguments)) for one in message.tool_calls or []]
    return {"thought": getattr(message, "reasoning_content", None), "text": message.content, "calls": calls}


def ask(**settings):
    """A chat, whole and streamed, and after its tools have answered."""
    asked = {"messages": QUESTION, "tools": TOOLS, "api_key": "x", **settings}
    whole = litellm.completion(**asked)
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    built = litellm.stream_chunk_builder(chunks, messages=QUESTION)
    message = whole.choices[0].message
    results = [{"role": "tool", "tool_call_id": one.id, "content": "17"} for one in message.tool_calls]
    after = litellm.completion(**asked | {"messages": [*QUESTION, message.model_dump(), *results]})
    return {
        "whole": read(message),
        "streamed": read(built.choices[0].message),
        "after": read(after.choices[0].message),
        "reasons": [whole.choices[0].finish_reason, built.choices[0].finish_reason],
        "usage": [whole.usage.model_dump()["total_tokens"], built.usage.model_dump()["total_tokens"]],
    }


def respond(**settings):
    """The Responses API."""
    tools = [{"type": "function", **TOOLS[0]["function"]}]
    answer = litellm.responses(input="12 + 5?", tools=tools, api_key="x", **settings)
    streamed = list(litellm.responses(input="12 + 5?", tools=tools, api_key="x", stream=True, **settings))
    return {
        "items": [one.type for one in answer.output],
        "streamed": [one.type for one in streamed[-1].response.output],
        "last": str(getattr(streamed[-1].type, "value", streamed[-1].type)),
    }


def mistake(**settings):
    """What an unknown model is told."""
    try:
        litellm.completion(messages=QUESTION, api_key="x", **settings)
    except litellm.NotFoundError as error:
        return error.message
    return None


def main(address):
    """Ask by each of its providers."""
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "allowed_openai_params": ["thinking"]}
    anthropic = ask(model="anthropic/tiny", api_base=address, **thinking)
    print(
        json.dumps(
            {
                "deepseek": ask(model="deepseek/deepseek-reasoner", api_base=address),
                "deepseek_beta": ask(
                    model="deepseek/deepseek-chat", api_base=f"{address}/beta", thinking={"type": "enabled"}
                ),
                "openai": ask(model="openai/tiny", api_base=f"{address}/v1"),
                "anthropic": anthropic,
                "responses": respond(model="openai/tiny", api_base=f"{address}/v1"),
                "mistakes": [
                    mistake(model="openai/none", api_base=f"{address}/v1"),
                    mistake(model="deepseek/none", api_base=address),
                ],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
