"""A hang, a crash or a memory blow-up of a verifier costs its own item, and nothing waits without a bound."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.tasks import worker
from clearseek.tasks.verify import Verdict
from clearseek.tasks.worker import Limits, VerifierPool

RIGHT, ERROR = Verdict.correct, Verdict.error
BEFORE, AFTER = ("number", "1", "1"), ("exact", "a", "a")
LIMITS = Limits(timeout_seconds=1.5, load_seconds=20, memory_bytes=512 << 20)


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(LIMITS) as pool:
        yield pool


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Writes a verifier's file; gives its name."""

    def write(body: str) -> str:
        path = tmp_path / f"mine_{len(list(tmp_path.iterdir()))}.py"
        path.write_text(textwrap.dedent(body))
        return f"{path}:score"

    return write


def running(pid: int) -> bool:
    """Whether the process still runs (a zombie that its parent has not fetched does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("crime", "told"),
    [
        ("import time; time.sleep(1000)", "gave no answer within 1.5 s"),
        ("import re; return bool(re.fullmatch('(a+)+b', 'a' * 60))", "gave no answer within 1.5 s"),
        ("import os; os._exit(7)", "ended with exit code 7"),
        ("import sys; sys.exit(0)", "ended with exit code 0"),
        ("import os; os.kill(os.getpid(), 11)", "was ended by SIGSEGV"),
        ("import os; os.close(4); os.close(3); os.closerange(3, 50)", ""),
        ("return len(bytearray(1 << 40)) > 0", "MemoryError"),
        ("raise ValueError('no good')", "ValueError: no good"),
        ("def down(): return down()\n    return down()", "RecursionError"),
        ("return 0.5", "returned 0.5; expected True, False or correct"),
        ("return 'right'", "returned 'right'"),
        ("return None", "returned None"),
    ],
)
def test_a_failing_verifier_is_an_error_and_the_rest_get_verdicts(
    pool: VerifierPool, written: Callable[[str], str], crime: str, told: str
) -> None:
    name = written(f"def score(candidate, answer):\n    {crime}\n")
    start = time.monotonic()
    assert pool.verify_many([BEFORE, (name, "1", "1"), AFTER, BEFORE]) == [RIGHT, ERROR, RIGHT, RIGHT]
    assert told in pool.last_error
    assert time.monotonic() - start < 20


def test_memory_is_bounded(written: Callable[[str], str]) -> None:
    name = written("def score(candidate, answer): return [bytearray(1 << 24) for _ in range(10_000)]")
    with VerifierPool(Limits(timeout_seconds=30, memory_bytes=256 << 20)) as pool:
        assert pool.verify_many([BEFORE, (name, "1", "1"), AFTER]) == [RIGHT, ERROR, RIGHT]
        assert "MemoryError" in pool.last_error


def test_every_culprit_in_a_batch_is_found(pool: VerifierPool, written: Callable[[str], str]) -> None:
    name = written("""
        import os
        def score(candidate, answer):
            if candidate == "die": os._exit(1)
            return candidate == answer
    """)
    batch = [(name, "die" if i % 5 == 0 else str(i), str(i)) for i in range(20)]
    assert pool.verify_many(batch) == [ERROR if i % 5 == 0 else RIGHT for i in range(20)]
    assert pool.restarts == 4


def test_a_user_s_function_may_say_each_verdict_and_print_and_read(
    pool: VerifierPool, written: Callable[[str], str]
) -> None:
    name = written("""
        import sys
        print("loading")
        def score(candidate, answer):
            print("ready", flush=True)
            assert sys.stdin.read() == ""
            return {"t": True, "f": False}.get(candidate, candidate)
    """)
    said = pool.verify_many(
        [(name, word, "") for word in ("t", "f", "correct", "wrong", "unparseable", "error")]
    )
    assert said == [*[Verdict.correct, Verdict.wrong] * 2, Verdict.unparseable, Verdict.error]
    assert pool.restarts == 0


@pytest.mark.parametrize("crime", ["import time; time.sleep(1000)", "import os; os._exit(1)", "1 / 0"])
def test_a_file_that_cannot_be_imported_costs_one_limit_for_all_its_items(
    written: Callable[[str], str], crime: str
) -> None:
    name = written(f"{crime}\ndef score(candidate, answer): return True\n")
    start = time.monotonic()
    with VerifierPool(Limits(timeout_seconds=0.7, load_seconds=3)) as pool:
        assert pool.verify_many([(name, "1", "1")] * 50 + [BEFORE]) == [ERROR] * 50 + [RIGHT]
    assert time.monotonic() - start < 15


def test_what_a_verifier_started_ends_with_it(
    pool: VerifierPool, written: Callable[[str], str], tmp_path: Path
) -> None:
    name = written(f"""
        import subprocess, pathlib
        def score(candidate, answer):
            child = subprocess.Popen(["sleep", "1000"])
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(child.pid))
            child.wait()
    """)
    assert pool.verify_many([(name, "1", "1")]) == [ERROR]
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def test_a_hung_worker_ends_when_its_parent_is_killed(written: Callable[[str], str], tmp_path: Path) -> None:
    name = written(f"""
        import os, pathlib
        def score(candidate, answer):
            pathlib.Path({str(tmp_path / "pid")!r}).write_text(str(os.getpid()))
            while True: pass
    """)
    program = f"""
from clearseek.tasks.worker import Limits, VerifierPool
VerifierPool(Limits(timeout_seconds=1.0)).verify_many([({name!r}, "1", "1")])
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    deadline = time.monotonic() + 20
    while (
        not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    pid = int((tmp_path / "pid").read_text())
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(pid)


def test_a_process_that_died_between_batches_is_replaced_without_blame(pool: VerifierPool) -> None:
    assert pool.verify_many([BEFORE]) == [RIGHT]
    assert pool._process is not None
    os.kill(pool._process._child.pid, signal.SIGKILL)
    assert pool.verify_many([BEFORE, AFTER]) == [RIGHT, RIGHT]


def test_a_process_that_never_starts_is_a_named_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.sys, "executable", "/bin/false")
    with (
        VerifierPool(LIMITS) as pool,
        pytest.raises(RunError, match="verifier process ended with exit code 1"),
    ):
        pool.verify_many([BEFORE])


def test_unknown_verifier_is_refused_before_anything_runs(pool: VerifierPool) -> None:
    with pytest.raises(InputError, match="unknown verifier 'nmber'"):
        pool.verify_many([BEFORE, ("nmber", "1", "1")])
    assert pool._process is None


def test_large_batches_and_texts_pass(pool: VerifierPool) -> None:
    batch = [("exact", "가" * 2000 + str(i), "가" * 2000 + "7") for i in range(1000)]
    said = pool.verify_many(batch)
    assert [i for i, verdict in enumerate(said) if verdict is RIGHT] == [7]
    assert pool.verify_many([]) == []
    assert pool.verify_many([("exact", "\ud800", "\ud800"), ("exact", "a\nb", "a b")]) == [RIGHT, RIGHT]


def test_the_worker_imports_no_torch_and_cheap_verifiers_no_sympy(
    pool: VerifierPool, written: Callable[[str], str]
) -> None:
    name = written("import sys\ndef score(candidate, answer): return candidate in sys.modules")
    said = pool.verify_many([BEFORE, AFTER, (name, "torch", ""), (name, "sympy", ""), (name, "numpy", "")])
    assert said[2:] == [Verdict.wrong] * 3
    said = pool.verify_many([("math", "\\frac{2}{\\sqrt{2}}", "\\sqrt{2}"), (name, "sympy", "")])
    assert said == [RIGHT, RIGHT]


def test_it_is_warm_and_can_be_closed_and_used_again(pool: VerifierPool) -> None:
    pool.verify_many([BEFORE])
    first = pool._process
    pool.verify_many([AFTER])
    assert pool._process is first
    pool.close()
    assert pool.verify_many([BEFORE]) == [RIGHT]
    assert pool.restarts == 0
