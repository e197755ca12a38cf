"""Pictures for a paper."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from p2pfl.report.svg import HEIGHT, WIDTH, pictures
from tests.records import HOSTILE, a_record

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("peers", [1, 8, 200, 1300])
def test_every_picture_is_a_document_of_its_own(peers: int) -> None:
    found = pictures(a_record(peers=peers, killed=0 if peers > 1 else None))
    assert {"graph.svg", "accuracy.svg", "loss.svg", "distance.svg", "bytes.svg"} <= found.keys()
    for text in found.values():
        assert ElementTree.fromstring(text).tag == f"{SVG}svg"
        assert "nan" not in text and "None" not in text and "class=" not in text


def test_the_curve_is_inside_of_the_picture_and_rises_where_accuracy_does() -> None:
    picture = ElementTree.fromstring(pictures(a_record(rounds=10))["accuracy.svg"])
    line = next(path.get("d") or "" for path in picture.iter(f"{SVG}path") if path.get("stroke-width") == "2")
    points = np.array([[float(number) for number in point.split()] for point in line.removeprefix("M").split("L")])
    assert points.shape == (11, 2)
    assert (np.diff(points[:, 0]) > 0).all() and (np.diff(points[:, 1]) < 0).all()
    assert (points >= 0).all() and (points <= [WIDTH, HEIGHT]).all()


def test_names_of_others_stay_text() -> None:
    for text in pictures(a_record(names=HOSTILE)).values():
        tags = {element.tag.removeprefix(SVG) for element in ElementTree.fromstring(text).iter()}
        assert tags <= {"svg", "title", "rect", "path", "circle", "text"}
