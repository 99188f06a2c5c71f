"""What comes in goes out beside what was made of it."""

from typing import Any

from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough
from langserve import add_routes as mount
from typing_extensions import TypedDict


class Point(TypedDict):
    x: int
    y: int


def length(point: Point) -> float:
    return float((point["x"] ** 2 + point["y"] ** 2) ** 0.5)


class Measured(TypedDict):
    point: Point
    length: float


same: Any = RunnablePassthrough()
measured: Any = RunnableParallel(point=RunnablePassthrough(), length=RunnableLambda(length))
measure: Any = RunnableLambda(length)
assigned = RunnablePassthrough.assign(length=measure)

app = FastAPI()
mount(app, same.with_types(input_type=Any), path="/same")
mount(app, measured, path="/measured", input_type=Point, output_type=Measured)
mount(
    app,
    assigned,
    path="/assigned",
    input_type=Point,
    output_type=dict[str, Any],
)
