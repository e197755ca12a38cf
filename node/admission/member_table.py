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
        certificate, record = Credential.read(roster.entry(peer)[0]).certificate, roster.records.get(peer)
        found.append(
            {
                "name": certificate.name,
                "id": peer.hex(),
                "role": certificate.role.name.lower(),
                "expires": certificate.not_after,
                "state": _state(roster, peer, states),
                "addresses": list(record.addresses) if record is not None else [],
            }
        )
    return sorted(found, key=lambda row: (row["name"], row["id"]))


def lines(members: Sequence[Row]) -> Iterator[str]:
    """With nothing that a member's name could do to a terminal."""
    yield f"{'name':<{NAME_MAX}} {'id':<{ID_DIGITS}} {'role':<6} {'expires':<10} {'state':<9} addresses"
    for row in members:
        name = plain(row["name"])
        name = name if len(name) <= NAME_MAX else name[: NAME_MAX - 1] + "…"
        expires = time.strftime("%Y-%m-%d", time.gmtime(row["expires"]))
        addresses = ", ".join(map(plain, row["addresses"])) or "none"
        yield f"{name:<{NAME_MAX}} {row['id'][:ID_DIGITS]} {row['role']:<6} {expires} {row['state']:<9} {addresses}"


def _state(roster: Roster, peer: PeerId, states: Mapping[PeerId, str]) -> str:
    standing = roster.standing(peer)
    if standing is not None:
        return str(standing).removeprefix("cert_")
    record = roster.records.get(peer)
    if record is not None and record.has_left:
        return "left"
    return states.get(peer, "not seen" if states else "member")
