"""What version 1 wrote is read by every later program, and what this one writes is the same; recorded once, never anew."""

from pathlib import Path

from p2pfl.protocol.admission.attestation import Attestations, attest
from p2pfl.protocol.admission.authority import ask, read_request, request_line
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.issuer import IssuerLine, application_line, apply, delegated, read_application
from p2pfl.protocol.admission.record import RECORD
from p2pfl.protocol.admission.revocation import REVOCATION, Cause
from p2pfl.protocol.admission.signed_charter import CHARTER
from p2pfl.protocol.admission.statement import public_key, signer
from p2pfl.protocol.charter import GossipRules
from tests.admission import NOW, Network, Person

LINES = (Path(__file__).parent / "admission_v1.txt").read_text(encoding="ascii").splitlines()
RECORDED = dict(line.split(" ") for line in LINES)
NET, ANN, BOB = Network(), Person("ann"), Person("bob")
OFFICE = b"o" * 32  # the seed of an issuer's key
REVOKED = NET.root.revoke(ANN.id, Cause.STOLEN, NOW)
APPLIED = apply(signer(OFFICE), NET.id, public_key(OFFICE), "office", NOW)


def test_recorded_statements_are_read_and_are_their_signers() -> None:
    credential = CredentialLine.parse(RECORDED["credential"]).statement()
    assert credential.identity == BOB.id and credential.receipt is not None and credential.receipt.admitter == ANN.id
    assert InviteLine.parse(RECORDED["invite"]).network == NET.id
    assert read_request(RECORDED["request"]).identity == ANN.id
    record = RECORD.read(bytes.fromhex(RECORDED["record"]))
    assert record.is_genuine() and record.neighbors == (BOB.id,) and record.member("ann") == ANN.member
    revocation = REVOCATION.read(bytes.fromhex(RECORDED["revocation"]))
    assert revocation.is_genuine() and (revocation.subject, revocation.cause) == (ANN.id, Cause.STOLEN)
    charter = CHARTER.read(bytes.fromhex(RECORDED["charter"]))
    charter.verify(NET.root.key, NET.id)
    assert charter.sections["limits"] == {"max_abs": 1000.0}
    assert charter.charter(NET.root.key).gossip == GossipRules()
    applied = read_application(RECORDED["application"], NET.id)
    assert (applied.key, applied.name) == (public_key(OFFICE), "office")
    issuer = IssuerLine.parse(RECORDED["issuer"])
    assert issuer.root == NET.root.key and issuer.statement().identity == applied.key
    held = Attestations(NET.id, NET.root.key)
    assert held.learn(bytes.fromhex(RECORDED["attestation"]), NOW)
    held.look([REVOKED])
    assert held.is_whole and held.newest is not None and held.newest.count == 1
    elsewhere = RECORD.read(bytes.fromhex(RECORDED["record_with_door"]))
    assert elsewhere.is_genuine() and elsewhere.doors == ("ann:443",)


def test_what_is_written_now_is_byte_for_byte_what_was_recorded() -> None:
    admitted = NET.admitted(NET.invite(by=NET.issuer), BOB, by=ANN)
    assert str(CredentialLine.make(NET.name, NET.root.key, admitted, {"10.0.0.1:7781": b"k" * 32})) == RECORDED["credential"]
    assert str(NET.invite()) == RECORDED["invite"]
    assert request_line(ask(signer(ANN.identity.sign_seed), ANN.id, "ann", NOW)) == RECORDED["request"]
    assert ANN.record(NET.id, neighbors=[BOB.id]).data.hex() == RECORDED["record"]
    assert NET.root.revoke(ANN.id, Cause.STOLEN, NOW).data.hex() == RECORDED["revocation"]
    assert ANN.record(NET.id, neighbors=[BOB.id], door=443).data.hex() == RECORDED["record_with_door"]
    assert application_line(APPLIED) == RECORDED["application"]
    assert str(delegated(NET.root, NET.name, APPLIED, NOW, 300, 1)) == RECORDED["issuer"]
    assert attest(NET.root.sign, NET.id, [REVOKED], NOW).data.hex() == RECORDED["attestation"]
