"""Records of runs that never were, from formulas: a ring (or a circulant graph) of peers whose curves are known."""

import numpy as np

from p2pfl.report.record import Mark, PeerRecord, RunRecord

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "\"quoted' & {{ 7*7 }}",
    "\u202egnp.exe\u2066",
    "\x1b[31mred\x1b]0;title\x07",
    "nul\x00\r\nline\u2028",
    "=1+cmd|' /C calc'!A0",
    "half \ud800 pair",
)


def a_record(
    peers: int = 8, rounds: int = 10, classes: int = 4, killed: int | None = None, names: tuple[str, ...] = ()
) -> RunRecord:
    """Peer i ends with accuracy 0.9 + i / (100 n) together and half of that alone; peer `killed` is away from round 5 on."""
    row = np.arange(rounds + 1)[:, None]
    final = 0.9 + np.arange(peers) / (100 * peers)
    accuracy = np.repeat(final[None], rounds + 1, axis=0) * (row + 1) / (rounds + 1)
    loss = 1.0 / (1 + row) + np.zeros((1, peers))
    alone = accuracy / 2
    if killed is not None:
        accuracy[5:, killed] = loss[5:, killed] = np.nan
    up = np.empty((0, 0), dtype=np.bool_)
    if killed is not None:
        up = (np.arange(rounds)[:, None] < 5) | (np.arange(peers) != killed)
    names = names or tuple(f"peer-{i}" for i in range(peers))
    edges = tuple((i, (i + 1) % peers) for i in range(peers))
    edges += tuple((i, (i + 7) % peers) for i in range(peers if peers > 20 else 0))
    return RunRecord(
        title="a run",
        engine="events",
        abstracts="The peers are real, the network is not.",
        seed=7,
        settings={"peers": peers, "training": {"learning_rate": 0.05, "momentum": None}},
        seconds=1.5,
        peers=tuple(
            PeerRecord(
                name=names[i],
                state="killed" if i == killed else "done",
                accuracy=float(accuracy[4 if i == killed else -1, i]),
                loss=float(loss[4 if i == killed else -1, i]),
                samples=10 * classes,
                bytes_sent=1000 * rounds,
                bytes_received=900 * rounds,
                updates_sent=2 * rounds,
                updates_applied=2 * rounds - i,
                rejected={"replay": i} if i else {},
            )
            for i in range(peers)
        ),
        edges=edges,
        directed=False,
        accuracy=accuracy,
        loss=loss,
        alone_accuracy=alone,
        consensus_distance=np.where(np.arange(rounds + 1) > 0, 0.5 ** np.arange(rounds + 1), 0.0),
        bytes_sent=1000.0 * row + np.zeros((1, peers)),
        labels=tuple(str(label) for label in range(classes)),
        label_counts=np.array([[10.0 * ((i + c) % classes) for c in range(classes)] for i in range(peers)]),
        marks=() if killed is None else (Mark(4.5, f"{names[killed]} killed"),),
        up=up,
        link_bytes=1000.0 * rounds * (1 + np.arange(len(edges)) % 5),
    )
