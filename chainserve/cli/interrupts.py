"""Ctrl-C, which a terminal sends to processes that have others to end them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Have a process that is started here take no notice of Ctrl-C until it lets it in.

    A terminal sends it to all of them, and while they import they could but show a traceback. One
    that comes meanwhile reaches this process afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # On Windows.
        yield
        return
    resource_tracker.ensure_running()  # Which takes signals out of the mask when it starts.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        let_interrupts_in()


def let_interrupts_in() -> None:
    """Take notice of Ctrl-C from now on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
