"""The table of all runnables to compare."""

from tests._runnables_composed import COMPOSED
from tests._runnables_models import MODELS
from tests._runnables_sequences import SEQUENCES

CASES = {**SEQUENCES, **MODELS, **COMPOSED}
assert len(CASES) == len(SEQUENCES) + len(MODELS) + len(COMPOSED)

EVERY_KIND = [
    "two steps",
    "two steps with a name",
    "nested sequences",
    "a dict, then text",
    "a source that raises after two",
    "a step that takes two and ends",
    "context variables in a stream",
    "configs in steps",
    "a chain in a lambda without the config",
    "events that are read in a lambda",
    "a decorated generator",
    "a lambda that returns a chain",
    "a sequence of our own",
    "configs that are bound",
    "a model, then text",
    "a model that raises after two",
    "a model that does not stream",
    "FakeListLLM",
    "JSON",
    "tools in pydantic",
    "parallel in a sequence",
    "assign",
    "another branch in a sequence",
    "a fallback at the start",
    "another alternative",
    "a history",
    "a tool",
    "a retriever",
    "a graph",
]
"""One case of each kind, for what need not be compared for all."""
