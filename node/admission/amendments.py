"""What a node that runs makes of a charter that its root amends.

What reads settings takes a network process a third more memory, so that it is imported where there is an amendment.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from node.admission.papers import Papers
from node.neighborhood import Neighborhood
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import Amended
from p2pfl.report.plain import plain

if TYPE_CHECKING:
    from node.admission.amending import Changes


class Amendments:
    """Follows the charter that holds, from the one that the node started with."""

    def __init__(self, known: Papers, neighborhood: Neighborhood) -> None:
        self.at_restart: tuple[str, ...] = ()
        """What of the charter that holds counts only from the next start."""
        self._papers, self._neighborhood = known, neighborhood
        self._first = self._seen = known.charters.current

    @property
    def is_behind(self) -> bool:
        """Whether another charter holds than was seen last."""
        return self._papers.charters.current.data != self._seen.data

    def tolerated(self, wall: float) -> Amended | None:
        """At the start: that the charter before is still good, if it is."""
        charters = self._papers.charters
        before, until = charters.tolerated(wall)
        return Amended(charters.current.charter(charters.root), before, until) if before else None

    def follow(self, wall: float) -> "tuple[Amended, Changes]":
        """The charter that holds, as far as it counts at once. Raises `Failure`: exit code MISMATCH where this node's model is
        not the network's any more, VERSION where the charter can't be understood."""
        from node.admission.amending import Changes, changes
        from node.admission.terms import of_charter

        charters = self._papers.charters
        self._seen = current = charters.current
        first, after = of_charter(self._first), of_charter(current)
        found = changes(first, after)
        if found.never or (current.schema, current.update_bytes) != (self._first.schema, self._first.update_bytes):
            message = f"The charter of {plain(current.name)} now says another model than this node has."
            hint = "See what is learned now, and start again with that: p2pfl node start --task ..."
            raise Failure("other_model", message, hint, ExitCode.MISMATCH)
        graph = after.topology.model_dump()
        if any(name.startswith("topology.") for name in found.at_once) and not self._neighborhood.amend(graph):
            moved = tuple(name for name in found.at_once if name.startswith("topology."))
            at_once = tuple(name for name in found.at_once if name not in moved)
            found = Changes(at_once, tuple(sorted((*found.at_restart, *moved))), ())
        self.at_restart = found.at_restart
        whole = current.charter(charters.root)
        rules = replace(whole.gossip, mode=first.gossip.mode, staleness=first.gossip.staleness)
        before, until = charters.tolerated(wall)
        return Amended(replace(whole, gossip=rules), before, until), found
