"""The schema routes."""

from typing import Any

from chainserve.bodies import BodyModels
from chainserve.openapi.describing import Documentation, description_of


def input_schema(_: BodyModels) -> Documentation:
    """Describe `GET input_schema`."""
    return _schema("Input schema", "Answer the JSON schema of the chain's input.")


def output_schema(_: BodyModels) -> Documentation:
    """Describe `GET output_schema`."""
    return _schema("Output schema", "Answer the JSON schema of the chain's output.")


def config_schema(_: BodyModels) -> Documentation:
    """Describe `GET config_schema`."""
    description = "Answer the JSON schema of what a caller may put into the config."
    return _schema("Config schema", description)


def _schema(summary: str, description: str) -> Documentation:
    """Describe a route that answers a JSON schema."""

    async def documented() -> None:
        raise NotImplementedError

    return {
        **description_of(documented, summary, description, 400),
        "response_model": dict[str, Any],
        "response_description": "The JSON schema.",
    }
