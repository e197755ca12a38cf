"""Every verb of a real network takes the folder and answers in JSON, found by walking the commands themselves."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from node.commands.network_verbs import network_app
from node.commands.node_verbs import node_app
from node.commands.operating_verbs import doctor, service_app


def verbs() -> Iterator[tuple[str, Any]]:
    alone = typer.Typer()
    alone.command("doctor")(doctor)
    for group, app in (("node", node_app), ("network", network_app), ("service", service_app)):
        commands: Any = typer.main.get_group(app)
        for name, command in commands.commands.items():
            yield f"{group} {name}", command
    yield "doctor", typer.main.get_command(alone)


VERBS = dict(verbs())


def test_there_are_the_verbs_that_were_promised() -> None:
    promised = {f"network {verb}" for verb in ("create", "invite", "sign", "revoke", "members", "amend", "issuer", "attest")}
    promised |= {f"node {verb}" for verb in ("init", "join", "start", "rotate", "status", "leave")}
    promised |= {f"service {verb}" for verb in ("install", "remove", "status")} | {"doctor"}
    assert promised <= VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_the_folder_and_answers_in_json(verb: str) -> None:
    options = {option for parameter in VERBS[verb].params for option in parameter.opts}
    assert {"--dir", "--json"} <= options
    assert "--passphrase" not in options  # everybody on the machine can read a command line
    assert all(parameter.help for parameter in VERBS[verb].params)
    assert "For example: " in (VERBS[verb].help or "")
