"""A conversation, continued."""

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder

from chains._messages import Conversation
from chainserve import Chain
from chainserve.demo import chat_model, model_name

SYSTEM = """\
You are a helpful partner in a conversation.

- Answer the last message; use the earlier ones for what it refers to, and do not repeat them.
- Keep to a few sentences unless more is asked for. Markdown is shown as such.
- If a message can be read in two ways that lead to different answers, ask which one is meant.
- If you do not know, say so. Never invent names, numbers, quotations or sources.
- Answer in the language of the last message."""

prompt = ChatPromptTemplate([("system", SYSTEM), MessagesPlaceholder("messages")])
model = chat_model()

chain = Chain(
    path="/chat",
    runnable=prompt | model,
    title="Chat",
    description="Continues a conversation: send all of its messages, get the next one.",
    tags=["messages"],
    examples=[
        {"messages": [{"type": "human", "content": "What is a good name for a grey cat?"}]},
        {
            "messages": [
                {"type": "human", "content": "What is a good name for a grey cat?"},
                {"type": "ai", "content": "Ash, if it is calm; Pepper, if it is not."},
                {"type": "human", "content": "It sleeps all day. And for its brother?"},
            ]
        },
    ],
    model=model_name(model),
    input_type=Conversation,
    playground_type="chat",
)
