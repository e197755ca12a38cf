"""The pytest plugin, in test runs of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from p2pfl.failure import Failure
from sim.rehearsal import Rehearsal, as_toml
from sim.scenario import Scenario

pytest_plugins = ["pytester"]

SMALL = 'peers=5, topology="complete", task={"name": "digits", "model": "softmax"}, training={"local_steps": 2}'


@pytest.fixture
def plugin(pytester: pytest.Pytester, request: pytest.FixtureRequest) -> list[str]:
    """What loads it where the package was installed before it had one."""
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return [] if request.config.pluginmanager.hasplugin("p2pfl") else ["-p", "p2pfl.pytest_plugin"]


def test_who_is_killed_is_masked_and_who_is_restarted_is_back(pytester: pytest.Pytester, plugin: list[str]) -> None:
    pytester.makepyfile(f"""
        def test_it(federation):
            f = federation({SMALL})
            f.at(2).kill([1, 3])
            f.at(4).restart(3)
            r = f.run(until=8)
            assert r.accuracy.shape == (9, 5)
            assert r.accuracy[-1].mask.tolist() == [False, True, False, False, False]
            assert r.accuracy[-1].min() > r.accuracy[0].max()
            assert r.consensus_distance[-1] < 10
            assert [mark.text for mark in r.record.marks] == ["crash 1,3", "restart 3"]
            assert r.up.all(axis=0).tolist() == [True, False, True, False, True] and r.events > 100
    """)
    pytester.runpytest_subprocess(*plugin).assert_outcomes(passed=1)


def test_each_of_n_seeds_is_a_test_and_a_failure_says_how_to_repeat_it(pytester: pytest.Pytester, plugin: list[str]) -> None:
    pytester.makepyfile(
        test_seeds=f"""
        def test_it(federation):
            r = federation({SMALL}, seed=40).run(rounds=1)
            assert r.record.seed != 41
    """
    )
    ran = pytester.runpytest_subprocess(*plugin, "--p2pfl-seeds", "3")
    ran.assert_outcomes(passed=2, failed=1)
    name = Path(".p2pfl/failures/test_seeds-py-test_it-41.toml")
    ran.stdout.fnmatch_lines(
        [
            "repeat with: pytest --p2pfl-seeds 3 'test_seeds.py::test_it[[]seed+1[]]'",
            "seed 41: digits, 5 peers, complete, *",
            f"  look at it with: p2pfl sim run {name} --trace --out {name.with_suffix('')}",
            f"                   p2pfl sim replay {name.with_suffix('')}/trace.jsonl --until 1",
        ]
    )
    repeated = Scenario.from_toml(pytester.path / name)
    assert (repeated.seed, repeated.peers, repeated.rounds, repeated.task.model) == (41, 5, 1, "softmax")


def test_a_failure_outside_of_federations_says_nothing_of_them(pytester: pytest.Pytester, plugin: list[str]) -> None:
    pytester.makepyfile("def test_it():\n    assert False")
    ran = pytester.runpytest_inprocess(*plugin)
    ran.assert_outcomes(failed=1)
    ran.stdout.no_fnmatch_line("*repeat with*")


def test_what_real_processes_do_not_have_is_skipped_with_a_reason(pytester: pytest.Pytester, plugin: list[str]) -> None:
    pytester.makepyfile(f"""
        def test_partition(federation):
            f = federation({SMALL})
            f.at(1).partition([0, 1], heal=2)
            f.run(until=4)

        def test_loss(federation):
            federation({SMALL}, network={{"loss": 0.1}}).run(rounds=2)
    """)
    ran = pytester.runpytest_inprocess(*plugin, "--p2pfl-real", "-rs")
    ran.assert_outcomes(skipped=2)
    ran.stdout.fnmatch_lines(["*partition does not exist on real processes*"])
    ran.stdout.fnmatch_lines(["*there is no [[]network[]] on real processes*"])


@pytest.mark.net
@pytest.mark.slow
def test_the_same_test_runs_on_real_processes(pytester: pytest.Pytester, plugin: list[str]) -> None:
    pytester.makepyfile(f"""
        def test_it(federation):
            f = federation({SMALL})
            f.at(3).kill(2)
            r = f.run(until=6)
            assert r.record.engine == "node"
            assert r.accuracy[-1].mask.tolist() == [False, False, True, False, False]
            assert r.parameters.shape[0] == 5
    """)
    pytester.runpytest_subprocess(*plugin, "--p2pfl-real").assert_outcomes(passed=1)


def test_the_start_of_pytest_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, p2pfl.pytest_plugin; print(sorted({'torch', 'numpy', 'sim', 'node', 'networkx'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.at(1).kill(9), "there is no peer 9"),
        (lambda f: f.at(99).kill(1), "after the end"),
        (lambda f: f.at(1).partition([0, 1], [1, 2]), "overlap"),
        (lambda f: f.at(-1).kill(1), "fault"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_before_anything_runs(spoil, says: str) -> None:
    ran: list[Scenario] = []
    f = Rehearsal(carry_out=lambda scenario: pytest.fail("it ran"), on_run=ran.append, peers=5, task="digits")
    spoil(f)
    with pytest.raises(Failure, match=says):
        f.run(until=4)
    assert not ran


def test_a_scenario_comes_back_from_its_file(tmp_path: Path) -> None:
    first = Scenario(
        peers=6,
        seed=3,
        task="digits",
        topology="torus:2x3",
        fault=[{"at": 1, "kind": "partition", "groups": ["0-2"], "heal": 2.5}, {"at": 2, "kind": "crash", "peers": [1]}],
    )
    text = as_toml(first)
    assert text is not None
    (tmp_path / "scenario.toml").write_text(text)
    assert Scenario.from_toml(tmp_path / "scenario.toml").model_dump() == first.model_dump()
