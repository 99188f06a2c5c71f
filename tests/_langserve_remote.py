"""LangServe's own client on an application in this process."""

from typing import Any

import httpx
from langserve import RemoteRunnable
from starlette.types import ASGIApp


async def langserve_invoke(app: ASGIApp, path: str, value: Any, headers: dict[str, str]) -> Any:
    """Return what LangServe's `RemoteRunnable` gets from `ainvoke`."""
    remote: Any = RemoteRunnable(f"http://test{path}/", headers=headers, verify=False)
    await remote.async_client.aclose()
    remote.async_client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url=remote.url, headers=headers
    )
    try:
        return await remote.ainvoke(value)
    finally:
        await remote.async_client.aclose()
        remote.sync_client.close()
