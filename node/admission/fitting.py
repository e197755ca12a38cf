"""Whether this node's task is the network's: the one place outside a trainer that imports torch, for a second or two."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.admission.terms import Terms
from node.node_settings import NodeSettings
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain

if TYPE_CHECKING:
    from p2pfl.protocol.admission.signed_charter import SignedCharter


@dataclass(frozen=True, slots=True)
class Fit:
    """What a charter says of a model: the digest of its layout, codec and labels, and the bytes of an update."""

    schema: bytes
    update_bytes: int


def measured(terms: Terms, settings: NodeSettings, own: PeerId) -> Fit:
    """Of the task that this node would learn, with its own data read. Raises `Failure`."""
    from node.training.orders import Prepare
    from node.training.trainer import learner_of

    order = Prepare(
        peer=own,
        index=terms.part_of(own),
        count=terms.parts,
        data_directory=settings.data,
        task=task_of(terms, settings),
        data=terms.data.model_dump(),
        training=terms.training.model_dump(),
        codec=terms.codec.model_dump(),
        limits=terms.limits.model_dump(),
        seed=terms.seed,
        record="",
        record_row_max=0,
    )
    _, _, learner = learner_of(order)
    return Fit(learner.schema, learner.update_bytes)


def task_of(terms: Terms, settings: NodeSettings) -> dict[str, object]:
    """The task section that a trainer gets here: the network's, or this node's file for a task of one's own."""
    if settings.task:
        return {"name": settings.task}
    if terms.is_own_task:
        name = terms.task.name.removesuffix(".py")
        message = f"This network learns a task of its own, {name!r}, whose code never travels."
        hint = "Get the file from whoever invited you, read it, and give it: --task FILE.py:NAME"
        raise Failure("task_needed", message, hint, ExitCode.MISMATCH)
    return terms.task.model_dump()


def check(charter: "SignedCharter", terms: Terms, settings: NodeSettings, own: PeerId) -> None:
    """Raises `Failure` with exit code MISMATCH unless this node's updates would be taken by the others."""
    fit = measured(terms, settings, own)
    if fit.update_bytes != charter.update_bytes:
        what = f"an update of it has {fit.update_bytes:,} bytes, the network's {charter.update_bytes:,}"
    elif fit.schema != charter.schema:
        what = "its layers, their order or its labels are others"
    else:
        return
    message = f"This node's task is not the one of {plain(charter.name)}: {what}."
    hint = "Take the file that the other members have, in the same version; `p2pfl task check FILE.py:NAME` shows the model."
    raise Failure("task_mismatch", message, hint, ExitCode.MISMATCH)
