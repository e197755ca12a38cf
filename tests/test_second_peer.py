"""A peer that was written from the documents meets a real node: each understands all that the other says."""

import functools
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file

from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.errors import Reason
from tests import second_protocol
from tests.second_peer import SecondPeer
from tests.test_founded import Ward, ended_after, founded, office, until


@dataclass
class Met:
    """A founded network's only node, and the second peer that has joined it over its door."""

    ann: Ward
    two: SecondPeer
    line: str

    @property
    def peer(self) -> bytes:
        (peer,) = (peer for peer in self.two.records if peer != self.two.keys.id)
        return peer

    def of_two(self) -> Any:
        """What the node's status says of the second peer."""
        return self.ann.neighbors()["two"]

    def refused(self, reason: str) -> int:
        return int(self.of_two()["refusals"].get(reason, 0))

    def is_refused(self, reason: str, before: int) -> bool:
        return self.refused(reason) > before

    def follow(self, count: int = 1) -> bytes:
        """Hear updates until some new ones are here; the payload of the newest, whose step is the second peer's now."""
        there = len(self.two.updates)
        self.two.pump(lambda: len(self.two.updates) >= there + count)
        self.two.step = self.two.updates[-1].header["step"]
        return self.two.updates[-1].payload


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Met]:
    ann = founded(tmp_path_factory.mktemp("second"))
    with ended_after(ann), closing(SecondPeer("two")) as two:
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line = str(office(ann).invite(3600.0, 2, Role.MEMBER)[0])
        two.join(line)
        found = Met(ann, two, line)
        two.dial(found.peer)
        found.follow()
        yield found


@pytest.mark.net
def test_the_second_peer_is_a_member_by_an_invite_and_its_update_is_applied(met: Met) -> None:
    assert met.ann.states() == {"ann": "alive", "two": "alive"}
    assert met.ann.ask("status")["membership"]["let_in"] == 1
    applied = met.of_two()["applied"]
    met.two.send(met.follow(), met.peer)
    met.two.pump(lambda: met.of_two()["applied"] > applied)
    assert not met.of_two()["refusals"]


@dataclass
class Offers:
    """Offers of the newest vector, each for another part: two contents for one part would be refused as that."""

    met: Met
    part: int = 100

    def frames(self, readers: Sequence[bytes] = (), **changed: Any) -> list[bytes]:
        self.part += 1
        changed = {"part": self.part} | changed
        vector = changed.pop("payload", self.met.two.updates[-1].payload)
        return self.met.two.offer(vector, readers or [self.met.peer], **changed)[0]

    def say(self, *frames: bytes) -> None:
        self.met.two.say(self.met.peer, *frames)


Provoke = Callable[[Offers], None]


@pytest.mark.net
def test_two_views_and_two_rosters_that_are_equal_are_so_to_both(met: Met) -> None:
    """What differs is answered in detail, and what is the same by nothing at all."""
    two = met.two
    heard = next(said for _, kind, said in two.heard if kind == second_protocol.INVENTORY)
    assert heard[0] == second_protocol.inventoried([*two.credentials])

    def summaries() -> list[list[Any]]:
        return [said for _, kind, said in two.heard if kind == second_protocol.SUMMARY]

    two.say(met.peer, second_protocol.digests({}))
    two.pump(summaries)
    mask, entries = summaries()[-1]
    assert int.from_bytes(mask, "big").bit_count() == len({peer[0] >> 2 for peer in two.records})
    told = [struct.unpack(">32sQQB", entries[at : at + 49]) for at in range(0, len(entries), 49)]
    assert [peer for peer, *_ in told] == sorted(two.records)

    before = len(summaries())
    two.say(met.peer, second_protocol.digests({peer: tuple(version) for peer, *version in told}))  # type: ignore[misc]
    ticket = two.ping(met.peer)
    two.pump(lambda: any(kind == second_protocol.ACK and said[0] == ticket for _, kind, said in two.heard))
    assert len(summaries()) == before


def header(**changed: Any) -> Provoke:
    """With other fields in its signed header."""
    return lambda offers: offers.say(*offers.frames(**changed))


def field(place: int, edit: Callable[[bytes], bytes]) -> Provoke:
    """With another field in its first frame, of which nobody signed that it is so."""

    def say(offers: Offers) -> None:
        first, *rest = offers.frames()
        fields = [second_protocol.VERSION, *second_protocol.fields_of(first)]
        fields[place] = edit(fields[place])
        offers.say(msgpack.packb(fields), *rest)

    return say


def frames(*said: bytes) -> Provoke:
    return lambda offers: offers.say(*said)


def other_hello(place: int, value: bytes) -> Provoke:
    def say(offers: Offers) -> None:
        fields = [second_protocol.VERSION, *second_protocol.fields_of(offers.met.two.hello(reply=False))]
        fields[place] = value
        offers.say(msgpack.packb(fields))

    return say


def begins_with(value: float) -> Provoke:
    """A whole, honest update of this round, but for its first value."""

    def say(offers: Offers) -> None:
        vector = np.frombuffer(offers.met.follow(), "<f4").copy()
        vector[0] = value
        offers.say(*offers.frames(payload=vector.tobytes()))

    return say


def twice(offers: Offers) -> None:
    said = offers.frames()
    offers.say(*said)
    offers.say(*said)


def far_back(offers: Offers) -> None:
    """A number that was never used, 64 below the highest."""
    offers.met.two.seq += 100
    offers.say(*offers.frames())
    offers.say(*offers.frames(seq=offers.met.two.seq - 64))
    offers.met.two.seq += 1


def two_contents(offers: Offers) -> None:
    offers.say(*offers.frames(part=7))
    offers.say(*offers.frames(part=7))  # under another key


def another_chunk(offers: Offers) -> None:
    first, chunk = offers.frames()
    offers.say(first, bytes(len(chunk)))


LAYER = ("weight", "bias")


BYE = second_protocol.frame(second_protocol.BYE, 0)
REFUSED: dict[str, Provoke] = {
    "bad_frames: a second frame behind a Bye": frames(BYE, b"more"),
    "bad_frames: a chunk over its limit": frames(BYE, bytes(2**20 + 17)),
    "bad_header: no array": frames(b"hello, world"),
    "bad_header: a first frame over its limit": frames(b"\x93\x01\x17\xc6" + (2**18).to_bytes(4, "big") + bytes(2**18)),
    "bad_header: a field too many": frames(second_protocol.frame(second_protocol.BYE, 0, 0)),
    "bad_header: a text": frames(second_protocol.frame(second_protocol.BYE, "0")),
    "version: another one": frames(b"\x93\x02\x05\x00"),
    "kind: an unknown one": frames(second_protocol.frame(99, 0)),
    "wrong_net: in a Hello": other_hello(2, bytes(16)),
    "wrong_net: in a header": header(network=bytes(16)),
    "wrong_charter: in a Hello": other_hello(3, bytes(32)),
    "wrong_charter: in a header": header(charter=bytes(32)),
    "bad_schema: in a header": header(schema=bytes(32)),
    "bad_schema: another length": header(payload=bytes(4)),
    "hop_mismatch: signed by somebody else": header(signer=bytes(32)),
    "future_step: beyond the last round": header(step=1_000_000),
    "replayed: the same offer again": twice,
    "replayed: of an earlier life": header(boot_epoch=1),
    "replayed: older than the window": far_back,
    "bad_signature: none": field(3, lambda _signature: bytes(64)),
    "bad_signature: the header was changed": field(2, lambda header: header[:-1] + bytes([header[-1] ^ 1])),
    "bad_signature: other chunks than were signed": field(5, lambda _digests: bytes(32)),
    "equivocation: two contents": two_contents,
    "not_for_us: for its own eyes": lambda offers: offers.say(*offers.frames([offers.met.two.keys.id])),
    "bad_readers: others than were signed": header(readers_digest=bytes(32)),
    "bad_wrap: no key": field(6, lambda readers: readers[:32] + bytes(72)),
    "bad_commitment: to another key": header(key_commitment=bytes(32)),
    "unexpected_chunk: never offered": frames(second_protocol.frame(second_protocol.CHUNK, bytes(32), 0), b"sealed"),
    "bad_chunk: another than was offered": another_chunk,
    "non_finite: infinite": begins_with(float("inf")),
    "too_large: over the charter's bound": begins_with(2000.0),
}


@pytest.mark.net
def test_whoever_speaks_another_version_is_told_ours_once(met: Met) -> None:
    two = met.two
    before = len(two.heard)
    for _ in range(3):
        two.say(met.peer, b"\x93\x02\x05\x00")
    ticket = two.ping(met.peer)
    two.pump(lambda: any(kind == second_protocol.ACK and said[0] == ticket for _, kind, said in two.heard))
    assert [said[-1] for _, kind, said in two.heard[before:] if kind == second_protocol.HELLO] == [False]


@pytest.mark.net
def test_every_documented_refusal_that_a_member_can_provoke_is_counted_under_its_name(met: Met) -> None:
    met.follow()
    offers = Offers(met)
    for case, provoke in REFUSED.items():
        reason = case.split(":")[0]
        before = met.refused(reason)
        provoke(offers)
        with suppress(TimeoutError):
            met.two.pump(functools.partial(met.is_refused, reason, before), 5.0)
        assert met.refused(reason) == before + 1, (case, met.of_two()["refusals"])
    assert {case.split(":")[0] for case in REFUSED} <= set(Reason)
    applied = met.of_two()["applied"]  # and the next honest one is as good as ever
    met.two.send(met.follow(), met.peer)
    met.two.pump(lambda: met.of_two()["applied"] > applied)


@pytest.mark.net
def test_a_second_peer_that_listens_is_dialled_and_sent_to_over_an_announced_link(met: Met) -> None:
    with closing(SecondPeer("three")) as three:
        three.listen()
        three.join(met.line)
        three.dial(met.peer)
        assert three.listener is not None
        heard = three.listener.heard
        three.pump(lambda: {second_protocol.HELLO, second_protocol.OFFER} <= {kind for _, kind in heard} and three.updates)
        assert {hop for hop, _ in heard} == {met.peer}
        assert [*three.listener.announced[met.peer].values()] == [{b"c", b"b"}]


@pytest.mark.net
def test_what_the_second_peer_opened_last_is_the_vector_that_the_node_leaves_on_its_disk(met: Met) -> None:
    met.ann.ask("leave")
    met.two.pump(lambda: met.two.heard[-1][1] == second_protocol.BYE)
    assert met.ann.ended()[0] == 0
    newest = max(met.ann.folder.checkpoints.glob("*.safetensors"))
    vector = met.two.updates[-1].payload
    assert load_file(newest)["vector"].tobytes() == vector
    model = load_file(met.ann.folder.model)
    assert b"".join(model[name].tobytes() for name in LAYER) == vector
    slots = [[name, model[name].shape] for name in LAYER]
    layout = {"algorithm": "dsgd", "codec": "dense", "dtype": "float32", "labels": [*map(str, range(10))], "slots": slots}
    assert second_protocol.blake(json.dumps(layout, sort_keys=True).encode()) == met.two.network.schema
