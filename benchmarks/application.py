"""The application of `serve --workers`: the cases that the environment names."""

import os

from benchmarks.cases import case_named
from benchmarks.serve import application

app = application([case_named(name) for name in os.environ["BENCHMARKED"].split()])
