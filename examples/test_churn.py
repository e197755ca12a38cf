"""A fault test. The fixture comes with the package; time is virtual, so a minute of it takes seconds.

pytest examples/test_churn.py
pytest examples/test_churn.py --p2pfl-seeds 5
"""


def test_three_of_twenty_die_and_the_others_learn_on(federation):
    f = federation(peers=20, topology="random_regular:4", task="digits", seed=7)
    f.at(10).kill([3, 4, 5])
    f.at(20).restart(4)
    r = f.run(until=40)
    assert r.accuracy[-1].min() > 0.85
    assert r.consensus_distance[-1] < 0.5
