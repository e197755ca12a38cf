"""The verbs of who founds a network and says who is in it: `p2pfl network ...`. Imports what they need when they run."""

import sys
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from node.commands.options import Addresses, Data, Directory, Door, Json, Listen, NoPassphrase, PassphraseFd
from p2pfl.answer import answer
from p2pfl.report.plain import plain

network_app = typer.Typer(
    help="A network of real peers: found it, invite to it, see and say who is in it.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Key = Annotated[Path | None, typer.Option(metavar="FILE", help="The root key, where it is not in the node's folder.")]
Days = Annotated[
    float | None, typer.Option(help="How long the certificate lasts: 90 at most and where not given, of an issuer 400.")
]


class InvitedRole(StrEnum):
    MEMBER = "member"
    RELAY = "relay"


class SignedRole(StrEnum):
    MEMBER = "member"
    ISSUER = "issuer"


class Because(StrEnum):
    LEFT = "left"
    STOLEN = "stolen"
    EXPELLED = "expelled"


@network_app.command("create")
def network_create(
    name: Annotated[str, typer.Argument(help="What the network is called.")],
    task: Annotated[str | None, typer.Option(help="What is learned: digits, ..., or your own FILE.py:NAME.")] = None,
    settings: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="How: training, topology, gossip, ...")] = None,
    node: Annotated[str | None, typer.Option(help="What this node is called; the machine's name where not given.")] = None,
    listen: Listen = "0.0.0.0:7780",
    address: Addresses = None,
    door: Door = None,
    data: Data = None,
    directory: Directory = None,
    no_passphrase: NoPassphrase = False,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Make a network: its root key, its charter, and its first node, which is this one.

    For example: p2pfl network create wards --task digits --settings wards.toml
    """
    from node import place
    from node.admission.founding import found, refuse_inhabited
    from node.admission.terms import from_file, is_file
    from node.commands.options import new_passphrase, own_name, settings_from
    from node.node_settings import settings_of

    terms = from_file(settings, task)
    own_task = task if task and is_file(task) else None
    own = settings_of("p2pfl network create", **settings_from(listen, address, own_task, data, door))
    here = place.named(directory, name)
    refuse_inhabited(here)
    made = found(name, node or own_name(), here, terms, own, new_passphrase(no_passphrase, passphrase_fd))
    if json_:
        typer.echo(answer(made.as_data()))
        return
    typer.echo(f"network  {plain(name)}, {made.network.hex()}")
    typer.echo(f"node     {plain(made.member)}, in {here.path}")
    typer.echo(f"next     p2pfl node start --dir {here.path}")
    typer.echo(f"Whoever has {here.root_key} can let anybody in and put anybody out: keep a copy in a safe place.", err=True)


@network_app.command("invite")
def network_invite(
    ttl: Annotated[str, typer.Option(help="How long it is good: 30m, 1h, 7d; at most 30d.")] = "1h",
    uses: Annotated[int, typer.Option(help="How many may join by it.")] = 1,
    role: Annotated[
        InvitedRole, typer.Option(help="A relay learns nothing: it carries what members that can't reach each other say.")
    ] = InvitedRole.MEMBER,
    directory: Directory = None,
    key: Key = None,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Print one line that makes whoever has it a member. Treat it like a password until it ends.

    For example: p2pfl network invite --ttl 1h --uses 3
    """
    from node import place
    from node.admission.office import Office, is_running
    from node.commands.options import known_passphrase, seconds
    from p2pfl.protocol.admission.certificate import Role

    here = place.found(directory)
    office = Office.open(here, key, known_passphrase(passphrase_fd))
    line, invite = office.invite(seconds(ttl), uses, Role[role.name])
    until = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(invite.not_after))
    if json_:
        data = {"invite": str(line), "expires": invite.not_after, "uses": uses, "addresses": line.addresses, "role": role}
        typer.echo(answer(data))
    else:
        typer.echo(str(line))
    sys.stdout.flush()
    noun = "relay" if role is InvitedRole.RELAY else "node"
    joiners = f"one {noun}" if uses == 1 else f"{uses} {noun}s"
    typer.echo(f"Good for {joiners} until {until}, at {', '.join(line.addresses)}: p2pfl node join LINE", err=True)
    if not is_running(here):
        typer.echo(f"Nobody answers there yet: p2pfl node start --dir {here.path}", err=True)


@network_app.command("sign")
def network_sign(
    request: Annotated[str, typer.Argument(help="The file of a request, - for stdin; or the name of a member to renew.")],
    days: Days = None,
    role: Annotated[
        SignedRole, typer.Option(help="An issuer may invite, sign and revoke as the root, for those it vouched for itself.")
    ] = SignedRole.MEMBER,
    directory: Directory = None,
    key: Key = None,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Certify a node from the request it made, without any network; or give a member a new certificate.

    For example: p2pfl network sign ward-c.request >ward-c.credential
    """
    from node import place
    from node.admission.office import Office
    from node.commands.options import known_passphrase
    from node.commands.reading import line_in, looks_like_file
    from p2pfl.protocol.admission.authority import read_request
    from p2pfl.protocol.admission.certificate import ISSUER_DAYS_MAX, MEMBER_DAYS_MAX
    from p2pfl.protocol.admission.issuer import read_application

    here = place.found(directory)
    if role is SignedRole.ISSUER:
        root = Office.of_root(here, key, known_passphrase(passphrase_fd))
        applied = read_application(line_in(request), root.papers.roster.network)
        made = root.delegate(applied, ISSUER_DAYS_MAX if days is None else days)
        ends = made.statement().not_after
        data = {"name": applied.name, "key": applied.key.hex(), "expires": ends, "issuer": str(made)}
        typer.echo(answer(data) if json_ else str(made))
        shown = f"{plain(applied.name)}, key {applied.key.hex()}, until {time.strftime('%Y-%m-%d', time.gmtime(ends))}"
        typer.echo(f"For the issuer {shown}: p2pfl network issuer LINE, in its folder", err=True)
        return
    days = MEMBER_DAYS_MAX if days is None else days
    office = Office.open(here, key, known_passphrase(passphrase_fd))
    if not looks_like_file(request):
        renewed = office.renew(request, days)
        until = time.strftime("%Y-%m-%d", time.gmtime(renewed.not_after))
        told = {"name": renewed.name, "id": renewed.identity.hex(), "expires": renewed.not_after}
        typer.echo(answer(told) if json_ else f"{plain(renewed.name)} is certified until {until}; it gets that by gossip")
        return
    asked = read_request(line_in(request))
    line = office.certify(asked, days)
    told = {"name": asked.name, "id": asked.identity.hex(), "credential": str(line)}
    typer.echo(answer(told) if json_ else str(line))
    whom = f"the relay {plain(asked.name)}" if asked.is_relay else plain(asked.name)
    typer.echo(f"For {whom}, {asked.identity.hex()[:16]}: p2pfl node join LINE, in its folder", err=True)


@network_app.command("revoke")
def network_revoke(
    who: Annotated[str, typer.Argument(help="A member's name, the beginning of its id, or the line of an invite.")],
    reason: Annotated[Because, typer.Option(help="For people.")] = Because.EXPELLED,
    issuer: Annotated[
        bool, typer.Option("--issuer", help="WHO is an issuer's name or key: with it all go whom it vouched for.")
    ] = False,
    directory: Directory = None,
    key: Key = None,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Put a member out, or make an invite worthless: at once here, and wherever gossip gets. It can't be taken back.

    For example: p2pfl network revoke ward-b --reason stolen
    """
    from node import place
    from node.admission.office import Office, is_running, revoke
    from node.commands.options import known_passphrase
    from p2pfl.protocol.admission.revocation import Cause

    here = place.found(directory)
    office = Office.open(here, key, known_passphrase(passphrase_fd))
    done = revoke(office, who, Cause[reason.name], issuer)
    subject = "the invite" if who.strip().startswith("p2pfl-") else f"{'the issuer ' if issuer else ''}{plain(who)}"
    data = {"revoked": done.subject.hex(), "reason": reason}
    typer.echo(answer(data) if json_ else f"{subject} is revoked")
    if not is_running(here):
        typer.echo(f"The others hear of it when this node runs: p2pfl node start --dir {here.path}", err=True)


@network_app.command("amend")
def network_amend(
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="What is to change, in the form of network create's settings.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting: gossip.floor_s=2.0; as often as needed."),
    ] = None,
    directory: Directory = None,
    key: Key = None,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Sign a new charter for a network that runs: other times, limits or graph, never another model. It spreads from this node.

    For example: p2pfl network amend --set gossip.ceiling_s=30.0 --set topology.degree=6
    """
    from node import place
    from node.admission.office import Office, is_running
    from node.commands.options import known_passphrase

    here = place.found(directory)
    charter, changes = Office.of_root(here, key, known_passphrase(passphrase_fd)).amend(settings, set_ or ())
    data = {"serial": charter.serial, **changes.as_data()}
    typer.echo(answer(data) if json_ else f"charter {charter.serial}; {changes}")
    if not is_running(here):
        typer.echo(f"The others get it when this node runs: p2pfl node start --dir {here.path}", err=True)


@network_app.command("attest")
def network_attest(
    directory: Directory = None, key: Key = None, passphrase_fd: PassphraseFd = None, json_: Json = False
) -> None:
    """Sign which revocations there are as of now, say once a week: a node that lacks one, or hears no such word for two weeks,
    says so.

    For example: p2pfl network attest
    """
    from node import place
    from node.admission.office import Office
    from node.commands.options import known_passphrase

    done = Office.of_root(place.found(directory), key, known_passphrase(passphrase_fd)).attest()
    data = {"as_of": done.wall, "days": done.days, "revocations": done.count}
    noun = "revocation" if done.count == 1 else "revocations"
    typer.echo(answer(data) if json_ else f"{done.count} {noun} of the last {done.days} days, and no other")


@network_app.command("issuer")
def network_issuer(
    line: Annotated[str | None, typer.Argument(help="What the root answered: the line, its file, or - for stdin.")] = None,
    request: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Make an issuer's key here, and write an application for it.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the issuer is called; as this member where not given.")] = None,
    directory: Directory = None,
    no_passphrase: NoPassphrase = False,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Be an issuer, who invites, signs and revokes without the root key: apply, take the root's answer, or see how it stands.

    For example: p2pfl network issuer --request ward-b.application
    """
    from node import place
    from node.admission.issuing import accepted, applied, standing
    from node.commands.options import known_passphrase, new_passphrase
    from node.commands.reading import line_in, written
    from p2pfl.protocol.admission.issuer import IssuerLine, application_line

    here = place.found(directory)
    if request is not None:
        made = applied(here, name, lambda: new_passphrase(no_passphrase, passphrase_fd), known_passphrase(passphrase_fd))
        written(request, application_line(made))
        told = {"name": made.name, "key": made.key.hex(), "request": str(request)}
        typer.echo(answer(told) if json_ else f"application  {request}")
        typer.echo("Hand it to the holder of the root key, who runs: p2pfl network sign FILE --role issuer", err=True)
        return
    if line is not None:
        accepted(here, IssuerLine.parse(line_in(line)), known_passphrase(passphrase_fd))
    found = standing(here)
    until = time.strftime("%Y-%m-%d", time.gmtime(found.certificate.not_after))
    shown = f"{plain(found.certificate.name)} {found.trouble or f'is an issuer until {until}'}"
    count = f"vouched for {found.vouched_for} of {found.as_data()['may_vouch_for']}"
    typer.echo(answer(found.as_data()) if json_ else f"{shown}; {count}; key {found.certificate.identity.hex()[:16]}")


@network_app.command("members")
def network_members(directory: Directory = None, json_: Json = False) -> None:
    """Who was ever let in: role, state, until when, and where.

    For example: p2pfl network members
    """
    from node import place
    from node.admission.member_table import lines
    from node.admission.office import listed

    members = listed(place.found(directory))
    typer.echo(answer({"members": members}) if json_ else "\n".join(lines(members)))
