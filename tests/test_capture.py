"""What an eavesdropper has of a run: every packet on the loopback of a network of its own, and afterwards every long-term key.

The same search and the same theft are tried on a run whose links were opened inside the test, and succeed there.
"""

from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from nacl import bindings
from nacl.exceptions import CryptoError
from zmq.utils import z85

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.identity import Identity, Keyring
from tests import namespaces
from tests.capture import Capture, Stream
from tests.cluster import Cluster, benched

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(not namespaces.can_make(), reason="a network of its own takes root and network namespaces"),
]
ROUNDS = 6


class Run:
    """Three nodes to their end, in a network of their own, and everything on its loopback."""

    def __init__(self, directory: Path, open_links: bool) -> None:
        self.cluster = Cluster(3, directory, topology="complete", rounds=ROUNDS, updates=True, open_links=open_links)
        with namespaces.own_network(), Capture() as capture:
            self._play()
        self.streams = capture.streams()
        self.bytes = b"".join(stream.data for stream in self.streams)
        self.identities = [node.identity for node in self.cluster.nodes]
        self.members = {member.id: member for member in self.cluster.network.members}

    @benched()
    async def _play(self) -> None:
        async with self.cluster as cluster:
            await cluster.until(lambda: all(node.is_finished for node in cluster.nodes))

    def updates(self) -> bytes:
        """All that the nodes sent to one another, before it was sealed."""
        return b"".join(path.read_bytes() for path in sorted(self.cluster.directory.glob("*.updates")))

    def public_keys(self) -> list[bytes]:
        """Everybody's long-term public keys, raw and as CURVE writes them."""
        raw = [key for i in self.identities for key in (i.peer_id, i.transport_key, i.seal_key)]
        return [*raw, *map(z85.encode, raw)]

    def names(self) -> list[bytes]:
        return [name.encode() for name in (self.cluster.network.name, *(member.name for member in self.members.values()))]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("sealed"), open_links=False)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("opened"), open_links=True)


def pairs_of_floats(data: bytes) -> np.ndarray:
    """Every two neighboring float32 of a model, as one number; without those that chance or zeros would make."""
    floats = np.frombuffer(data, "<f4")
    pairs = np.stack([floats[:-1], floats[1:]], axis=1)
    pairs = pairs[(np.abs(pairs) > 1e-6).all(axis=1)]
    return np.unique(np.ascontiguousarray(pairs).view("<u8"))


def windows_found(secret: bytes, said: bytes) -> int:
    """How often two neighboring floats of `secret` are in `said`, at any offset."""
    wanted = pairs_of_floats(secret)
    cut = (said[offset : len(said) - (len(said) - offset) % 8] for offset in range(8))
    return sum(int(np.isin(np.frombuffer(data, "<u8"), wanted).sum()) for data in cut)


def test_the_search_finds_a_model_wherever_it_lies(sealed: Run) -> None:
    model = sealed.updates()[:2600]
    for offset in range(8):
        assert windows_found(model, b"x" * offset + model + b"yyy") > 500


def test_what_is_said_on_the_wire_has_no_model_no_name_and_no_key(sealed: Run) -> None:
    updates = sealed.updates()
    assert len(updates) == 3 * (ROUNDS + 1) * 2600
    assert len(sealed.bytes) > 2 * len(updates)  # everything was captured, twice: before and behind the proxies
    assert windows_found(updates, sealed.bytes) == 0
    assert [name for name in sealed.names() if name in sealed.bytes] == []
    assert [key for key in sealed.public_keys() if key in sealed.bytes] == []
    assert b"CURVE" in sealed.bytes


# ---- theft ---------------------------------------------------------------------------------------------------------------


def secrets_of(identities: list[Identity]) -> list[bytes]:
    """All X25519 secrets that a thief of everything long-term has, Ed25519 ones converted among them."""
    stolen = [secret for i in identities for secret in (i.transport_secret, i.seal_secret)]
    signing = [bindings.crypto_sign_seed_keypair(i.sign_seed)[1] for i in identities]
    return [*stolen, *(bindings.crypto_sign_ed25519_sk_to_curve25519(secret) for secret in signing)]


def opened_box(box: bytes, nonce: bytes, publics: list[bytes], secrets: list[bytes]) -> bytes | None:
    """With any pair of these keys."""
    for public, secret in product(publics, secrets):
        try:
            return bindings.crypto_box_open_afternm(box, nonce, bindings.crypto_box_beforenm(public, secret))
        except CryptoError:
            continue
    return None


def handshakes(run: Run) -> Iterator[tuple[Stream, Stream, bytes, bytes]]:
    """Of each connection: both directions, the client's short-term public key, and its WELCOME (RFC 26)."""
    by_ends = {(stream.source, stream.target): stream for stream in run.streams}
    for stream in run.streams:
        back = by_ends.get((stream.target, stream.source))
        hello = next((body for _, body in stream.frames() if body.startswith(b"\x05HELLO")), None)
        if hello is not None and back is not None:
            welcome = next((body for _, body in back.frames() if body.startswith(b"\x07WELCOME")), None)
            if welcome is not None:
                yield stream, back, hello[80:112], welcome


def messages(stream: Stream, side: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(box, nonce) of what was sent over CURVE."""
    for _, body in stream.frames():
        if body.startswith(b"\x07MESSAGE"):
            yield body[16:], b"CurveZMQMESSAGE" + side + body[8:16]


def test_whoever_steals_every_long_term_key_afterwards_reads_who_met_and_not_a_word_more(sealed: Run) -> None:
    """Each WELCOME opens with the listener's key, and shows its short-term public key; no message opens with anything."""
    secrets = secrets_of(sealed.identities)
    publics = [i.transport_key for i in sealed.identities]
    met = tried = 0
    for there, back, client, welcome in handshakes(sealed):
        inside = opened_box(welcome[24:], b"WELCOME-" + welcome[8:24], [client], secrets)
        assert inside is not None and len(inside) == 32 + 96
        met += 1
        for box, nonce in [*list(messages(there, b"C"))[:4], *list(messages(back, b"S"))[:4]]:
            assert opened_box(box, nonce, [client, inside[:32], *publics], secrets) is None
            tried += 1
    assert met >= 2 * 6 and tried >= 4 * 6  # six links of two sockets, and both sides of each proxy


def test_a_message_opens_with_the_short_term_secret_that_nobody_keeps() -> None:
    """What the theft above lacks, and that it would have known what to do with it."""
    (client, client_secret), (server, server_secret) = bindings.crypto_box_keypair(), bindings.crypto_box_keypair()
    nonce = b"CurveZMQMESSAGEC" + bytes(8)
    box = bindings.crypto_box_afternm(b"\0hello", nonce, bindings.crypto_box_beforenm(server, client_secret))
    assert opened_box(box, nonce, [client, server], [server_secret]) == b"\0hello"


# ---- the same without encryption of links --------------------------------------------------------------------------------


def test_without_link_encryption_the_search_finds_who_speaks(opened: Run) -> None:
    assert all(identity.peer_id in opened.bytes for identity in opened.identities)
    assert windows_found(opened.updates(), opened.bytes) == 0  # the updates themselves are sealed once more


def test_without_link_encryption_stolen_keys_open_every_update(opened: Run) -> None:
    rings = {identity.peer_id: Keyring(identity, opened.members) for identity in opened.identities}
    found: dict[bytes, bytes] = {}
    for stream in opened.streams:
        bodies = [body for _, body in stream.frames()]
        for head, body in pairwise(bodies):
            try:
                offer = wire.decode(head)
            except RejectedFrame:
                continue
            if isinstance(offer, wire.Offer):
                header = wire.decode_header(offer.header)
                for reader, ring in rings.items():
                    try:
                        key = envelope.open_offer(offer, header, reader, ring)
                    except RejectedFrame:
                        continue
                    found[header.chunks_digest] = bytes(envelope.open_chunk(key, 0, True, body) or b"")
    stolen = b"".join(found.values())
    assert len(found) == 3 * ROUNDS  # the last step's is never offered
    assert windows_found(opened.updates(), stolen) >= len(pairs_of_floats(stolen)) > 1000
