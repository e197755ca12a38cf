"""`p2pfl node status` and `p2pfl node leave`: what a running node says of itself, for people and for programs."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from node.admission.attested import in_words
from node.directory import NodeDirectory
from node.upkeep.control import Caller
from p2pfl.failure import ExitCode, Failure
from p2pfl.report.plain import plain

LEAVE_S = 60.0  # for a last checkpoint, the good-byes and the model
PERIOD_S = 1.0  # of --watch
NAME_MAX = 14  # columns; the table has 80
RECENT_SHOWN = 3

Status = Mapping[str, Any]


def status_of(directory: NodeDirectory) -> dict[str, Any]:
    """One snapshot of the node that runs there; raises `Failure` where none does."""
    with Caller(directory.control) as caller:
        status: dict[str, Any] = caller.ask("status")
        return status


def leave(directory: NodeDirectory) -> dict[str, Any]:
    """Have the node end in peace, and wait until it has."""
    with Caller(directory.control) as caller:
        left: dict[str, Any] = caller.ask("leave")
        if not caller.wait_for_end(LEAVE_S):
            message = f"{directory.path}: the node is still leaving after {LEAVE_S:.0f} s."
            raise Failure("still_leaving", message, "Its last checkpoint may be large; look again.", ExitCode.NETWORK)
        return left


def watch(directory: NodeDirectory, show: Callable[[Status], None]) -> None:
    """Show a snapshot every second until the node has ended or Ctrl-C. Raises `Failure` where none runs at first."""
    show(status_of(directory))
    while True:
        time.sleep(PERIOD_S)
        try:
            show(status_of(directory))
        except Failure:
            print("the node has ended", file=sys.stderr)
            return


@contextmanager
def screen() -> Iterator[Callable[[Status], None]]:
    """What shows one snapshot after the other: in place on a terminal, else one below the other."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        yield lambda status: print("\n".join([*lines(status), ""]), flush=True)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        yield lambda status: live.update(Text("\n".join(lines(status))), refresh=True)


def lines(status: Status) -> list[str]:
    """At most 80 columns wide, with nothing that a member's name could do to a terminal."""
    is_relay = "relayed" in status
    return [
        *(_relay_head(status) if is_relay else _head(status)),
        "",
        *(_carried_for(status["neighbors"]) if is_relay else _neighbors(status["neighbors"])),
        "",
        *(() if is_relay else _learning(status)),
        *_facts(status),
        *_recent(status["recent"]),
    ]


def _head(status: Status) -> Iterator[str]:
    yield f"{plain(status['name'])} in {plain(status['network'])}: {status['state']}, round {status['step']}"[:80]
    measured = [f"{name} {status[name]:.4f}" for name in ("accuracy", "loss") if status[name] is not None]
    ended = [f"last round ended {duration(status['round_age_s'])} ago"] if status["round_age_s"] is not None else []
    yield "   ".join([*(measured or ["not measured yet"]), *ended, f"up {duration(status['uptime_s'])}"])
    yield from _alone(status)
    if status["trainer"]["trouble"]:
        yield from _wrapped("degraded", status["trainer"]["trouble"])


def _relay_head(status: Status) -> Iterator[str]:
    carried = status["relayed"]
    yield f"{plain(status['name'])} in {plain(status['network'])}: {status['state']}"[:80]
    if carried:
        passed = f"passed on {carried['messages']} messages, {size(carried['bytes'])}B"
        yield f"{passed}; dropped {carried['dropped']}; holds {size(carried['held'])}B   up {duration(status['uptime_s'])}"
    yield from _alone(status)


def _alone(status: Status) -> Iterator[str]:
    if status["alone_since"] is not None:
        yield f"alone since {_moment(status['alone_since'])}: no neighbor can be reached; it goes on trying"


def _neighbors(neighbors: list[Status]) -> Iterator[str]:
    columns = f"{'state':<7} {'round':>7} {'behind':>6} {'out':>7} {'in':>7} {'sent':>6} {'applied':>7} {'refused':>7}"
    yield f"{'neighbor':<{NAME_MAX}} {columns}"
    for one in neighbors:
        refused = sum(one["refusals"].values())
        yield (
            f"{_cut(plain(one['name']), NAME_MAX):<{NAME_MAX}} {one['state']:<7} {one['step']:>7} {one['behind']:>6} "
            f"{size(one['bytes_sent']):>7} {size(one['bytes_received']):>7} {one['sent']:>6} {one['applied']:>7} {refused:>7}"
        )
        yield from _remarks(one)
    if not neighbors:
        yield "none yet"


def _carried_for(neighbors: list[Status]) -> Iterator[str]:
    yield f"{'member':<{NAME_MAX}} {'state':<7} {'out':>7} {'in':>7} {'refused':>7}"
    for one in neighbors:
        refused = sum(one["refusals"].values())
        traffic = f"{size(one['bytes_sent']):>7} {size(one['bytes_received']):>7}"
        yield f"{_cut(plain(one['name']), NAME_MAX):<{NAME_MAX}} {one['state']:<7} {traffic} {refused:>7}"
        yield from _remarks(one)
    if not neighbors:
        yield "none yet"


def _remarks(neighbor: Status) -> Iterator[str]:
    """What is not as usual with it."""
    if neighbor.get("through"):
        yield _cut(f"  through {plain(neighbor['through'])}, which can't read what it carries", 80)
    if neighbor["trouble"]:
        place = plain(neighbor["address"]) or "no address"
        yield _cut(f"  {place}: {plain(neighbor['trouble'])}", 80)
    if neighbor["ignored_s"]:
        yield f"  it says too much, and is not heard for {duration(neighbor['ignored_s'])}"


def _learning(status: Status) -> Iterator[str]:
    checkpoint, trainer = status["checkpoint"], status["trainer"]
    saved = f"round {checkpoint['step']}, {duration(checkpoint['age_s'])} ago" if checkpoint["step"] is not None else "none yet"
    failures = f"; {checkpoint['failures']} failed" if checkpoint["failures"] else ""
    restarts = f"{trainer['restarts']} restarts" if trainer["restarts"] else "never restarted"
    yield f"checkpoint  {saved}{failures}"
    yield f"trainer     {'up' if trainer['is_up'] else 'down'}, {restarts}, {size(trainer['memory_bytes'])}B"


def _facts(status: Status) -> Iterator[str]:
    yield f"network     {size(status['memory_bytes'])}B, listens at {plain(status['listens_at'])}, {status['members']} members"
    sent, received = size(status["bytes_sent"]), size(status["bytes_received"])
    yield f"traffic     {sent}B out, {received}B in, {status['messages_dropped']} messages dropped"
    if (tunnels := status.get("tunnels")) is not None and (tunnels["relays"] or tunnels["tunnels"]):
        yield f"tunnels     {len(tunnels['tunnels'])} open, {tunnels['relays']} relays, {tunnels['dropped']} messages dropped"
    if status["membership"] is not None:
        yield from _membership(status["membership"])
    rejected = ", ".join(f"{reason} {count}" for reason, count in status["rejected"].items())
    yield from _wrapped("refused    ", rejected or "nothing")
    if status["messages_muted"]:
        yield f"ignored     {status['messages_muted']} messages of who said too much, unread"
    if status["strangers_refused"] or status["listener_cycles"]:
        yield f"strangers   {status['strangers_refused']} turned away; listener cycled {status['listener_cycles']} times"
    if status["journal_failures"]:
        yield f"log         the disk did not take {status['journal_failures']} lines"
    for name, digits in status["keys"].items():
        yield f"{name:<11} {digits} (the key's first digits)"


def _membership(seen: Status) -> Iterator[str]:
    counts = ", ".join(f"{seen[state]} {state}" for state in ("alive", "suspected", "dead", "left"))
    yield f"members     {counts}; {seen['watched']} watched with {size(seen['bytes_sent'])}B"
    waits = f"; waits for a restart: {', '.join(seen['at_restart'])}" if seen["at_restart"] else ""
    yield from _wrapped("charter    ", f"{seen['charter']}{waits}")
    if seen["attestation"] is not None:
        yield from _wrapped("revocations", in_words(seen["attestation"]))
    if seen["revocations"] or seen["conflicts"]:
        yield f"papers      {seen['revocations']} revocations, {seen['conflicts']} invites used too often"
    if seen["is_clock_off"]:
        yield "clock       an hour or more from the members': nobody is let in by this node"


def _recent(recent: list[Status]) -> Iterator[str]:
    if recent:
        yield ""
    for line in recent[-RECENT_SHOWN:]:
        who = f"{plain(line['member'])}: " if "member" in line else ""
        yield _cut(f"{_moment(line['time'])}  {line['kind']}: {who}{plain(line['text'])}", 80)


def size(count: int) -> str:
    """Bytes in at most six columns: 999, 12.3k, 4.56M."""
    for unit, scale in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g}{unit}" if count < 999.5 * scale else f"{count / scale:.0f}{unit}"
    return str(count)


def duration(seconds: float) -> str:
    """The two largest units."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _moment(wall: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(wall))


def _cut(text: str, columns: int) -> str:
    return text if len(text) <= columns else text[: columns - 1] + "…"


def _wrapped(head: str, text: str) -> Iterator[str]:
    from textwrap import wrap

    yield from wrap(plain(text), 80, initial_indent=f"{head} ", subsequent_indent=" " * 12)
