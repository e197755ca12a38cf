"""How long `p2pfl --help` takes, beside the limit (0.2 s), an empty Python and what importing torch would cost.

python benchmarks/help.py
"""

import subprocess
import sys
from statistics import median
from time import perf_counter

LIMIT_S = 0.2
RUNS = 9


def seconds(*command: str) -> float:
    """Median wall time of a command, one warm-up before."""
    times = []
    for _ in range(RUNS + 1):
        begin = perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(perf_counter() - begin)
    return median(times[1:])


if __name__ == "__main__":
    ours = seconds(sys.executable, "-m", "p2pfl", "--help")
    print(f"p2pfl --help    {ours:.3f} s   (limit {LIMIT_S} s)")
    print(f"empty python    {seconds(sys.executable, '-c', 'pass'):.3f} s")
    print(f"import torch    {seconds(sys.executable, '-c', 'import torch'):.3f} s")
    sys.exit(ours > LIMIT_S)
