"""Who is in a network, as rows for people and programs: what the roster says, and what membership sees of it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain

NAME_MAX = 20  # columns
ID_DIGITS = 16
Row = Mapping[str, Any]


def rows(roster: Roster, states: Mapping[PeerId, str]) -> list[dict[str, Any]]:
    """One per identity that was ever let in, by name. `states`: what a running node's membership calls those it watches:
    alive, suspected, dead, left. What the roster knows is stronger: revoked, held, expired."""
    found = []
    for peer in roster.identities:
        credential, record = Credential.read(roster.entry(peer)[0]), roster.records.get(peer)
        certificate = credential.certificate
        found.append(
            {
                "name": certificate.name,
                "id": peer.hex(),
                "role": certificate.role.name.lower(),
                "expires": certificate.not_after,
                "state": _state(roster, peer, states),
                "vouched_for_by": _voucher(roster, credential),
                "addresses": list(record.addresses) if record is not None else [],
            }
        )
    return sorted(found, key=lambda row: (row["name"], row["id"]))


def lines(members: Sequence[Row]) -> Iterator[str]:
    """With nothing that a member's name could do to a terminal."""
    first = f"{_cut('name')} {'id':<{ID_DIGITS}} {'role':<6} {'expires':<10} {'state':<9}"
    yield f"{first} {_cut('voucher')} addresses"
    for row in members:
        voucher = row["vouched_for_by"]
        by = f"{voucher['signer']}, {voucher['let_in_by']}" if voucher["let_in_by"] else voucher["signer"]
        expires = time.strftime("%Y-%m-%d", time.gmtime(row["expires"]))
        addresses = ", ".join(map(plain, row["addresses"])) or "none"
        first = f"{_cut(row['name'])} {row['id'][:ID_DIGITS]} {row['role']:<6} {expires} {row['state']:<9}"
        yield f"{first} {_cut(by)} {addresses}"


def _cut(text: str) -> str:
    """A column of it."""
    shown = plain(text)
    return f"{shown if len(shown) <= NAME_MAX else shown[: NAME_MAX - 1] + '…':<{NAME_MAX}}"


def _voucher(roster: Roster, credential: Credential) -> dict[str, str]:
    """Who signed: "root" or an issuer; and with an invite, who let it in."""
    issuer, receipt = credential.issuer, credential.receipt
    found = {"signer": "root", "signer_id": roster.root.hex()}
    if issuer is not None:
        found = {"signer": issuer.name, "signer_id": issuer.identity.hex()}
    if receipt is None:
        return {**found, "let_in_by": "", "let_in_by_id": ""}
    shown = roster.credential(receipt.admitter)
    name = shown.certificate.name if shown is not None else receipt.admitter.hex()[:ID_DIGITS]
    return {**found, "let_in_by": name, "let_in_by_id": receipt.admitter.hex()}


def _state(roster: Roster, peer: PeerId, states: Mapping[PeerId, str]) -> str:
    standing = roster.standing(peer)
    if standing is not None:
        return str(standing).removeprefix("cert_")
    record = roster.records.get(peer)
    if record is not None and record.has_left:
        return "left"
    return states.get(peer, "not seen" if states else "member")
