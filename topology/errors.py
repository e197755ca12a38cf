"""How a graph that cannot be is refused."""


class TopologyError(ValueError):
    """A graph that cannot be, or that cannot carry gossip: one line that says what is wrong and how to mend it.

    `code` is a stable word for programs, `message` says what is wrong, `hint` how to mend it.
    """

    code = "bad_topology"

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message} {hint}")
        self.message = message
        self.hint = hint
