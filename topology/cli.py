"""`p2pfl topology`: which graphs and schedules there are, what they mean for gossip, and which to take."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # each command imports what it needs, so that `p2pfl --help` loads neither networkx nor numpy
    from topology.families import Graph
    from topology.schedules import Schedule

EXACT_PEERS_MAX = 1024  # the spectrum costs n³: some seconds here
DRAWN_PEERS_MAX = 500
DRAWN_ROUNDS = 4  # of a schedule that never repeats
DIGITS_UPDATE_BYTES = 19_240  # float32, of the model that `p2pfl demo` trains: 64-64-10

app = typer.Typer(no_args_is_help=True, help="Graphs of peers, and what they mean for gossip.")
Specification = Annotated[
    str, typer.Argument(metavar="SPEC", help="Such as ring, torus:2x4, random_regular:4, base_k:2; or a file of a graph.")
]
Peers = Annotated[int, typer.Option(help="How many peers.")]
Seed = Annotated[int, typer.Option(help="Of what is random.")]
UpdateBytes = Annotated[int, typer.Option(help="Of one update.")]
Epsilon = Annotated[float, typer.Option(help="Share of the disagreement that may be left in the end.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_families(as_json: AsJson = False) -> None:
    """The kinds of graphs and schedules, and how each is written."""
    from topology.specification import FAMILIES, SCHEDULES, usage

    entries = [
        {"kind": kind, "usage": usage(kind), "summary": family.summary, "schedule": kind in SCHEDULES}
        for kind, family in {**FAMILIES, **SCHEDULES}.items()
    ]
    if as_json:
        _print_json(entries)
        return
    for entry in entries:
        if entry["kind"] == next(iter(SCHEDULES)):
            typer.echo("\nSchedules: other links every round")
        typer.echo(f"{entry['usage']:<30} {entry['summary']}")


@app.command()
def show(
    specification: Specification,
    peers: Peers = 8,
    seed: Seed = 0,
    weights: Annotated[str | None, typer.Option(help="Mixing weights; metropolis, or uniform on a directed graph.")] = None,
    update_bytes: UpdateBytes = DIGITS_UPDATE_BYTES,
    epsilon: Epsilon = 1e-3,
    as_json: AsJson = False,
) -> None:
    """What a graph or a schedule implies: degree, diameter, and how fast gossip on it agrees.

    The contraction is the largest share of the peers' disagreement that a round leaves; 1 minus the spectral gap is what a
    round leaves in the long run. The noise floor is n times the variance that stays where every peer adds noise of variance 1
    every round. Bytes are what the peer with most neighbors sends.
    """
    from topology.specification import is_schedule

    if is_schedule(specification):
        facts = _schedule_facts(_schedule(specification, peers, seed), update_bytes, epsilon)
    else:
        facts = _graph_facts(_graph(specification, peers, seed), weights, update_bytes, epsilon)
    if as_json:
        _print_json({"topology": specification, "seed": seed, **facts})
        return
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):<{width}} {_text(value)}")


@app.command()
def compare(
    peers: Peers = 64,
    bytes_per_round: Annotated[int | None, typer.Option("--bytes", help="At most, that any peer sends in a round.")] = None,
    update_bytes: UpdateBytes = DIGITS_UPDATE_BYTES,
    epsilon: Epsilon = 1e-3,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Which graph for so many peers and so many bytes a round: all kinds that fit, the one that agrees first on top.

    The cheapest, which leaves least disagreement for a byte, has the smallest number in the last column.
    """
    from dataclasses import asdict

    from topology.comparison import compared

    _refuse_more(peers, EXACT_PEERS_MAX, "compared")
    candidates = compared(peers, bytes_per_round, update_bytes, epsilon, seed)
    cheapest = min(candidates, key=lambda candidate: candidate.bytes_to_consensus or float("inf"))
    if as_json:
        best = {"best": candidates[0].kind, "cheapest": cheapest.kind}
        _print_json({"peers": peers, "epsilon": epsilon, **best, "candidates": [asdict(one) for one in candidates]})
        return
    budget = "any number of bytes" if bytes_per_round is None else f"at most {_bytes(bytes_per_round)}"
    typer.echo(
        f"{peers} peers, {budget} a round, updates of {_bytes(update_bytes)}, until {epsilon:g} of disagreement is left\n"
    )
    typer.echo(f"{'kind':<22} {'rounds':>7} {'sent a round':>13} {'by the busiest':>15} {'sent in all':>12}")
    for one in candidates:
        rounds = "never" if one.rounds is None else one.rounds
        in_all = "" if one.bytes_to_consensus is None else _bytes(one.bytes_to_consensus)
        sent = f"{_bytes(one.bytes_per_round):>13} {_bytes(one.bytes_per_round_max):>15}"
        typer.echo(f"{one.kind:<22} {rounds:>7} {sent} {in_all:>12}")
    typer.echo(f"\nFewest rounds: {candidates[0].kind}. Fewest bytes: {cheapest.kind}.")


@app.command()
def draw(
    specification: Specification,
    peers: Peers = 8,
    seed: Seed = 0,
    rounds: Annotated[int | None, typer.Option(help=f"Of a schedule; its period, or {DRAWN_ROUNDS}.")] = None,
    out: Annotated[Path | None, typer.Option(help="The file, .svg; or printed, where it is not given.")] = None,
    as_json: AsJson = False,
) -> None:
    """A picture, in SVG: of a schedule, a panel a round."""
    from topology.drawing import svg
    from topology.families import at_least

    schedule = _schedule(specification, peers, seed)
    _refuse_more(schedule.n, DRAWN_PEERS_MAX, "drawn")
    shown = rounds or schedule.period or DRAWN_ROUNDS
    at_least(1, rounds=shown)
    titles = [specification] if schedule.period == 1 else [f"{specification}, round {round}" for round in range(shown)]
    picture = svg([schedule.rows(round) for round in range(len(titles))], titles)
    if out is None and not as_json:
        typer.echo(picture, nl=False)
        return
    if out is not None:
        _write(out, picture.encode())
    _say(as_json, {"file": None if out is None else str(out), "svg": picture}, f"Drawn: {out}")


@app.command()
def convert(
    specification: Specification,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="To write: .graphml, .edges, .npy or .json.")],
    peers: Peers = 8,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """A graph, by name or from a file, to a file of another format: GraphML, edge list, adjacency matrix, JSON."""
    from topology.interchange import encode_graph

    graph = _graph(specification, peers, seed)
    _write(out, encode_graph(graph, out.suffix))
    summary = {"file": str(out), "peers": len(graph), "edges": graph.number_of_edges(), "directed": graph.is_directed()}
    _say(as_json, summary, f"Written: {out}, {len(graph)} peers, {graph.number_of_edges()} edges")


def _graph_facts(graph: "Graph", weights: str | None, update_bytes: int, epsilon: float) -> dict[str, Any]:
    """What `show` prints. Neighbors are those one receives from; None is what would take too long for so many peers."""
    import networkx as nx

    from topology.consensus import rounds_to_consensus
    from topology.families import at_least
    from topology.reach import diameter
    from topology.schedules import static
    from topology.spectrum import algebraic_connectivity, contraction, noise_floor, spectral_gap
    from topology.weights import senders

    at_least(1, update_bytes=update_bytes)
    degrees = [len(row) for row in senders(graph)]
    directed = graph.is_directed()
    sent = graph.out_degree if isinstance(graph, nx.DiGraph) else graph.degree
    kind = weights or ("uniform" if directed else "metropolis")
    facts: dict[str, Any] = {
        "peers": len(graph),
        "edges": graph.number_of_edges(),
        "directed": directed,
        "degree_min": min(degrees),
        "degree_max": max(degrees),
        "diameter": None,
        "algebraic_connectivity": None,
        "r_robustness": None,
        "weights": kind,
        "contraction": None,
        "spectral_gap": None,
        "noise_floor": None,
        "rounds_to_consensus": None,
        "bytes_per_round": max(degree for _, degree in sent) * update_bytes,
    }
    if len(graph) > EXACT_PEERS_MAX:
        return facts
    schedule = static(graph, kind)
    W = schedule(0)
    keeps_the_mean = bool((abs(W.sum(axis=0) - 1) < 1e-9).all())
    facts |= {
        "diameter": diameter(graph),
        "algebraic_connectivity": algebraic_connectivity(graph) if not directed and len(graph) > 1 else "undefined",
        "r_robustness": _robustness(graph),
        "contraction": contraction(W),
        "spectral_gap": spectral_gap(W),
        "noise_floor": noise_floor(W) if keeps_the_mean and contraction(W) < 1 else "undefined",
        "rounds_to_consensus": rounds_to_consensus(schedule, epsilon) or "never",
    }
    return facts


def _schedule_facts(schedule: "Schedule", update_bytes: int, epsilon: float) -> dict[str, Any]:
    from topology.consensus import rounds_to_consensus, updates_sent
    from topology.families import at_least

    at_least(1, update_bytes=update_bytes)
    mean, most = updates_sent(schedule)
    small = schedule.n <= EXACT_PEERS_MAX
    return {
        "peers": schedule.n,
        "period": schedule.period or "never the same",
        "updates_sent_mean": mean,
        "updates_sent_max": most,
        "rounds_to_consensus": (rounds_to_consensus(schedule, epsilon) or "never") if small else None,
        "bytes_per_round": most * update_bytes,
    }


def _robustness(graph: "Graph") -> int | list[int] | str:
    """Exact, or what it lies between."""
    from topology.robustness import EXACT_ROBUSTNESS_PEERS_MAX, r_robustness, robustness_bounds

    if len(graph) <= EXACT_ROBUSTNESS_PEERS_MAX:
        return r_robustness(graph)
    if graph.is_directed():
        return f"not computed above {EXACT_ROBUSTNESS_PEERS_MAX} peers"
    least, most = robustness_bounds(graph)
    return least if least == most else [least, most]


def _graph(specification: str, peers: int, seed: int) -> "Graph":
    """By name; or from a file, whose suffix tells."""
    from topology.errors import TopologyError
    from topology.interchange import FORMATS, decode_graph
    from topology.specification import from_specification

    path = Path(specification)
    if path.suffix.lower() not in FORMATS:
        return from_specification(specification, peers, seed)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TopologyError(f"{path} can't be read: {error.strerror}.", "Give a file of a graph.") from None
    return decode_graph(data, path.suffix)


def _schedule(specification: str, peers: int, seed: int) -> "Schedule":
    from topology.schedules import static
    from topology.specification import is_schedule, schedule_from_specification

    if is_schedule(specification):
        return schedule_from_specification(specification, peers, seed)
    graph = _graph(specification, peers, seed)
    return static(graph, "uniform" if graph.is_directed() else "metropolis")


def _refuse_more(peers: int, most: int, what: str) -> None:
    if peers > most:
        from topology.errors import TopologyError

        raise TopologyError(f"{peers} peers can't be {what}.", f"Give at most {most}.")


def _write(path: Path, data: bytes) -> None:
    """A new file, never over another."""
    from topology.errors import TopologyError

    try:
        file = path.open("xb")
    except OSError as error:
        raise TopologyError(f"{path} can't be written: {error.strerror}.", "Give the name of a new file.") from None
    try:
        with file:
            file.write(data)
    except OSError as error:
        path.unlink()
        raise TopologyError(f"{path} can't be written: {error.strerror}.", "Make room, or write it elsewhere.") from None


def _text(value: Any) -> str:
    match value:
        case None:
            return f"not computed above {EXACT_PEERS_MAX} peers"
        case float():
            return f"{round(value, 6)}"
        case [least, most]:
            return f"{least} to {most}"
        case _:
            return str(value)


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _say(as_json: bool, data: Any, line: str) -> None:
    if as_json:
        _print_json(data)
    else:
        typer.echo(line)


def _print_json(data: Any) -> None:
    typer.echo(json.dumps({"schema_version": 1, "status": "ok", "data": data}))
