"""The run routes."""

from typing import Any
from uuid import UUID

from chainserve.bodies import BodyModels
from chainserve.openapi.describing import (
    APPLIED,
    BODY_PROBLEMS,
    CANCEL_PROBLEMS,
    READING_PROBLEMS,
    STARTED,
    Cursor,
    Documentation,
    Format,
    Key,
    Preference,
    bodies,
    description_of,
)
from chainserve.openapi.streaming import streaming
from chainserve.schema import RunDetails, RunList
from chainserve.validation import CancelEnvelope


def create_run(models: BodyModels) -> Documentation:
    """Describe `POST runs`."""

    async def documented(body: Any, idempotency_key: Key = None, prefer: Preference = None) -> None:
        raise NotImplementedError

    description = "Start a run that goes on by itself, and answer where it is."
    ended = {"description": "It has ended in the time it was waited for.", "model": RunDetails}
    headers = {"headers": STARTED}
    described = description_of(documented, "Start a run", description, *BODY_PROBLEMS)
    return {
        **described,
        **bodies(documented, models.run_request, RunDetails),
        "status_code": 202,
        "response_description": "It goes on.",
        "responses": {**described["responses"], 202: headers, 200: {**ended, **headers}},
    }


def list_runs(_: BodyModels) -> Documentation:
    """Describe `GET runs`."""

    async def documented() -> None:
        raise NotImplementedError

    description = "List the caller's runs, the newest first."
    described = description_of(documented, "List runs", description, 400, 403)
    return {**described, "response_model": RunList, "response_description": "The runs."}


def show_run(_: BodyModels) -> Documentation:
    """Describe `GET runs/{run_id}`."""

    async def documented(run_id: UUID, prefer: Preference = None) -> None:
        raise NotImplementedError

    description = "Answer what is known of a run, its output or its error too."
    described = description_of(documented, "Show a run", description, 400, 404)
    answer = {"headers": APPLIED}
    return {
        **described,
        "response_model": RunDetails,
        "response_description": "What is known of the run.",
        "responses": {**described["responses"], 200: answer},
    }


def stream_run(_: BodyModels) -> Documentation:
    """Describe `GET runs/{run_id}/stream`."""

    async def documented(
        run_id: UUID,
        last_event_id: Cursor = None,
        format: Format = None,
    ) -> None:
        raise NotImplementedError

    description = "Stream a run's events from a cursor, or from the start; 204 after the last."
    described = description_of(documented, "Stream a run", description, *READING_PROBLEMS)
    return streaming(described)


def cancel_run(_: BodyModels) -> Documentation:
    """Describe `POST runs/{run_id}/cancel`."""

    async def documented(run_id: UUID, prefer: Preference = None) -> None:
        raise NotImplementedError

    description = "Cancel a run and answer what is known of it; a run that has ended stays so."
    described = description_of(documented, "Cancel a run", description, 400, 403, 404)
    answer = "What is known of the run, which has ended if it could be ended."
    return {**described, "response_model": RunDetails, "response_description": answer}


def cancel_run_by_key(_: BodyModels) -> Documentation:
    """Describe `POST runs/cancel`."""

    async def documented(body: CancelEnvelope, prefer: Preference = None) -> None:
        raise NotImplementedError

    description = (
        "Cancel the run that an idempotency key started, where its id is not known: "
        "the answer that tells it has not come."
    )
    described = description_of(documented, "Cancel the run of a key", description, *CANCEL_PROBLEMS)
    answer = "What is known of the run, which has ended if it could be ended."
    return {**described, "response_model": RunDetails, "response_description": answer}


def delete_run(_: BodyModels) -> Documentation:
    """Describe `DELETE runs/{run_id}`."""

    async def documented(run_id: UUID) -> None:
        raise NotImplementedError

    description = "Forget a run that has ended: its record, its output and its events."
    described = description_of(documented, "Forget a run", description, 400, 404, 409)
    return {**described, "status_code": 204, "response_description": "It is forgotten."}
