"""Pending `Learn` effects, run lazily and together: exact event semantics at batched speed.

What a `Learn` gives is fixed once it was asked for: the state and what arrived do not change any more, even if the answer is
due only later. So nothing is computed until the first answer is due, and then everything that is pending is computed at once;
each answer is delivered at its own time. Who does not train is due at once, as whoever comes back from its disk and only has to
encode: such a one is computed only with others like it, because the rest can still wait, and become more until they are due.

What is computed for as many peers as often before is replayed from a recording (`p2pfl.learning.gradients`), at half the cost.
So that there are few such numbers, where peers learn at times of their own, the last who asked wait for the next group.
"""

from p2pfl.learning.learner import Computed, Learner, LearnerState, LearningFailed
from p2pfl.learning.mixer import Folding
from p2pfl.learning.together import FEW, Assignment, Outcome, learn_one_by_one, learn_together, why_not
from p2pfl.protocol.events import Learn


class Together:
    """The learning of a federation's peers, at most one `Learn` of each at a time.

    fallback_reason: why they are computed one by one, if they are.
    """

    def __init__(self, learner: Learner, peers: int) -> None:
        """`learner` is any of so many peers'."""
        self._peers = peers
        self.fallback_reason = why_not(learner)
        self._compute = learn_together if self.fallback_reason is None else learn_one_by_one
        self._asked: dict[int, Assignment] = {}
        self._answers: dict[int, Outcome] = {}

    def ask(self, peer: int, learner: Learner, state: LearnerState, learn: Learn, folding: Folding | None = None) -> None:
        """From now on the answer can be had."""
        self._asked[peer] = Assignment(learner, state, learn, folding)

    def answer(self, peer: int) -> tuple[LearnerState, Computed]:
        """What came of it, once. Raises `LearningFailed`."""
        if peer in self._asked:
            trains = self._asked[peer].request.local_steps > 0
            group = [one for one, asked in self._asked.items() if trains or asked.request.local_steps == 0]
            if trains:
                group = self._of_few_sizes(peer, group)
            outcomes = self._compute([self._asked.pop(one) for one in group])
            self._answers.update(zip(group, outcomes, strict=True))
        outcome = self._answers.pop(peer)
        if isinstance(outcome, LearningFailed):
            raise outcome
        return outcome

    def _of_few_sizes(self, peer: int, group: list[int]) -> list[int]:
        """Everybody, if that is the whole federation; else a power of two of them, this peer and those who asked first."""
        size = 1 << len(group).bit_length() - 1
        if len(group) == self._peers or size <= FEW:
            return group
        group.remove(peer)
        return [peer, *group[: size - 1]]

    def forget(self, peer: int) -> None:
        """Nobody will want the answer."""
        self._asked.pop(peer, None)
        self._answers.pop(peer, None)
