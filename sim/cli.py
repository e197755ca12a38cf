"""`p2pfl sim`: simulate many peers from a scenario file."""

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from difflib import get_close_matches
from math import inf, isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pfl.answer import answer
from p2pfl.failure import ExitCode, Failure

if TYPE_CHECKING:  # torch takes a second to import, and `--help` should not
    from sim.result import Result

PEERS_SHOWN = 16

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.callback()
def _sim() -> None:
    """Simulate many peers from a scenario file."""


@app.command(epilog="Example: p2pfl sim run examples/ring.toml --set training.learning_rate=0.05 --seed 3")
def run(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="What to run; see examples/ring.toml.")],
    engine: Annotated[str | None, typer.Option(metavar="events|batch|auto", help="Overrides the scenario's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Overrides the scenario's.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files, new or empty. [.p2pfl/runs/...]")] = None,
    trace: Annotated[bool, typer.Option("--trace", help="Write every event to trace.jsonl (events engine).")] = False,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="Where to compute (batch engine).")] = "cpu",
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the state here, and go on from what is there (batch engine).")
    ] = None,
    checkpoint_every: Annotated[int, typer.Option(metavar="ROUNDS", min=1, help="How often, with --resume.")] = 10,
    svg: Annotated[bool, typer.Option("--svg", help="Write the graph and every curve as SVG too, for a paper.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the curves for TensorBoard too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a scenario; writes result.json, metrics.csv and report.html."""
    _must_be_there(scenario)
    from sim.engine import run as run_scenario
    from sim.invariants import Violation
    from sim.output import run_folder
    from sim.progress import progress
    from sim.scenario import Scenario
    from sim.tensorboard import require

    if tensorboard:
        require()
    overrides = list(set_ or [])
    overrides += [f"engine={engine}"] if engine is not None else []
    overrides += [f"seed={seed}"] if seed is not None else []
    chosen = Scenario.from_toml(scenario, overrides)
    _say(chosen.title)
    with _tidy_when_terminated(), run_folder(out, chosen.title, chosen.seed) as folder, progress(chosen.rounds) as on_round:
        on_trace = folder.trace() if trace else None
        try:
            result = run_scenario(
                chosen,
                on_note=_say,
                on_round=on_round,
                on_trace=on_trace,
                device=device,
                resume=resume,
                checkpoint_every=checkpoint_every,
            )
        except KeyboardInterrupt:
            if resume is not None and any(resume.glob("*.safetensors")):
                _say(f"What was computed is kept in {resume}: the same command goes on from there.")
            raise
        except Violation as violation:
            raise violation.repeated_by(shlex.join(["p2pfl", *sys.argv[1:]])) from None
        written = folder.write(result.record, with_svg=svg, with_tensorboard=tensorboard)
    if as_json:
        print(_json(result, written))
    else:
        print(_table(result, written))


@app.command(epilog="Example: p2pfl sim replay .p2pfl/runs/digits-7-001/trace.jsonl --until 12.5")
def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="The trace.jsonl of a run with --trace.")],
    until: Annotated[
        float, typer.Option(metavar="T", min=0.0, help="Virtual seconds from the beginning. [the end]", show_default=False)
    ] = inf,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a traced run again until a moment, check every line of it, and show what every peer was doing."""
    from sim.replay import replay as replayed

    moment = replayed(trace, until)
    if as_json:
        print(answer(asdict(moment)))
        return
    print(f"at {moment.time:g} s: {moment.events:,} events, {moment.lines:,} lines as in the trace, seed {moment.seed}\n")
    print(f"{'peer':<12}{'state':<10}{'step':>6}{'age':>8}{'held':>6}{'sent':>8}{'applied':>9}{'rejected':>10}")
    for peer in moment.peers:
        print(
            f"{peer.name:<12}{peer.state:<10}{peer.step:>6}{peer.age:>8}{peer.held:>6}{peer.sent:>8}{peer.applied:>9}"
            f"{peer.rejected:>10}"
        )


@app.command(epilog="Example: p2pfl sim check examples/churn.toml --set churn.rate=0.5")
def check(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="What to look at.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key. Repeatable.")
    ] = None,
) -> None:
    """Say whether a scenario can be run, and by which engine; runs nothing."""
    from sim.engine import check_size, choose
    from sim.scenario import Scenario
    from sim.world import world_of

    chosen = Scenario.from_toml(scenario, set_ or [])
    check_size(chosen)
    engine = choose(world_of(chosen), chosen.engine)
    print(f"{scenario}: {chosen.title}, {chosen.rounds} rounds; engine {engine.name}: {engine.why}")


@app.command(epilog="Example: p2pfl sim schema > scenario.schema.json")
def schema() -> None:
    """Print the JSON Schema of scenario files."""
    from sim.scenario import scenario_schema

    print(json.dumps(scenario_schema(), indent=2))


@app.command(epilog="Example: p2pfl sim sweep examples/ring.toml --over topology=ring,complete --seeds 3")
def sweep(
    scenario: Annotated[Path, typer.Argument(metavar="SCENARIO.toml", help="What to vary; see examples/ring.toml.")],
    over: Annotated[
        list[str] | None, typer.Option("--over", metavar="SECTION.KEY=A,B,...", help="A key and its values. Repeatable.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="How many, counting up from the scenario's own.")] = 1,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one key. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the cells and the page. [.p2pfl/sweeps/SCENARIO]")] = None,
    svg: Annotated[bool, typer.Option("--svg", help="Write the curves as SVG too, for a paper.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run every combination under several seeds; goes on where it was interrupted. Writes sweep.html, .json and .csv."""
    from sim import sweep_result
    from sim.grid import axis_from, cells
    from sim.sweep import run_cells, sweep_folder

    axes = [axis_from(text) for text in over or []]
    chosen = cells(scenario, set_ or [], axes, seeds)
    folder = sweep_folder(out, scenario)
    with _tidy_when_terminated():
        finished = run_cells(folder, axes, chosen, _say)
    title = f"{scenario.name} over {', '.join(axis.key for axis in axes)}" if axes else scenario.name
    found = sweep_result.write(folder, title, axes, seeds, finished, with_svg=svg)
    if as_json:
        data = {**sweep_result.as_data(axes, found), "page": str(folder / "sweep.html")}
        print(answer(data))
    else:
        print(sweep_result.table(axes, found), f"page    {folder / 'sweep.html'}", sep="\n\n")


@app.command(epilog="Example: p2pfl sim compare .p2pfl/runs/one-001 .p2pfl/runs/other-001")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR DIR...", help="Folders of runs: of sim run, demo, or node.")],
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="The page.")] = Path("compare.html"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put finished runs beside one another: a table, and a page with their curves over one another."""
    from sim import compare as comparison

    found = comparison.read(runs)
    comparison.write(out, found)
    if as_json:
        data = {"runs": comparison.as_data(found), "page": str(out)}
        print(answer(data))
    else:
        print(comparison.table(found), f"page    {out}", sep="\n\n")


def _must_be_there(scenario: Path) -> None:
    """Asked before torch is imported, which takes a second."""
    if not scenario.exists():
        near = get_close_matches(scenario.name, [path.name for path in scenario.parent.glob("*.toml")], n=1)
        hint = (
            f"Did you mean {scenario.parent / near[0]}?" if near else "Give the path of a scenario, such as examples/ring.toml."
        )
        raise Failure("unreadable_scenario", f"{scenario}: No such file or directory.", hint)


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """SIGTERM ends the process as an exception does, so that an unfinished folder is removed; as before, once this is over."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _json(result: "Result", written: Path) -> str:
    from p2pfl.report.summary import summary

    record = result.record
    data = {**summary(record), "engine": record.engine, "seed": record.seed, "report": str(written / "report.html")}
    return answer(data)


def _table(result: "Result", written: Path) -> str:
    """The result in at most 80 columns."""
    from p2pfl.report.summary import summary

    found, peers = summary(result.record), result.record.peers
    by_accuracy = sorted(peers, key=lambda peer: (isnan(peer.accuracy), peer.accuracy))  # those not measured last
    shown = peers if len(peers) <= PEERS_SHOWN else by_accuracy[:PEERS_SHOWN]
    lines = [
        f"done in {result.seconds:.1f} s: mean accuracy {_number(found['accuracy_mean'])} "
        f"(min {_number(found['accuracy_min'])}, alone {_number(found['alone_mean'])}), "
        f"consensus {_number(found['consensus_distance'])}",
        "",
        f"{'peer':<12}{'accuracy':>10}{'loss':>10}{'samples':>10}{'sent kB':>12}{'applied':>10}{'rejected':>10}",
    ]
    for peer in shown:
        lines.append(
            f"{peer.name:<12}{_number(peer.accuracy):>10}{_number(peer.loss):>10}{peer.samples:>10}"
            f"{peer.bytes_sent / 1000:>12,.0f}{peer.updates_applied:>10}{sum(peer.rejected.values()):>10}"
        )
    if len(shown) < len(peers):
        lines.append(f"the {len(shown)} least accurate of {len(peers)} peers; all are in metrics.csv")
    return "\n".join([*lines, "", f"report  {written / 'report.html'}"])


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.3f}"
