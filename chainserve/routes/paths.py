"""The paths of a chain's routes: one route serves all forms of a URL.

A router tries its routes one after another, so four routes for each verb (with a slash at the end
or without, with a config hash or without) would make a server of many chains slow.
"""

from starlette.convertors import Convertor, register_url_convertor


class _OptionalHash(Convertor[str]):
    """`/c/{config_hash}`, or nothing."""

    regex = "(?:/c/[^/]+)?"

    def convert(self, value: str) -> str:
        """Return the hash alone."""
        return value.removeprefix("/c/")

    def to_string(self, value: str) -> str:
        """Return the segments of a hash."""
        return f"/c/{value}" if value else ""


class _OptionalSlash(Convertor[str]):
    """A slash, or nothing."""

    regex = "/?"

    def convert(self, value: str) -> str:
        """Return it as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("chainserve_hash", _OptionalHash())
register_url_convertor("chainserve_slash", _OptionalSlash())


def any_form(path: str, endpoint: str, *, hashes: bool, slash: bool = True) -> str:
    """Return the path of a route that serves all forms of an endpoint's URL.

    Args:
        path: The chain's path.
        endpoint: The route's own part, such as `invoke`.
        hashes: Whether a config hash may stand between them.
        slash: Whether a slash may stand at the end.
    """
    between = "{config_hash:chainserve_hash}" if hashes else ""
    end = "{final_slash:chainserve_slash}" if slash else ""
    return f"{path}{between}/{endpoint}{end}"
