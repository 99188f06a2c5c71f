"""What is measured: each case is a declaration."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from json import dumps
from typing import Any, Literal

from benchmarks import runnables
from benchmarks.figures import Goal
from benchmarks.runnables import Build

Verb = Literal["invoke", "batch", "stream", "stream_events"]
TOPIC = {"topic": "bridges"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One chain, called in one way.

    Attributes:
        name: What it is called on the command line.
        title: What it is called in the table.
        verb: The endpoint.
        build: Makes the chain.
        chunks: How many chunks its answer has, about.
        body: The JSON of a request.
        goal: What LangServe's cost over ours has to be.
        share: What the chain's own cost over ours has to be.
        resumable: Whether a stream of ours is asked for with ids and a key, as our client does.
        is_noisy: Whether noise is a large part of what it costs, so that it takes more rounds.
        mounted: How many chains are mounted; the last is called.
        upstream: Whether the chain asks the scripted server of models.
        quick: Whether the quick run has it.
    """

    name: str
    title: str
    verb: Verb
    build: Build
    chunks: int = 200
    body: Mapping[str, Any] = field(default_factory=lambda: {"input": TOPIC})
    goal: Goal | None = None
    share: Goal | None = None
    resumable: bool = True
    is_noisy: bool = False
    mounted: int = 1
    upstream: bool = False
    quick: bool = False

    @property
    def streams(self) -> bool:
        """Whether the answer is an event stream."""
        return self.verb.startswith("stream")

    @property
    def path(self) -> str:
        """The path of the chain that is called."""
        return f"/{self.name}"

    @property
    def paths(self) -> list[str]:
        """The paths at which the chain is mounted; the one that is called comes last."""
        return [*(f"/{self.name}-{number}" for number in range(1, self.mounted)), self.path]

    @property
    def target(self) -> str:
        """The path of the endpoint."""
        return f"{self.path}/{self.verb}"

    @property
    def content(self) -> bytes:
        """The bytes of a request's body."""
        return dumps(self.body).encode()


CASES = (
    Case(
        name="stream-str",
        title="stream, str chunks",
        verb="stream",
        build=runnables.usual,
        goal=Goal(3, 6),
        share=Goal(0.75, 0.9),
        quick=True,
    ),
    Case(
        name="stream-messages",
        title="stream, message chunks",
        verb="stream",
        build=runnables.messages,
        goal=Goal(2.2, 4),
        quick=True,
    ),
    Case(
        name="stream-bare",
        title="stream, bare generator",
        verb="stream",
        build=runnables.bare,
        body={"input": "bridges"},
        goal=Goal(4, 8),
        quick=True,
    ),
    Case(
        name="stream-events",
        title="stream_events",
        verb="stream_events",
        build=runnables.usual,
        goal=Goal(1.8, 3),
        quick=True,
    ),
    Case(
        name="invoke-echo",
        title="invoke, echo",
        verb="invoke",
        build=runnables.echo,
        body={"input": "bridges"},
        goal=Goal(1.4, 2),
        is_noisy=True,
        quick=True,
    ),
    Case(
        name="invoke-chain",
        title="invoke, chain",
        verb="invoke",
        build=runnables.usual,
        chunks=20,
        goal=Goal(1.3, 1.6),
        is_noisy=True,
        quick=True,
    ),
    Case(
        name="batch",
        title="batch of 50",
        verb="batch",
        build=runnables.usual,
        chunks=20,
        body={"inputs": [TOPIC] * 50},
    ),
    Case(name="stream-dicts", title="stream, dict chunks", verb="stream", build=runnables.dicts),
    Case(
        name="stream-graph",
        title="stream, compiled graph",
        verb="stream",
        build=runnables.graph,
        chunks=runnables.GRAPH_STEPS,
        body={"input": {"messages": [{"type": "human", "content": "bridges?"}]}},
    ),
    Case(
        name="stream-openai",
        title="stream, ChatOpenAI over a socket",
        verb="stream",
        build=runnables.openai,
        goal=Goal(1.6, 3),
        upstream=True,
    ),
    Case(
        name="stream-str-plain",
        title="stream, str chunks, LangServe's bytes",
        verb="stream",
        build=runnables.usual,
        resumable=False,
    ),
    Case(
        name="invoke-of-100",
        title="invoke, echo, one of 100 chains",
        verb="invoke",
        build=runnables.echo,
        body={"input": "bridges"},
        mounted=100,
    ),
)

SHORT = CASES[0]
LONGER = Case(
    name="stream-2000",
    title="stream, 2,000 str chunks",
    verb="stream",
    build=runnables.usual,
    chunks=2000,
)
LONG = Case(
    name="stream-20000",
    title="stream, 20,000 str chunks",
    verb="stream",
    build=runnables.usual,
    chunks=20_000,
)
GROWTH = Goal(1.1, 1, at_most=True)
"""Of what a chunk of the long answer costs over one of the short, over the same of the chain."""

IDLE_BARE = Case(
    name="idle-bare",
    title="memory of an idle stream, bare generator",
    verb="stream",
    build=runnables.bare_idle,
    body={"input": "bridges"},
    goal=Goal(0.65, 0.4, at_most=True),
)
IDLE_USUAL = Case(
    name="idle-usual",
    title="memory of an idle stream, usual chain",
    verb="stream",
    build=runnables.usual_idle,
    goal=Goal(0.7, 0.5, at_most=True),
)
PACED = Case(
    name="paced",
    title="added latency of a token",
    verb="stream",
    build=runnables.usual_paced,
    chunks=60,
    goal=Goal(0.5, 0.2, at_most=True),
)
PACED_BRIEFLY = replace(PACED, name="paced-briefly", chunks=12)
"""The same within a second."""

REPLAYED = Case(
    name="replay",
    title="replay of a finished log, with ids",
    verb="stream",
    build=runnables.bare,
    chunks=20_000,
    body={"input": "bridges"},
    goal=Goal(1_500_000, 1_500_000),
)
WORKED = Case(
    name="workers",
    title="two workers over one, invoke of a chain",
    verb="invoke",
    build=runnables.usual,
    chunks=20,
    goal=Goal(1.8, 2),
)
SERVED = (*CASES, LONGER, LONG, IDLE_BARE, IDLE_USUAL, PACED, PACED_BRIEFLY, REPLAYED, WORKED)


def case_named(name: str) -> Case:
    """Return the case of that name."""
    return {case.name: case for case in SERVED}[name]
