"""The handlers that this library adds to a run, and those of the chain's author beside them."""

from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler

from tests._apps import make_app
from tests._pair_chains import completion_model, list_model
from tests._verbs import VERBS, ask

pytestmark = pytest.mark.anyio


class _Told(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.events: list[str] = []

    async def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    async def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("start")

    async def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.events.append("end")


@pytest.mark.parametrize("model", [completion_model, list_model])
@pytest.mark.parametrize("verb", VERBS)
async def test_a_chains_own_handler_is_told_of_a_models_start_and_end(
    verb: str, model: Any
) -> None:
    told = _Told()
    response = await ask(make_app(model().with_config(callbacks=[told])), verb, "hi")

    assert response.status == 200
    assert told.events == ["start", "end"]
