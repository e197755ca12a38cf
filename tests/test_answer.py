"""What a command says under --json can be read by any reader of JSON."""

import json

from p2pfl.answer import answer, refusal
from p2pfl.failure import Failure


def test_what_is_not_finite_is_null_however_deep_it_lies() -> None:
    text = answer({"loss": float("nan"), "peers": [{"accuracy": 0.5, "norms": (float("inf"), -1.0)}]})
    assert json.loads(text, parse_constant=lambda name: name) == {
        "schema_version": 1,
        "status": "ok",
        "data": {"loss": None, "peers": [{"accuracy": 0.5, "norms": [None, -1.0]}]},
    }


def test_a_refusal_says_what_and_how_to_mend_it() -> None:
    assert json.loads(refusal(Failure("bad_task", "It has no model.", "Give one."))) == {
        "schema_version": 1,
        "status": "error",
        "error": {"code": "bad_task", "message": "It has no model.", "hint": "Give one."},
    }
