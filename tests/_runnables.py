"""The table of all runnables to compare."""

from tests._runnables_composed import COMPOSED
from tests._runnables_models import MODELS
from tests._runnables_sequences import SEQUENCES

CASES = {**SEQUENCES, **MODELS, **COMPOSED}
assert len(CASES) == len(SEQUENCES) + len(MODELS) + len(COMPOSED)
