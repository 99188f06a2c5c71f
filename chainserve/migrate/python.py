"""Python source."""

from chainserve.migrate.differences import differences
from chainserve.migrate.edits import Findings
from chainserve.migrate.imports import change_imports
from chainserve.migrate.mentions import tell_mentions
from chainserve.migrate.source import Source
from chainserve.migrate.strings import change_strings


def migrate_python(text: str, *, declares_requirements: bool = False) -> Findings:
    """Return what changes in a module, and what its author should know.

    Args:
        text: The source.
        declares_requirements: Whether its strings may be requirements, as those of a `setup.py`.
    """
    try:
        source = Source(text)
        change_imports(source)
        change_strings(source, declare_requirements=declares_requirements)
        tell_mentions(source)
        notes = [*source.notes, *differences(source.tree)]
        meant = source.changed_text() is not None
    except SyntaxError as error:
        return Findings.failed(f"not Python that can be read here ({error.msg})", error.lineno or 0)
    except ValueError:
        return Findings.failed("not Python that can be read here")
    if not meant:
        return Findings.failed("cannot be changed safely: exchange langserve for chainserve in it")
    return Findings.of(source.edits, notes)
