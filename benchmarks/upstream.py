"""The scripted server of models in a process of its own, for the chains that ask one."""

import asyncio
import sys
from json import dumps

from benchmarks.runnables import token
from tests._openai import OpenAIServer, Tokens

TOKENS = 200


async def serve() -> None:
    """Say the address when asked for it, and serve until the end of standard input."""
    async with OpenAIServer(Tokens([token(number) for number in range(TOKENS)])) as server:
        while await asyncio.to_thread(sys.stdin.readline):
            print(dumps(server.base_url), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
