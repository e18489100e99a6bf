import base64
import xml.etree.ElementTree as ElementTree

import numpy as np

from rl_client.offline.overoptimisation import Course
from rl_client.offline.plots import course_plots, mean_plots, pareto_plots

NAME = "$x^2$ <b>"


def figure(mean, low=None, high=None):
    return {"mean": mean, "low": low, "high": high}


SUMMARIES = {
    NAME: {"figures": {"reward/x": figure(0.5, 0.4, 0.6), "reward/y": figure(1.0), "length_words": figure(3.0)}},
    "b": {"figures": {"reward/x": figure(0.7, 0.7, 0.8), "reward/y": figure(None), "reward/z": figure(2.0, 1.0, 3.0)}},
}


def image(address):
    content = address.removeprefix("data:image/svg+xml;base64,")
    assert content != address
    return ElementTree.fromstring(base64.b64decode(content))


def texts(address):
    return [element.text for element in image(address).iter("{http://www.w3.org/2000/svg}text")]


def test_one_plot_of_means_for_each_reward():
    plots = dict(mean_plots(SUMMARIES))
    assert list(plots) == ["Mean x", "Mean y", "Mean z"]
    assert {NAME, "b", "x"} <= set(texts(plots["Mean x"]))
    assert "b" not in texts(plots["Mean y"])


def test_one_pareto_plot_for_each_two_rewards():
    plots = dict(pareto_plots(SUMMARIES, ["b"]))
    assert list(plots) == ["y against x", "z against x", "z against y"]
    assert NAME in texts(plots["y against x"])


def test_courses_are_drawn_over_kl():
    line = np.arange(3.0)
    ((caption, address),) = course_plots({NAME: {"x": Course(line, line, line, line, line)}})
    assert caption == "x over KL"
    assert {NAME, "KL to the reference, nats"} <= set(texts(address))


def test_the_same_figures_are_the_same_bytes():
    assert mean_plots(SUMMARIES) == mean_plots(SUMMARIES)
