from collections.abc import Callable


def test_the_worked_example_prints_what_the_page_says(run_examples: Callable[[str], None]) -> None:
    run_examples("rewards.md")
