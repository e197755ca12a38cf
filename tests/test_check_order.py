"""The checks come cheapest first, in the order in which `Reason` lists them; of two faults the earlier one is named.

Every fault below can be put into one and the same offer, alone or with any other. A refused frame is one counted rejection: it
changes nothing else, and it burns a sequence number only if the signer really signed it.
"""

from collections.abc import Sized
from dataclasses import replace

import pytest

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.allowance import Allowance
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import ADMISSION, TUNNEL, Reason
from p2pfl.protocol.events import Effect, FrameReceived, PeerId, Rejected
from p2pfl.protocol.identity import Keyring
from sim.entropy import SeededEntropy
from tests.ring import SCHEMA, Ring

RECEIVER, SIGNER, FAR, OTHER = 0, 1, 2, 3  # on a ring of four, OTHER is a neighbor of RECEIVER too and FAR is not
FAULTS = [reason for reason in list(Reason)[: list(Reason).index(Reason.BAD_CHUNK) + 1] if reason not in ADMISSION | TUNNEL]
FAULTS.remove(Reason.UNEXPECTED_CHUNK)  # about chunks that come on their own
PROVED = FAULTS[FAULTS.index(Reason.BAD_SIGNATURE) + 1 :]


class Stage:
    """A ring in which RECEIVER waits for its first updates, and whoever can sign for its neighbors."""

    def __init__(self) -> None:
        self.ring = Ring(4, GossipRules(rounds=3))
        self.ring.start()
        self.ring.settle(learn=False)
        self.entropy = SeededEntropy(7, b"order")

    def tell(self, hop: PeerId, frames: tuple[Sized, ...]) -> list[Effect]:
        return self.ring.tell(RECEIVER, FrameReceived(hop, frames))

    def tell_faulty(self, *faults: Reason) -> list[Effect]:
        """RECEIVER gets an offer with just these faults; for two of them, one that it accepted came before."""
        if Reason.REPLAYED in faults or Reason.EQUIVOCATION in faults:
            content = b"other..." if Reason.EQUIVOCATION in faults else b"content."
            self.tell(self.ring.ids[SIGNER], self.offer(seq=5 if Reason.REPLAYED in faults else 4, content=content))
        hop = self.ring.ids[OTHER if Reason.HOP_MISMATCH in faults else self.signer(faults)]
        return self.tell(b"\1" * 32 if Reason.NOT_MEMBER in faults else hop, self.offer(*faults))

    def signer(self, faults: tuple[Reason, ...]) -> int:
        return FAR if Reason.NOT_NEIGHBOR in faults else SIGNER

    def offer(self, *faults: Reason, seq: int = 5, content: bytes = b"content.") -> tuple[Sized, ...]:
        charter, ids = self.ring.charter, self.ring.ids
        signer = self.signer(faults)
        signs = Keyring(self.ring[signer].identity, self.ring.members)
        key = bytes(32)
        sealed = envelope.seal_chunk(key, 0, True, content)
        readers = [ids[OTHER] if Reason.NOT_FOR_US in faults else ids[RECEIVER]]
        digests = (envelope.digest(sealed),)
        header = wire.Header(
            network=bytes(16) if Reason.WRONG_NETWORK in faults else charter.network_id,
            charter=bytes(32) if Reason.WRONG_CHARTER in faults else charter.digest,
            schema=bytes(32) if Reason.BAD_SCHEMA in faults else SCHEMA,
            signer=ids[signer],
            boot_id=b"b" * 16,
            boot_epoch=1,
            seq=seq,
            step=1_000_000_000 if Reason.FUTURE_STEP in faults else 0,
            phase=0,
            part=0,
            age=5,
            samples=10,
            chunks_digest=envelope.chunks_digest(len(content), digests),
            readers_digest=bytes(32) if Reason.BAD_READERS in faults else envelope.readers_digest(readers),
            key_commitment=bytes(32) if Reason.BAD_COMMITMENT in faults else envelope.commitment(key),
        )
        nonces = [self.entropy.draw(24)]
        offer = envelope.offer(header, signs, readers, key, nonces, len(content), digests)
        if Reason.BAD_SIGNATURE in faults:
            offer = replace(offer, signature=bytes(64))
        if Reason.BAD_WRAP in faults:
            offer = replace(offer, readers=((readers[0], bytes(72)),))
        head = bytearray(wire.encode(offer))
        if Reason.BAD_HEADER in faults:
            head[0] = 0x80
        if Reason.VERSION in faults:
            head[1] = 2
        if Reason.KIND in faults:
            head[2] = 99
        body = sealed + b"x" if Reason.BAD_CHUNK in faults else sealed
        extra: tuple[Sized, ...] = (b"third",) if Reason.BAD_FRAMES in faults else ()
        if Reason.RATE_LIMITED in faults:
            extra = (range(2 << 30),)  # as long as that many bytes
        return bytes(head), body, *extra


def rejections(effects: list[Effect]) -> list[Reason]:
    return [effect.reason for effect in effects if isinstance(effect, Rejected)]


def test_the_offer_without_a_fault_is_accepted() -> None:
    assert rejections(Stage().tell_faulty()) == []


@pytest.mark.fault("wrong reader", "wrong link", "another network", "equivocation")
@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_one_rejection_blamed_on_the_signer_only_if_it_signed(fault: Reason) -> None:
    stage = Stage()
    effects = stage.tell_faulty(fault)
    (rejected,) = (effect for effect in effects if isinstance(effect, Rejected))
    assert rejected.reason is fault
    hop = stage.ring[RECEIVER].of(FrameReceived)[-1].hop
    assert rejected.blame == (stage.ring.ids[SIGNER] if fault in PROVED else hop)
    assert stage.ring[RECEIVER].peer.ledger.reasons == {(rejected.blame, fault): 1}


@pytest.mark.fault("wrong reader", "wrong link")
@pytest.mark.parametrize("first", FAULTS)
def test_of_two_faults_the_earlier_is_named(first: Reason) -> None:
    for second in FAULTS[FAULTS.index(first) + 1 :]:
        assert rejections(Stage().tell_faulty(first, second))[-1:] == [first], f"{first} and {second}"


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in PROVED and f is not Reason.REPLAYED])
def test_what_the_signer_did_not_sign_burns_none_of_its_numbers(fault: Reason) -> None:
    stage = Stage()
    stage.tell_faulty(fault)
    stage.ring.pass_time(Allowance().ban_min_s if fault is Reason.RATE_LIMITED else 0.0, learn=False)
    assert rejections(stage.tell(stage.ring.ids[SIGNER], stage.offer())) == []


@pytest.mark.parametrize("fault", PROVED)
def test_what_the_signer_signed_counts_as_seen_whatever_else_is_wrong_with_it(fault: Reason) -> None:
    stage = Stage()
    stage.tell_faulty(fault)
    assert rejections(stage.tell(stage.ring.ids[SIGNER], stage.offer())) == [Reason.REPLAYED]
