import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.report.plain import plain
from tests.records import HOSTILE


def test_an_ansi_escape_in_a_name_cannot_colour_the_terminal() -> None:
    assert plain("\x1b[31mred\x1b[0m") == r"\x1b[31mred\x1b[0m"


@pytest.mark.fault("hostile names")
def test_a_mark_that_turns_the_writing_direction_is_written_out() -> None:
    assert plain("\u202egnp.exe") == r"\u202egnp.exe"


def test_line_breaks_nul_and_half_a_surrogate_pair_become_escapes() -> None:
    assert plain("a\r\n\x00\u2028\ud800") == r"a\x0d\x0a\x00\u2028\ud800"


def test_names_of_the_world_stay_as_they_are() -> None:
    for name in ("Gdańsk", "東京", "القاهرة", "naïve café", "peer-1", "🐝"):
        assert plain(name) == name


@pytest.mark.fault("hostile names")
@given(st.text(), st.text())
def test_two_different_names_never_look_the_same(one: str, other: str) -> None:
    assert (plain(one) == plain(other)) == (one == other)


@pytest.mark.fault("hostile names")
@given(st.one_of(st.text(), st.sampled_from(HOSTILE)))
def test_nothing_invisible_is_left(text: str) -> None:
    assert not {unicodedata.category(character) for character in plain(text)} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
