import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"mutations_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


MUTATIONS = load("mutations").MUTATIONS
run = load("run")


def test_there_are_enough_and_each_has_its_name():
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 20


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_each_still_applies(mutation):
    changed = run.mutate(mutation.file, mutation.before, mutation.after)
    compile(changed, mutation.file, "exec")
    assert run.tests_of(mutation.invariants)


def test_what_does_not_apply_is_told():
    with pytest.raises(ValueError, match="0 times, not once"):
        run.mutate("algorithms/kl.py", "no such text", "")
    with pytest.raises(ValueError, match="no invariant is called test_inv99"):
        run.tests_of(["test_inv99"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_each_makes_an_invariant_fail():
    done = subprocess.run([sys.executable, str(HERE / "run.py")], capture_output=True, text=True)
    assert "unchanged: passes" in done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
