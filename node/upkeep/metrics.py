"""A node's counters for Prometheus, at `http://127.0.0.1:PORT/metrics` and nowhere else.

Made of the same snapshot as the status, when it is asked for. Whoever can reach loopback may read it: it holds no key and no
content. A page in a browser on this machine can't: it would have to come by another host's name, and that is refused.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from p2pfl.failure import ExitCode, Failure

HOST = "127.0.0.1"
REQUEST_MAX = 8 * 1024  # bytes of the head of a request
CALLERS_MAX = 8  # at once
PATIENCE_S = 5.0

Snapshot = Mapping[str, Any]

_TOTALS = {
    "strangers_refused": "connections of strangers that were refused at the gate",
    "messages_unknown": "messages from nobody who is a member",
    "messages_dropped": "messages not sent, because a link was down or its outbox full",
    "messages_muted": "messages dropped unread, because their sender said too much",
    "listener_cycles": "times that everybody who had dialled was hung up on, to free memory",
    "journal_failures": "lines of the journal that the disk did not take",
}
_FATES = ("sent", "applied", "rejected", "superseded", "lost")
STATES = ("starting", "learning", "waiting", "relaying", "alone", "degraded", "parting", "finished", "leaving")


class MetricsPage:
    """Serves `snapshot()` while it is open."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        """Raises `Failure` where the extra that brings the format is missing."""
        try:
            from prometheus_client import exposition
        except ImportError:
            message = "Metrics for Prometheus need the package prometheus-client."
            raise Failure("no_prometheus", message, 'pip install "p2pfl-gossip[metrics]"') from None
        self._format = exposition.generate_latest
        self._type = exposition.CONTENT_TYPE_LATEST
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None
        self._callers = 0

    async def start(self, port: int) -> int:
        """The port; 0 chooses a free one. Raises `Failure`."""
        try:
            self._server = await asyncio.start_server(self._serve, HOST, port, limit=REQUEST_MAX)
        except OSError as error:
            message = f"Metrics can't be served at {HOST}:{port}: {error.strerror}."
            raise Failure("metrics_port", message, "Choose another --metrics-port.", ExitCode.NETWORK) from None
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def collect(self) -> Iterator[Any]:
        """What prometheus-client asks of a collector."""
        return families(self._snapshot())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._callers += 1
        try:
            if self._callers > CALLERS_MAX:
                return
            async with asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            self._callers -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        line, *rest = head.decode("latin-1").split("\r\n")
        fields = [field.partition(":") for field in rest]
        hosts = [value.strip() for name, _, value in fields if name.strip().lower() == "host"]
        if len(hosts) != 1 or hosts[0].rpartition(":")[0] not in (HOST, "localhost"):
            return _response("403 Forbidden", b"ask by the name of this machine's loopback\n")
        match line.split(" "):
            case ["GET", "/metrics", "HTTP/1.0" | "HTTP/1.1"]:
                return _response("200 OK", self._format(self), self._type)
            case ["GET", _, _]:
                return _response("404 Not Found", b"there is /metrics only\n")
            case [_, _, _]:
                return _response("405 Method Not Allowed", b"there is GET only\n", more="Allow: GET\r\n")
            case _:
                return _response("400 Bad Request", b"that is no HTTP\n")


def families(snapshot: Snapshot) -> Iterator[Any]:
    """Every metric, in the order of docs/operations.md."""
    from prometheus_client.core import CounterMetricFamily as Counter
    from prometheus_client.core import GaugeMetricFamily as Gauge

    node = Gauge("p2pfl_node", "who this is; always 1", labels=("name", "network", "identity", "version"))
    node.add_metric((snapshot["name"], snapshot["network"], snapshot["keys"]["identity"], snapshot["version"]), 1)
    yield node
    state = Gauge("p2pfl_state", "1 for the state that the node is in, else 0", labels=("state",))
    for name in STATES:
        state.add_metric((name,), float(name == snapshot["state"]))
    yield state
    yield Gauge("p2pfl_uptime_seconds", "since this start", snapshot["uptime_s"])
    yield Gauge("p2pfl_alone", "1 while no neighbor can be reached", float(snapshot["alone_since"] is not None))
    yield from _of_relay(snapshot, Counter, Gauge) if "relayed" in snapshot else _of_learner(snapshot, Counter, Gauge)
    for name, what in _TOTALS.items():
        yield Counter(f"p2pfl_{name}", what, snapshot[name])
    members = Gauge("p2pfl_members", "of a founded network, as this node sees them", labels=("state",))
    spoken = Counter("p2pfl_membership_bytes", "sent to know who is live, before encryption", labels=())
    if (seen := snapshot["membership"]) is not None:
        for name in ("alive", "suspected", "dead", "left"):
            members.add_metric((name,), seen[name])
        spoken.add_metric((), seen["bytes_sent"])
    yield from (members, spoken)
    rejected = Counter("p2pfl_rejected", "messages and updates refused", labels=("reason",))
    for reason, count in snapshot["rejected"].items():
        rejected.add_metric((reason,), count)
    yield rejected
    yield from _of_neighbors(snapshot["neighbors"], Counter, Gauge)


def _of_learner(snapshot: Snapshot, counter: Any, gauge: Any) -> Iterator[Any]:
    yield gauge("p2pfl_round", "of the Learn under way or last delivered", snapshot["step"])
    for name in ("accuracy", "loss"):
        if snapshot[name] is not None:
            yield gauge(f"p2pfl_{name}", f"{name} after the newest round", snapshot[name])
    if snapshot["round_age_s"] is not None:
        yield gauge("p2pfl_last_round_seconds", "since the newest round ended: what to alert on", snapshot["round_age_s"])
    trainer, checkpoint = snapshot["trainer"], snapshot["checkpoint"]
    yield gauge("p2pfl_trainer_up", "1 while there is a trainer", float(trainer["is_up"]))
    yield counter("p2pfl_trainer_restarts", "trainers that died and were followed by another", trainer["restarts"])
    yield _memory(gauge, {"network": snapshot["memory_bytes"], "trainer": trainer["memory_bytes"]})
    if checkpoint["age_s"] is not None:
        yield gauge("p2pfl_checkpoint_age_seconds", "since the newest checkpoint of this start", checkpoint["age_s"])
    yield counter("p2pfl_checkpoint_failures", "checkpoints that could not be written", checkpoint["failures"])


def _of_relay(snapshot: Snapshot, counter: Any, gauge: Any) -> Iterator[Any]:
    yield _memory(gauge, {"network": snapshot["memory_bytes"]})
    if carried := snapshot["relayed"]:
        yield counter("p2pfl_relay_messages", "sealed messages that were passed on for others", carried["messages"])
        yield counter("p2pfl_relay_bytes", "bytes of them", carried["bytes"])
        yield counter("p2pfl_relay_dropped", "sealed messages for which there was no room", carried["dropped"])
        yield gauge("p2pfl_relay_held_bytes", "passed on, and not taken yet", carried["held"])


def _memory(gauge: Any, held: Mapping[str, int]) -> Any:
    memory = gauge("p2pfl_memory_bytes", "held by each process", labels=("process",))
    for process, size in held.items():
        memory.add_metric((process,), size)
    return memory


def _of_neighbors(neighbors: list[Snapshot], counter: Any, gauge: Any) -> Iterator[Any]:
    ready = gauge("p2pfl_neighbor_ready", "1 while both ways are open", labels=("neighbor",))
    behind = gauge("p2pfl_neighbor_behind_rounds", "own round less the neighbor's", labels=("neighbor",))
    traffic = counter("p2pfl_neighbor_bytes", "of messages, before encryption", labels=("neighbor", "direction"))
    updates = counter("p2pfl_neighbor_updates", "what became of updates", labels=("neighbor", "fate"))
    held = gauge("p2pfl_neighbor_updates_held", "updates that wait to be mixed", labels=("neighbor",))
    for one in neighbors:
        name = one["name"]
        ready.add_metric((name,), float(one["state"] == "ready"))
        traffic.add_metric((name, "out"), one["bytes_sent"])
        traffic.add_metric((name, "in"), one["bytes_received"])
        if "behind" not in one:  # a relay has no rounds
            continue
        behind.add_metric((name,), one["behind"])
        for fate in _FATES:
            updates.add_metric((name, fate), one[fate])
        held.add_metric((name,), one["held"])
    yield from (ready, behind, traffic, updates, held)


def _response(status: str, body: bytes, kind: str = "text/plain; charset=utf-8", more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    return head.encode() + body
