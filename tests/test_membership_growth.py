"""What membership costs as a network grows: the estimate on paper of docs/membership.md, from the rules and the sizes."""

from math import log
from pathlib import Path

from p2pfl.protocol.admission.admissions import MEMBERS_MAX
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import (
    BUCKETS,
    RECORDS_MAX,
    TICKET_BYTES,
    Ack,
    Digests,
    Entry,
    Introduction,
    Ping,
    Summary,
    encode_item,
)
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.membership.standing import Accusation, Version
from tests.village import id_of, record_of

DEGREE = 8
CREDENTIAL_BYTES = 250
EVENTS_PER_S = 2 / 20.0  # one death and one join in 20 s
TEXT = " ".join((Path(__file__).parent.parent / "docs" / "membership.md").read_text(encoding="utf-8").split())

RECORD = record_of(id_of(1), neighbors=[id_of(k) for k in range(2, 2 + DEGREE)])
RECORD_ITEM = len(encode_item(Introduction(RECORD.data)))
ACCUSATION_ITEM = len(encode_item(Accusation(id_of(1), id_of(2), Version(1, 1), bytes(64))))
PROBE_BYTES = [len(gossip_wire.encode(message)) for message in (Ping(bytes(TICKET_BYTES)), Ack(bytes(TICKET_BYTES)))]


def detection_s(members: int) -> float:
    """Half an interval until a probe begins, one until it ends, the shortest suspicion, half an interval per hop."""
    shortest, _ = LAN.suspicion_s(members)
    return (1.5 + 0.5 * hops(members)) * LAN.probe_interval_s + shortest


def hops(members: int) -> float:
    return log(members) / log(DEGREE - 1)


def rumor_bytes() -> int:
    """Of a death: everybody who watched it accuses it and states new neighbors, and so does whoever takes its place."""
    return DEGREE * ACCUSATION_ITEM + (DEGREE + 1) * RECORD_ITEM


def test_a_death_among_a_hundred_thousand_is_known_as_late_as_the_page_says() -> None:
    assert LAN.suspicion_s(100_000)[0] == 20.0
    assert f"log 100,000 / log 7 = {hops(100_000):.1f} hops" in TEXT
    assert f"1.5 + 20 + {0.5 * hops(100_000):.0f} = {detection_s(100_000):.1f} s" in TEXT


def test_detection_grows_no_faster_than_the_logarithm_of_the_members() -> None:
    for fewer, more in ((100, 300), (300, 1_000), (1_000, 100_000)):
        assert detection_s(more) / detection_s(fewer) <= log(more) / log(fewer)


def test_what_the_page_says_of_bytes_is_what_messages_take() -> None:
    ping, ack = PROBE_BYTES
    assert f"8 neighbors · (ping {ping} + ack {ack} bytes) = {DEGREE * (ping + ack)} bytes/s" in TEXT
    assert f"8 accusations of {ACCUSATION_ITEM} bytes" in TEXT
    assert f"9 records of {RECORD_ITEM}, together {rumor_bytes() / 1000:.1f} kB" in TEXT
    least, most = (EVENTS_PER_S * rumor_bytes() * links / 1000 for links in (DEGREE // 2, DEGREE))
    assert f"{EVENTS_PER_S} events/s · {rumor_bytes() / 1000:.1f} kB · 4 to 8 = {least:.1f} to {most:.1f} kB/s" in TEXT


def test_what_the_page_says_of_comparing_and_joining_is_what_they_take() -> None:
    same = gossip_wire.encode(Digests((bytes(8),) * BUCKETS, bytes(32)))
    assert f"Comparing: {len(same)} bytes per 30 s" in TEXT
    entries = tuple(sorted(Entry(id_of(k), Version(1, 1), False) for k in range(RECORDS_MAX)))
    cut = len(gossip_wire.encode(Summary(1, entries)))
    assert (
        f"cut at {RECORDS_MAX} of about {round(100_000 / BUCKETS + 0.1):,} members of one bucket, {cut / 1000:.0f} kB" in TEXT
    )
    whole = 100_000 * len(encode_item(Introduction(RECORD.data, bytes(CREDENTIAL_BYTES))))
    seconds = whole / (DEGREE * LAN.served_bytes) * LAN.push_pull_s
    assert f"({whole / 1e6:.0f} MB, at 1 MiB per neighbor and 30 s over 8 neighbors {seconds:.0f} s)" in TEXT
    assert f"record {len(RECORD.data)} bytes, credential {CREDENTIAL_BYTES}" in TEXT
    assert f"a network lets in {MEMBERS_MAX:,} members" in TEXT
