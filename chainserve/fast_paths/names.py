"""Names by which runs and serialized runnables tell of a class."""


def take_name(own: type, of: type) -> None:
    """Give a class the name of the one that it takes the place of."""
    own.__name__, own.__qualname__, own.__module__ = of.__name__, of.__qualname__, of.__module__
