"""Does each mutation make an invariant fail?

    python tests/mutations/run.py              # all of them, a few seconds each
    python tests/mutations/run.py NAME ...     # these

Each is applied to a copy of rl_client. Torch is loaded once; the tests run in a fork of this process, which loads the
copy.
"""

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
INVARIANTS = ROOT / "tests" / "invariants"
PASSED, FAILED = 0, 1
"""Exit statuses of pytest."""
WRONG_COPY = 90
"""Of a fork that did not load the copy."""


def mutate(file: str, before: str, after: str) -> str:
    """The changed text of a source file.

    Raises:
        ValueError: If `before` does not occur exactly once.
    """
    text = (ROOT / "rl_client" / file).read_text(encoding="utf-8")
    if text.count(before) != 1:
        raise ValueError(f"rl_client/{file} holds {before!r} {text.count(before)} times, not once")
    return text.replace(before, after)


def tests_of(names: Sequence[str]) -> list[str]:
    """The invariants' files whose names begin so.

    Raises:
        ValueError: If one begins no file's name.
    """
    files = []
    for name in names:
        found = sorted(INVARIANTS.glob(f"{name}*.py"))
        if not found:
            raise ValueError(f"no invariant is called {name}")
        files += [str(path) for path in found]
    return files


def run_tests(sources: Path, files: Sequence[str], output: Path) -> int:
    """Run tests on the rl_client under `sources`, in a fork.

    Returns:
        pytest's exit status.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = WRONG_COPY
    try:
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(ROOT)
        sys.path.insert(0, str(sources))
        loaded = importlib.import_module("rl_client").__file__
        if loaded is not None and Path(loaded).is_relative_to(sources):
            import pytest

            options = ["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout=120"]
            status = int(pytest.main([*options, *files]))
    finally:
        os._exit(status)


def run_mutations(names: Sequence[str]) -> dict[str, str]:
    """Try mutations.

    Args:
        names: Which; all when empty.

    Returns:
        By name `noticed`, `SURVIVED`, or what went wrong; `unchanged` stands for the source as it is, which must pass.
    """
    from mutations import MUTATIONS

    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    if unknown := set(names) - {mutation.name for mutation in chosen}:
        raise ValueError(f"no mutation is called {', '.join(sorted(unknown))}")
    for module in ("torch", "transformers", "hypothesis", "pytest", "tensorboard"):
        importlib.import_module(module)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder)
        shutil.copytree(ROOT / "rl_client", sources / "rl_client", ignore=shutil.ignore_patterns("__pycache__"))
        every = sorted({name for mutation in chosen for name in mutation.invariants})
        status = run_tests(sources, sorted(set(tests_of(every))), sources / "log")
        results["unchanged"] = "passes" if status == PASSED else f"FAILS ({status})\n{(sources / 'log').read_text()}"
        for mutation in chosen:
            path = sources / "rl_client" / mutation.file
            unchanged = path.read_text(encoding="utf-8")
            path.write_text(mutate(mutation.file, mutation.before, mutation.after), encoding="utf-8")
            status = run_tests(sources, tests_of(mutation.invariants), sources / "log")
            path.write_text(unchanged, encoding="utf-8")
            told = {FAILED: "noticed", PASSED: "SURVIVED"}
            results[mutation.name] = told.get(status) or f"BROKEN ({status})\n{(sources / 'log').read_text()}"
            print(f"{mutation.name}: {results[mutation.name]}", flush=True)
    return results


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # a mutated file may be as long and as old as the one before
    sys.path.insert(0, str(Path(__file__).parent))
    outcome = run_mutations(sys.argv[1:])
    print(f"unchanged: {outcome.pop('unchanged')}")
    missed = [name for name, told in outcome.items() if told != "noticed"]
    print(f"{len(outcome) - len(missed)} of {len(outcome)} noticed")
    sys.exit(bool(missed))
