"""What the root's newest word on its revocations means for a node: whether any are kept from it, as far as can be known."""

import time
from collections.abc import Mapping
from typing import Any

from p2pfl.protocol.admission.attestation import STALE_S
from p2pfl.protocol.admission.certificate import DAY_S
from p2pfl.protocol.admission.roster import Roster

MEND = "Ask the holder of the root key to run p2pfl network attest; if that was done, see whom this node still hears."


def attested(roster: Roster, now: float) -> dict[str, Any] | None:
    """For a status; None where the root has never attested anything."""
    newest = roster.attestation
    if newest is None:
        return None
    age_s = max(0.0, roster.time(now) - newest.wall)
    return {
        "as_of": newest.wall,
        "revocations": newest.count,
        "is_whole": roster.is_attested_whole,
        "is_stale": age_s >= STALE_S,
    }


def in_words(found: Mapping[str, Any]) -> str:
    """For people."""
    moment = time.strftime("%Y-%m-%d", time.gmtime(found["as_of"]))
    if not found["is_whole"]:
        return f"the root counts {found['revocations']} as of {moment}, and some of them never came here"
    stale = f", more than {STALE_S // DAY_S} days ago: newer ones may be kept from this node" if found["is_stale"] else ""
    return f"all are known as of {moment}{stale}"


def is_trouble(found: Mapping[str, Any]) -> bool:
    """Whether somebody should look."""
    return bool(found["is_stale"] or not found["is_whole"])
