"""The curves of a run as an event file of TensorBoard, beside its page. Needs the extra `track`."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from p2pfl.failure import Failure
from p2pfl.report.record import Float, RunRecord

FOLDER = "tensorboard"


def require() -> None:
    """Before the run, so that nobody waits for what can't be written: a `Failure` where the package is missing."""
    if find_spec("tensorboard") is None:
        raise Failure(
            "missing_extra",
            "--tensorboard: the package tensorboard is not installed.",
            "Install it: pip install 'p2pfl-gossip[track]'",
        )


def write(folder: Path, record: RunRecord) -> None:
    """A scalar a round for everything that was measured in it, its step being the round."""
    from torch.utils.tensorboard import SummaryWriter  # a second, and several packages

    with SummaryWriter(str(folder / FOLDER)) as writer:
        for name, curve in scalars(record):
            for row in np.flatnonzero(np.isfinite(curve)).tolist():
                writer.add_scalar(name, float(curve[row]), row)


def scalars(record: RunRecord) -> Iterator[tuple[str, Float]]:
    """(name, [rounds + 1]), NaN where not measured: over the peers that were, their mean, least and most."""
    for name, table in (("accuracy", record.accuracy), ("loss", record.loss), ("alone", record.alone_accuracy)):
        if table.size:
            known = np.isfinite(table).any(axis=1)
            for kind, of in (("mean", np.nanmean), ("min", np.nanmin), ("max", np.nanmax)):
                curve = np.full(len(table), np.nan)
                curve[known] = of(table[known], axis=1)
                yield f"{name}/{kind}", curve
    yield "consensus_distance", record.consensus_distance
    yield "bytes_sent", np.nansum(record.bytes_sent, axis=1)
    if record.up.size:
        yield "peers_up", record.up.mean(axis=1)
