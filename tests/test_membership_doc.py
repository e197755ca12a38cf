"""The timers of docs/membership.md are the code's. `python -m tests.test_membership_doc` writes them anew."""

import re
from dataclasses import fields
from pathlib import Path

from p2pfl.protocol.membership import rules
from tests.tables import with_tables

DOC = Path(__file__).parent.parent / "docs" / "membership.md"
COMMENT = re.compile(r"^    (\w+): (?:float|int) = .+?  # (.+)$", re.MULTILINE)


def timers() -> str:
    """Every field of the rules, for the two sorts of networks that a charter may name, with the comment that the code has."""
    said = dict(COMMENT.findall(Path(rules.__file__).read_text(encoding="utf-8")))
    rows = ["| name | `lan` | `edge` | |", "|---|---|---|---|"]
    for one in fields(rules.MembershipRules):
        values = (f"{getattr(of, one.name):,.10g}" for of in (rules.LAN, rules.EDGE))
        rows.append(f"| `{one.name}` | {' | '.join(values)} | {said[one.name]} |")
    return "\n".join(rows)


TABLES = {"timers": timers}


def test_the_table_is_the_one_of_the_code() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == with_tables(text, TABLES), f"run `python -m {__name__}`; it should read:\n{with_tables(text, TABLES)}"


if __name__ == "__main__":
    DOC.write_text(with_tables(DOC.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
