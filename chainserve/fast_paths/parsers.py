"""Output parsers that parse where they are: LangChain's hop to a thread for each chunk."""

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.output_parsers import BaseOutputParser
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


async def parse_result_in_place(
    self: Any, result: list[Generation], *, partial: bool = False
) -> Any:
    """Parse what takes no time, as `BaseOutputParser.aparse_result` does in a thread."""
    return self.parse_result(result, partial=partial)


_SHORT = 4096
"""How many characters may be parsed in place: so many take far less than a millisecond."""


async def parse_short_result_in_place(
    self: Any, result: list[Generation], *, partial: bool = False
) -> Any:
    """Parse what is short as above, and what is not in a thread."""
    if len(result[0].text) <= _SHORT:
        return self.parse_result(result, partial=partial)
    return await BaseOutputParser.aparse_result(self, result, partial=partial)
