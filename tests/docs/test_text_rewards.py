from collections.abc import Callable


def test_the_examples_run(run_examples: Callable[[str], None]) -> None:
    run_examples("text-rewards.md")
