"""Tables of a page that come from the code."""

from collections.abc import Callable, Mapping


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with every table as the code has it."""
    for name, table in tables.items():
        begin, end = f"<!-- generated: {name} -->", "<!-- end -->"
        before, rest = text.split(begin)
        text = before + begin + "\n\n" + table() + "\n\n" + rest[rest.index(end) :]
    return text
