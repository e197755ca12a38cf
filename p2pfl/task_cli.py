"""`p2pfl task`: try a task of one's own before peers run it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from p2pfl.answer import answer

if TYPE_CHECKING:  # torch is imported when a task is checked, so that help is quick
    from p2pfl.task_check import Report

app = typer.Typer(no_args_is_help=True, help="Check a task of your own before peers run it.")


@app.command()
def check(
    task: Annotated[str, typer.Argument(metavar="FILE:NAME", help="Such as task.py:task, or a bundled name.")],
    model: Annotated[str | None, typer.Option(help="Of a bundled task: mlp, softmax, ...")] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", exists=True, file_okay=False, help="What peer.directory shall be.")
    ] = None,
    peers: Annotated[int, typer.Option(min=1, help="What peer.count shall be.")] = 8,
    index: Annotated[int, typer.Option(min=0, help="What peer.index shall be.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows of the batch that is tried.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """One batch forward and backward: parameters, bytes on the wire, whether many peers can be trained at once, what is wrong.

    Example: p2pfl task check task.py:task
    """
    from dataclasses import asdict

    from p2pfl.task_check import check as report_on

    if index >= peers:
        raise typer.BadParameter(f"{index} is not below the number of peers, {peers}", param_hint="--index")
    report = report_on(task, model=model, index=index, peers=peers, directory=directory, batch_size=batch_size)
    if as_json:
        typer.echo(answer(asdict(report)))
    else:
        typer.echo("\n".join(_lines(report)))


def _lines(report: "Report") -> list[str]:
    together = "yes" if report.why_not_together is None else f"no: {report.why_not_together}"
    rows = {
        "parameters": f"{report.parameters:,}",
        "update": ", ".join(f"{count:,} bytes {kind}" for kind, count in report.update_bytes.items()),
        "samples": f"{report.train_samples:,} to train, {report.test_samples:,} to test ({report.test_set} test set)",
        "labels": ", ".join(report.labels) or "none named",
        "first batch": f"loss {report.batch_loss:.4g}",
        "first model": ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items()),
        "at once": f"{together}  (many peers as one array, in the batched engine)",
    }
    shown = [f"{name:<12} {value}" for name, value in rows.items()]
    tensors = [f"  {t.role:<11} {t.name} {list(t.shape)}" for t in report.tensors]
    remarks = [f"remark: {remark}" for remark in report.remarks]
    return [f"{report.task} works.", *shown, "tensors", *tensors, *remarks]
