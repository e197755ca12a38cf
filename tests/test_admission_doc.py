"""The tables of docs/admission.md are the code's. `python -m tests.test_admission_doc` writes them anew."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from p2pfl.protocol.admission import (
    admissions,
    armor,
    attestation,
    certificate,
    credential_line,
    invite,
    issuer,
    join,
    reconciliation,
    record,
    roster,
    signed_charter,
)
from p2pfl.protocol.admission.authority import REQUEST
from p2pfl.protocol.admission.revocation import REVOCATION
from p2pfl.protocol.admission.statement import Form
from p2pfl.protocol.wire import Field
from tests.tables import with_tables

DOC = Path(__file__).parent.parent / "docs" / "admission.md"
FORMS: dict[str, Form[Any]] = {
    "certificate": certificate.CERTIFICATE,
    "invite": certificate.INVITE,
    "receipt": certificate.RECEIPT,
    "record": record.RECORD,
    "revocation": REVOCATION,
    "charter": signed_charter.CHARTER,
    "request": REQUEST,
    "application": issuer.APPLICATION,
    "attestation": attestation.ATTESTATION,
}
BOUNDS = [
    (admissions, "MEMBERS_MAX", "identities that a roster keeps"),
    (admissions, "ISSUED_MAX", "of them by one issuer"),
    (admissions, "CREDENTIALS_MAX", "credentials of one identity beside the root's"),
    (admissions, "USED_MAX", "uses that are kept beyond those that an invite has"),
    (admissions, "REVOCATIONS_MAX", "revocations by the root, and as many by all others"),
    (admissions, "KEPT_S", "seconds for which an ended certificate is remembered"),
    (admissions, "KNOWABLE_S", "seconds for which it may still show that its holder let others in"),
    (certificate, "CREDENTIAL_MAX", "bytes of a credential"),
    (certificate, "BACKDATE_S", "seconds by which certificates and invites are backdated"),
    (attestation, "COVERED_DAYS", "days that an attestation of ours covers"),
    (attestation, "STALE_S", "seconds after the newest attestation, from which a node says that it hears none"),
    (roster, "OVERLAP_S", "seconds for which a replaced transport key is good"),
    (signed_charter, "GRACE_S", "seconds for which a replaced charter is good"),
    (join, "REQUEST_BYTES", "bytes to which a question is padded"),
    (join, "REQUEST_MAX", "bytes of a question at most"),
    (join, "ENTRIES_MAX", "members in a welcome at most"),
    (reconciliation, "PAPERS_BYTES", "bytes of statements in one message of papers"),
    (reconciliation, "ANSWER_S", "seconds between two answers to one member's inventories, in the long run"),
    (armor, "LINE_MAX", "characters of a line"),
]


def statements() -> str:
    """Context, length and fields of every statement."""
    rows = ["| statement | context | at most | field | type | bound |", "|---|---|---|---|---|---|"]
    for name, form in FORMS.items():
        context = form.context.rstrip(b"\0").decode()
        last = {name: replace(one, bound=f"{one.bound}; or left out") for name, one in form.last.items()}
        rows += listed(form.fields | last, (name, f"`{context}`", f"{form.most:,}"))
    return "\n".join(rows)


def messages() -> str:
    """Kind, message and fields of the join door."""
    rows = ["| kind | message | field | type | bound |", "|---|---|---|---|---|"]
    for number, kind in join.KINDS.items():
        rows += listed(join.FIELDS[kind], (str(number), f"`{kind.__name__}`"))
    return "\n".join(rows)


def papers() -> str:
    """The same of the messages by which members come to know the same."""
    rows = ["| kind | message | field | type | bound |", "|---|---|---|---|---|"]
    for number, kind in reconciliation.KINDS.items():
        rows += listed(reconciliation.FIELDS[kind], (str(number), f"`{kind.__name__}`"))
    return "\n".join(rows)


def invite_line() -> str:
    """What an invite's line contains."""
    return "\n".join(["| field | type | bound |", "|---|---|---|", *listed(invite.FIELDS, ())])


def certified_line() -> str:
    """What a credential's line contains."""
    return "\n".join(["| field | type | bound |", "|---|---|---|", *listed(credential_line.FIELDS, ())])


def issuer_line() -> str:
    """What the root's answer to an issuer contains."""
    return "\n".join(["| field | type | bound |", "|---|---|---|", *listed(issuer.FIELDS, ())])


def bounds() -> str:
    """What there is of everything."""
    rows = [f"| `{name}` | {getattr(module, name):,.0f} | {what} |" for module, name, what in BOUNDS]
    return "\n".join(["| name | value | of |", "|---|---|---|", *rows])


def listed(fields: dict[str, Field], first: tuple[str, ...]) -> list[str]:
    """One row a field; what they share stands in the first one."""
    shared = [first] + [("",) * len(first)] * (len(fields) - 1)
    rows = zip(shared, fields.items(), strict=True)
    return ["| " + " | ".join((*before, f"`{name}`", field.type, field.bound)) + " |" for before, (name, field) in rows]


TABLES = {
    "statements": statements,
    "messages": messages,
    "papers": papers,
    "invite line": invite_line,
    "credential line": certified_line,
    "issuer line": issuer_line,
    "bounds": bounds,
}


def test_the_tables_are_the_ones_of_the_code() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == with_tables(text, TABLES), f"run `python -m {__name__}`; it should read:\n{with_tables(text, TABLES)}"


def test_every_reason_that_the_page_names_exists() -> None:
    from p2pfl.protocol.errors import ADMISSION, Reason

    text = DOC.read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z]+_[a-z]+|held|full|revoked|version|kind)`", text))
    known = {reason.value for reason in Reason}
    fields = {name for form in FORMS.values() for name in form.fields} | set(invite.FIELDS) | set(credential_line.FIELDS)
    fields |= {name for kinds in (join.FIELDS, reconciliation.FIELDS) for kind in kinds.values() for name in kind}
    assert named <= known | fields, named - known - fields
    assert {reason.value for reason in ADMISSION} <= named


if __name__ == "__main__":
    DOC.write_text(with_tables(DOC.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
