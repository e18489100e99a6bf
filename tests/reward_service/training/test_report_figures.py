import xml.etree.ElementTree as ElementTree

import numpy as np

from reward_service.training import report_figures
from reward_service.training.figures import JudgedSegments
from reward_service.training.history import EpochFigures

JUDGED = JudgedSegments(
    is_ok=np.array([True, True, False, False]),
    says_ok=np.array([True, False, False, True]),
    probability=np.array([0.9, 0.4, 0.1, 0.8]),
    lengths_chars=np.array([3, 5, 7, 9]),
)


def drawings() -> dict[str, str]:
    return {
        "reliability": report_figures.reliability_diagram(JUDGED),
        "roc": report_figures.roc_diagram(JUDGED, 0.75),
        "scores": report_figures.score_histogram(JUDGED),
        "margins": report_figures.margin_histogram(np.array([-1.0, 0.5, 2.0])),
        "curve": report_figures.learning_curve([EpochFigures(0.9, 0.8), EpochFigures(0.5, None)]),
    }


def test_each_is_one_well_formed_drawing() -> None:
    for name, text in drawings().items():
        assert text.startswith("<svg"), name
        assert ElementTree.fromstring(text).tag.endswith("svg"), name


def test_they_say_their_figures() -> None:
    found = drawings()
    # Each of the four has a bin of its own: (.1 + .6 + .1 + .8) / 4.
    assert "Reliability, ECE 0.400" in found["reliability"]
    assert "ROC, AUC 0.750" in found["roc"]
    assert "ok (2)" in found["scores"]
    assert "error (2)" in found["scores"]
    assert "Margins, 66.7% above 0" in found["margins"]
    assert "held out" in found["curve"]


def test_the_same_figures_draw_the_same() -> None:
    assert drawings() == drawings()


def test_an_id_means_the_same_in_every_drawing_of_a_page() -> None:
    known: dict[str, str] = {}
    for text in drawings().values():
        for element in ElementTree.fromstring(text).iter():
            if element.tag.endswith(("clipPath", "marker", "path")) and "id" in element.attrib:
                content = ElementTree.tostring(element, encoding="unicode").strip()
                assert known.setdefault(element.attrib["id"], content) == content
    assert known
