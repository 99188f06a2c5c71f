"""Which arguments a function takes, without making a signature of it for each call."""

import inspect
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

from langchain_core.runnables.utils import accepts_config, accepts_run_manager


def takes(function: Callable[..., Any]) -> tuple[bool, bool]:
    """Tell whether a function has parameters `config` and `run_manager`."""
    is_bound = type(function) is MethodType
    plain: Any = function.__func__ if is_bound else function  # type: ignore[attr-defined]
    if type(plain) is not FunctionType or plain.__dict__:  # It may have a signature of its own.
        return accepts_config(function), accepts_run_manager(function)
    code = plain.__code__
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    # What it is bound to goes to its first parameter, or with others to `*args`.
    names = code.co_varnames[is_bound and bool(code.co_argcount) : count]
    return "config" in names, "run_manager" in names
