"""`p2pfl demo`: real peers on this machine learn together, and a report at the end."""

import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from node.entropy import SystemEntropy
from node.local.network import local_network
from node.local.outcome import record_of, write_mean_model
from node.local.progress import missed, shown
from node.local.run import Kill, LocalRun, run_local
from p2pfl.answer import answer
from p2pfl.failure import ExitCode, Failure
from p2pfl.learning.tasks import resolve
from p2pfl.report.page import render
from p2pfl.report.record_json import metrics_csv, to_json
from p2pfl.report.summary import summary
from p2pfl.settings import DataSection, GossipSection, TaskSection, TopologySection, TrainingSection, parse

PEERS_MAX = 64  # processes of 40 MB and a trainer each; beyond, a simulation says more
RUNS = Path(".p2pfl/runs")
TRAINING = TrainingSection(local_steps=60, batch_size=16, learning_rate=0.3)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    peers: int = 8
    topology: str = "ring"
    task: str = "digits"
    partition: str = "dirichlet:0.5"
    rounds: int = 20
    mode: Literal["rounds", "async"] = "rounds"
    seed: int = 7
    kills: tuple[Kill, ...] = ()
    pace_s: float = 0.5
    out: Path | None = None


@dataclass(frozen=True, slots=True)
class Demonstrated:
    """`data` is what --json prints under that name."""

    data: dict[str, Any]
    report: Path
    model: Path


def demonstrate(options: Options) -> Demonstrated:
    """Run it, with progress on stderr, and write its files. Raises `Failure`."""
    task, data = TaskSection(name=options.task), DataSection(partition=options.partition)
    if ":" not in task.name and not task.name.endswith(".py"):
        resolve(task, data, options.seed)  # what can be known to be wrong is said before a process is started
    network = local_network(
        [f"peer-{i}" for i in range(options.peers)],
        name="demo",
        seed=options.seed,
        rounds=options.rounds,
        task=task,
        data=data,
        training=TRAINING,
        topology=TopologySection(kind=options.topology),
        gossip=parse(GossipSection, {"mode": options.mode, "period_s": options.pace_s or 0.05}, "demo"),
    )
    folder = _run_folder(options)
    title = f"{options.task} · {options.peers} peers · {options.topology} · {options.partition} · seed {options.seed}"
    try:
        with shown(title) as watch:
            run = run_local(
                network,
                folder / "peers",
                kills=options.kills,
                alone=True,
                pace_s=options.pace_s if options.mode == "rounds" else 0.0,
                watch=watch,
            )
        unmet = [kill for kill in options.kills if kill not in [done for done, _ in run.kills]]
        early = [f"peer-{kill.peer} had ended before it was to be killed, after {run.seconds:.1f} s" for kill in unmet]
        for line in (*early, *missed(run)):
            print(line, file=sys.stderr)
        return _written(run, title, folder)
    except Failure as failure:
        if failure.exit_code not in (ExitCode.INTERRUPTED, ExitCode.TERMINATED):
            shutil.rmtree(folder)  # so that the mended command may have it
        raise


def kill_from(text: str, peers: int) -> Kill:
    """I@SECONDS."""
    match = re.fullmatch(r"(\d+)@(\d+(?:\.\d+)?)s?", text)
    if match is None:
        raise Failure("usage", f"--kill {text}: not I@SECONDS.", "For example: --kill 2@5", ExitCode.USAGE)
    kill = Kill(int(match[1]), float(match[2]))
    if kill.peer >= peers:
        message = f"--kill {text}: there is no peer {kill.peer}."
        raise Failure("usage", message, f"They are numbered 0 to {peers - 1}.", ExitCode.USAGE)
    return kill


def _run_folder(options: Options) -> Path:
    moment = time.strftime("%Y-%m-%dT%H-%M-%S")
    slug = re.sub(r"[^a-z0-9]+", "-", Path(options.task.partition(":")[0]).stem.lower()).strip("-") or "task"
    folder = options.out or RUNS / f"{moment}-{slug}-{SystemEntropy().draw(2).hex()}"
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        message = f"{folder}: something is there already."
        raise Failure("out_exists", message, "Choose another --out, or remove it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder}: {error.strerror}."
        raise Failure("unwritable", message, "Choose an --out that you can write to.") from None
    return folder


def _written(run: LocalRun, title: str, folder: Path) -> Demonstrated:
    record = record_of(run, title)
    model, report = folder / "model.safetensors", folder / "report.html"
    write_mean_model(run, model)
    report.write_text(render(record), encoding="utf-8")
    (folder / "result.json").write_text(to_json(record), encoding="ascii")
    (folder / "metrics.csv").write_text(metrics_csv(record), encoding="utf-8")
    for peer in run.peers:
        peer.record.unlink(missing_ok=True)
    data = {**summary(record), "report": str(report.absolute()), "model": str(model.absolute())}
    return Demonstrated(data, report, model)


def envelope(data: dict[str, Any]) -> str:
    """What --json prints: one object."""
    return answer(data)


def lines(done: Demonstrated) -> Sequence[str]:
    """The result for people."""
    data = done.data
    alone = f", alone {data['alone_mean']:.3f}" if data["alone_mean"] is not None else ""
    measured = (
        f"mean accuracy {data['accuracy_mean']:.3f} (min {data['accuracy_min']:.3f}{alone})"
        if data["accuracy_mean"] is not None
        else "accuracy not measured"
    )
    distance = "unknown" if data["consensus_distance"] is None else f"{data['consensus_distance']:.3g}"
    return (
        f"done in {data['seconds']:.0f} s: {measured}, consensus distance {distance}",
        f"report   {done.report}",
        f"model    {done.model}",
    )
