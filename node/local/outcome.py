"""What a run of real peers came to: the record that the page, the JSON and the CSV are made from, and the model."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from node.live_peer import short
from node.local.run import LocalPeer, LocalRun
from node.model_file import model_file
from p2pfl.failure import ExitCode, Failure
from p2pfl.report.record import Float, Mark, PeerRecord, RunRecord

ABSTRACTS = (
    "Nothing is left out: these are real processes with real sockets, on one machine, so links have next to no latency or loss."
)


def record_of(run: LocalRun, title: str) -> RunRecord:
    """The record of a run that is over."""
    terms, peers = run.network.terms, run.peers
    shape = (terms.rounds + 1, len(peers))
    alone = np.array([peer.alone for peer in peers]).T if all(peer.alone for peer in peers) else np.empty((0, len(peers)))
    return RunRecord(
        title=title,
        engine="node",
        abstracts=ABSTRACTS,
        seed=terms.seed,
        settings={"peers": len(peers), "name": run.network.name, **terms.model_dump(exclude_none=True)},
        seconds=run.seconds,
        peers=tuple(map(_peer_record, peers)),
        edges=run.edges,
        directed=run.directed,
        accuracy=_by_step(peers, "accuracy", shape),
        loss=_by_step(peers, "loss", shape),
        alone_accuracy=alone,
        consensus_distance=_consensus_distance(peers, shape[0]),
        bytes_sent=_by_step(peers, "bytes_sent", shape),
        labels=next((tuple(peer.ready["labels"]) for peer in peers if peer.ready), ()),
        label_counts=_label_counts(peers),
        marks=tuple(Mark(max(step, 0), f"{peers[kill.peer].name} was killed") for kill, step in run.kills),
        link_bytes=_link_bytes(run),
    )


def write_mean_model(run: LocalRun, path: Path) -> None:
    """The mean of the models of those who finished, as named tensors."""
    done = [peer for peer in run.peers if peer.state == "done"]
    if not done:
        raise Failure("nobody_finished", "No peer finished.", "What they said is above.", ExitCode.NETWORK)
    if not all(peer.rounds for peer in done):
        message = next((line["text"] for _, line in run.incidents if line["kind"] == "learn_failed"), "a peer learned nothing")
        raise Failure("learning_failed", f"{message}.", f"Check it: p2pfl task check {run.network.terms.task.name}")
    finals = np.stack([mixed_vectors(peer)[-1] for peer in done])
    mean: NDArray[np.float32] = finals.mean(axis=0, dtype=np.float64).astype(np.float32)
    path.write_bytes(model_file(mean, done[0].ready["layout"]))


def mixed_vectors(peer: LocalPeer) -> NDArray[np.float32]:
    """[rows, D]: what the peer held after each of its mixes, one row for each of its lines; of long vectors the newest."""
    vectors = np.fromfile(peer.record, dtype=np.float32).reshape(-1, peer.ready["dimension"])
    return vectors[: max(len(peer.rounds), 1)]


def _peer_record(peer: LocalPeer) -> PeerRecord:
    last, counters = (peer.rounds[-1] if peer.rounds else {}), peer.counters
    state = peer.state if peer.state in ("done", "killed", "stopped") else "failed"
    return PeerRecord(
        name=peer.name,
        state=state,
        accuracy=float(last.get("accuracy", np.nan)),
        loss=float(last.get("loss", np.nan)),
        samples=int(peer.ready.get("samples", 0)),
        bytes_sent=int(counters.get("bytes_sent", 0)),
        bytes_received=int(counters.get("bytes_received", 0)),
        updates_sent=int(counters.get("updates_sent", 0)),
        updates_applied=int(counters.get("updates_applied", 0)),
        rejected=dict(counters.get("rejected", {})),
    )


def _by_step(peers: Iterable[LocalPeer], name: str, shape: tuple[int, int]) -> Float:
    table = np.full(shape, np.nan)
    for column, peer in enumerate(peers):
        for line in peer.rounds:
            if line["step"] < shape[0]:
                table[line["step"], column] = line.get(name, np.nan)
    return table


def _consensus_distance(peers: Iterable[LocalPeer], rows: int) -> Float:
    """[rows]: sqrt(mean_i ||x_i - mean x||^2) over those who were there; NaN where vectors were too long to be kept."""
    held: list[list[NDArray[np.float32]]] = [[] for _ in range(rows)]
    for peer in peers:
        if not peer.rounds:
            continue
        vectors = mixed_vectors(peer)
        steps = [line["step"] for line in peer.rounds][-len(vectors) :]
        for step, vector in zip(steps, vectors, strict=False):
            if step < rows:
                held[step].append(vector)
    return np.array([_distance_to_mean(vectors) for vectors in held])


def _distance_to_mean(vectors: list[NDArray[np.float32]]) -> float:
    if not vectors:
        return float("nan")
    x = np.array(vectors, dtype=np.float64)
    return float(np.sqrt(np.mean(np.sum((x - x.mean(axis=0)) ** 2, axis=1))))


def _link_bytes(run: LocalRun) -> Float:
    """[edges], as their senders counted them until their last word."""
    ids = [short(member.id) for member in run.network.members]
    sent = [peer.counters.get("bytes_to", {}) for peer in run.peers]
    both = [(sent[i].get(ids[j], 0), sent[j].get(ids[i], 0)) for i, j in run.edges]
    return np.array([there if run.directed else there + back for there, back in both], dtype=np.float64)


def _label_counts(peers: list[LocalPeer]) -> Float:
    counts = [list(peer.ready.get("label_counts", ())) for peer in peers]
    width = max(map(len, counts), default=0)
    return np.array([row + [0.0] * (width - len(row)) for row in counts]).reshape(len(peers), width)
