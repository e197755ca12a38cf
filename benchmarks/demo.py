"""The demo as a user meets it: time, accuracy and memory, then once more for each choice of a peer to kill.

python benchmarks/demo.py [--no-kills]

Memory is PSS, in which pages shared between processes count once. The run is paced by nothing but the machine; a kill comes
one second after all peers were ready.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import Any

import psutil

SAMPLE_S = 0.25
KILL_AT_S = 1.0
NETWORK = "node.network"


class Memory:
    """The largest sums of PSS seen while a process and its children lived, in MB."""

    def __init__(self, pid: int) -> None:
        self.total = 0.0
        self.network = 0.0
        self._pid = pid
        self._over = Event()
        self._thread = Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            total = 0.0
            try:
                parent = psutil.Process(self._pid)
                processes = [parent, *parent.children(recursive=True)]
            except psutil.NoSuchProcess:
                continue
            for process in processes:
                try:
                    pss = process.memory_full_info().pss / 1e6
                    is_network = NETWORK in process.cmdline()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                total += pss
                self.network = max(self.network, pss if is_network else 0.0)
            self.total = max(self.total, total)


def demo(*options: str) -> tuple[dict[str, Any], float, Memory]:
    """(data of --json, wall seconds, memory) of one demo."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "p2pfl", "demo", "--json", "--out", str(Path(directory) / "run"), *options]
        begin = perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        memory = Memory(process.pid)
        output, _ = process.communicate()
        memory.stop()
    result = json.loads(output)
    if result["status"] != "ok":
        raise SystemExit(result["error"]["message"])
    return result["data"], perf_counter() - begin, memory


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-kills", action="store_true")
    arguments = parser.parse_args()
    data, seconds, memory = demo()
    gain = data["accuracy_mean"] - data["alone_mean"]
    rows = [
        ("wall time", f"{seconds:.1f} s", "< 60 s", seconds < 60),
        ("mean accuracy", f"{data['accuracy_mean']:.3f}", ">= 0.92", data["accuracy_mean"] >= 0.92),
        ("lowest accuracy", f"{data['accuracy_min']:.3f}", ">= 0.88", data["accuracy_min"] >= 0.88),
        ("gain over alone", f"{gain:.3f}", ">= 0.15", gain >= 0.15),
        ("all processes, PSS", f"{memory.total:.0f} MB", "< 1000 MB", memory.total < 1000),
        ("a network process, PSS", f"{memory.network:.0f} MB", "< 60 MB", memory.network < 60),
    ]
    if not arguments.no_kills:
        finals = [demo("--kill", f"{victim}@{KILL_AT_S}")[0]["accuracy_mean"] for victim in range(8)]
        loss = data["accuracy_mean"] - sum(finals) / len(finals)
        rows.append(("lost to a killed peer, mean of 8", f"{loss:+.3f}", "<= 0.02", loss <= 0.02))
    print(f"{'':34}{'ours':>10}   asked")
    for name, value, asked, holds in rows:
        print(f"{name:34}{value:>10}   {asked}{'' if holds else '   <-- missed'}")
    return int(not all(holds for *_, holds in rows))


if __name__ == "__main__":
    sys.exit(main())
