"""`p2pfl topology`: which graphs there are, and what one of them means for gossip."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # each command imports what it needs, so that `p2pfl --help` loads neither networkx nor numpy
    from topology.families import Graph

EXACT_PEERS_MAX = 1024  # the spectrum costs n³: some seconds here

app = typer.Typer(no_args_is_help=True, help="Graphs of peers, and what they mean for gossip.")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("list")
def list_families(as_json: AsJson = False) -> None:
    """The kinds of graphs, and how each is written."""
    from topology.specification import FAMILIES, usage

    if as_json:
        _print_json([{"kind": kind, "usage": usage(kind), "summary": family.summary} for kind, family in FAMILIES.items()])
        return
    for kind, family in FAMILIES.items():
        typer.echo(f"{usage(kind):<24} {family.summary}")


@app.command()
def show(
    specification: Annotated[str, typer.Argument(metavar="SPEC", help="Such as ring, torus:2x4 or random_regular:4.")],
    peers: Annotated[int, typer.Option(help="How many peers.")] = 8,
    seed: Annotated[int, typer.Option(help="Of a random graph.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What a graph implies: degree, diameter, and how fast gossip on it agrees.

    The contraction is the largest share of the peers' disagreement that a round leaves; 1 minus the spectral gap is what a
    round leaves in the long run. Metropolis weights, or uniform ones where the graph is directed.
    """
    from topology.specification import from_specification

    facts = _facts(from_specification(specification, peers, seed))
    if as_json:
        _print_json({"topology": specification, "seed": seed, **facts})
        return
    for name, value in facts.items():
        shown = f"not computed above {EXACT_PEERS_MAX} peers" if value is None else value
        typer.echo(f"{name.replace('_', ' '):<13} {round(shown, 6) if isinstance(shown, float) else shown}")


def _facts(graph: "Graph") -> dict[str, Any]:
    """What `show` prints. Neighbors are those one receives from; None is what would take too long for so many peers."""
    from topology.reach import diameter
    from topology.spectrum import contraction, spectral_gap
    from topology.weights import metropolis_weights, senders, uniform_weights

    degrees = [len(row) for row in senders(graph)]
    directed = graph.is_directed()
    facts = {
        "peers": len(graph),
        "edges": graph.number_of_edges(),
        "directed": directed,
        "degree_min": min(degrees),
        "degree_max": max(degrees),
        "diameter": None,
        "weights": "uniform" if directed else "metropolis",
        "contraction": None,
        "spectral_gap": None,
    }
    if len(graph) > EXACT_PEERS_MAX:
        return facts
    weights = uniform_weights(graph) if directed else metropolis_weights(graph)
    return facts | {
        "diameter": diameter(graph),
        "contraction": contraction(weights),
        "spectral_gap": spectral_gap(weights),
    }


def _print_json(data: Any) -> None:
    typer.echo(json.dumps({"schema_version": 1, "status": "ok", "data": data}))
