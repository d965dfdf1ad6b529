"""What memory a process may still take, as the kernel's files tell it."""

import platform

import pytest

from clearseek.ledger.machine import available_memory_bytes

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def told(tmp_path):
    """What is available where the files of `proc` and of control groups hold these texts."""

    def call(**files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return available_memory_bytes(tmp_path / "proc", tmp_path / "groups")

    return lambda files: call(**files)


MEMORY = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    20480 kB\n"}


def test_unknown_where_the_system_does_not_say(told):
    assert told({}) is None


def test_the_machine_s(told):
    assert told(MEMORY) == 20 * MIB


def test_a_container_s_limit_less_what_is_taken_for_good(told):
    files = {"groups/memory.max": f"{10 * MIB}\n", "groups/memory.current": f"{7 * MIB}\n"}
    assert told(MEMORY | files) == 3 * MIB
    assert told(MEMORY | files | {"groups/memory.stat": f"anon 9\ninactive_file {2 * MIB}\n"}) == 5 * MIB


def test_a_limit_further_in_and_none_further_out(told):
    files = {
        "proc/self/cgroup": "0::/user/run\n",
        "groups/user/run/memory.max": "max\n", "groups/user/run/memory.current": "5\n",
        "groups/user/memory.max": f"{4 * MIB}\n", "groups/user/memory.current": f"{MIB}\n",
    }  # fmt: skip
    assert told(MEMORY | files) == 3 * MIB


def test_the_first_version_s_names_and_its_number_for_no_limit(told):
    folder = "groups/memory/box"
    files = {
        "proc/self/cgroup": "5:devices:/other\n4:memory:/box\n",
        f"{folder}/memory.limit_in_bytes": f"{8 * MIB}\n", f"{folder}/memory.usage_in_bytes": f"{6 * MIB}\n",
        f"{folder}/memory.stat": f"total_inactive_file {KIB}\n",
        "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "groups/memory/memory.usage_in_bytes": "1\n",
    }  # fmt: skip
    assert told(MEMORY | files) == 2 * MIB + KIB


def test_nothing_is_left_where_more_is_taken_than_allowed(told):
    assert told(MEMORY | {"groups/memory.max": "5\n", "groups/memory.current": "9\n"}) == 0


def test_macos_counts_pages(tmp_path, monkeypatch):
    program = tmp_path / "vm_stat"
    program.write_text(
        "#!/bin/sh\ncat <<'X'\nMach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:                               100.\nPages active:                             999.\n"
        "Pages inactive:                            50.\nPages speculative:                         10.\n"
        "Pages purgeable:                            4.\nX\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert available_memory_bytes(tmp_path / "proc", tmp_path / "groups") == 164 * 16384
    program.write_text("#!/bin/sh\nexit 1\n")
    assert available_memory_bytes(tmp_path / "proc", tmp_path / "groups") is None
