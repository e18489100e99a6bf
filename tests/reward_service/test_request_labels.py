import pytest

from reward_service.request_labels import RequestLabels, valid_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


# From the examples and rules of https://www.w3.org/TR/trace-context/.
@pytest.mark.parametrize(
    "header", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"cc-{TRACE}-{SPAN}-01-what-may-come"]
)
def test_what_the_standard_knows_is_carried_on(header: str) -> None:
    assert valid_traceparent(header) == header
    assert RequestLabels("r", traceparent=header).trace_id == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "",
        "x",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_anything_else_is_not(header: str) -> None:
    assert valid_traceparent(header) == ""


def test_no_trace_has_no_id() -> None:
    assert RequestLabels("r").trace_id == ""
