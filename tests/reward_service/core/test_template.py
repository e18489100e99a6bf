import pytest

from reward_service.core.template import parse_template, template_fields


def test_a_template_is_divided_into_texts_and_fields() -> None:
    assert parse_template("q: {q} {{x}} {ctx}") == (("q: ", "q"), (" {", None), ("x}", None), (" ", "ctx"))
    assert parse_template("") == ()


@pytest.mark.parametrize("template", ["{q!r}", "{q:>9}", "{q.x}", "{q[0]}", "{}", "{0}", "{ q }", "{q", "q}"])
def test_other_than_bare_fields_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        parse_template(template)


def test_the_inputs_of_a_template_are_named_once() -> None:
    assert template_fields("{q} {{x}} {prompt} {q}:") == {"q", "prompt"}
    assert template_fields("no input") == frozenset()
