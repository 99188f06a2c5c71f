"""Output parsers that parse where they are: LangChain's hop to a thread for each chunk."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation


async def parse_text_in_place(self: Any, input: AsyncIterator[Any]) -> AsyncIterator[str]:
    """Have `StrOutputParser` take the text of each chunk in place, as its sync `transform` does."""
    async for chunk in input:
        if type(chunk) is AIMessageChunk and type(chunk.content) is str:
            yield chunk.text
        elif isinstance(chunk, BaseMessage):
            yield self.parse_result([ChatGeneration(message=chunk)])
        else:
            yield self.parse_result([Generation(text=chunk)])
