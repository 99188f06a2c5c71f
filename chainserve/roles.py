"""Messages as most model APIs have them, `{"role", "content"}`, made LangChain's."""

from typing import Any

from langchain_core.messages import convert_to_messages

_ROLES = frozenset({"user", "human", "assistant", "ai", "system", "developer", "tool", "function"})


def with_messages(value: Any) -> Any:
    """Return plain data with LangChain's messages in place of those that name a role.

    What has no such message inside is returned itself.
    """
    if isinstance(value, list):
        items = [with_messages(item) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if not isinstance(value, dict):
        return value
    if "content" in value and "type" not in value and value.get("role") in _ROLES:
        return _message(value)
    members = {name: with_messages(item) for name, item in value.items()}
    return value if all(members[name] is value[name] for name in value) else members


def _message(value: dict[str, Any]) -> Any:
    """Return the message, or the data if LangChain makes none of it."""
    try:
        [message] = convert_to_messages([value])
    except Exception:  # noqa: BLE001 - it raises whatever its look at the data raises
        return value
    return message
