"""What memory could be had: the kernel's word, and what control groups of either version leave."""

import platform

import pytest

from clearseek.ledger.machine import available_memory_bytes

MIB = 1 << 20


def system(root, files):
    """A system of these files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 9999999 kB\nMemAvailable:    1048576 kB\n"}
SECOND = {"proc/self/cgroup": "0::/pod/box\n"}
FIRST = {"proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/a1\n1:name=systemd:/x\n"}


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, None),
        (MEMINFO, 1024 * MIB),
        (MEMINFO | {"proc/self/cgroup": "garbage\n"}, 1024 * MIB),
        # no limit, a limit, one of a group above, one that is overdrawn
        (MEMINFO | SECOND | {"sys/fs/cgroup/pod/box/memory.max": "max\n"}, 1024 * MIB),
        (
            MEMINFO | SECOND | {
                "sys/fs/cgroup/pod/box/memory.max": f"{500 * MIB}\n",
                "sys/fs/cgroup/pod/box/memory.current": f"{300 * MIB}\n",
                "sys/fs/cgroup/pod/box/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            },
            300 * MIB,
        ),
        (
            MEMINFO | SECOND | {
                "sys/fs/cgroup/pod/memory.max": f"{200 * MIB}\n", "sys/fs/cgroup/pod/memory.current": f"{50 * MIB}\n",
            },
            150 * MIB,
        ),
        (
            MEMINFO | {"proc/self/cgroup": "0::/\n"} | {
                "sys/fs/cgroup/memory.max": f"{200 * MIB}\n", "sys/fs/cgroup/memory.current": f"{250 * MIB}\n",
            },
            0,
        ),
        # the first version; a container sees its own group as the root
        (
            MEMINFO | FIRST | {
                "sys/fs/cgroup/memory/docker/a1/memory.limit_in_bytes": f"{400 * MIB}\n",
                "sys/fs/cgroup/memory/docker/a1/memory.usage_in_bytes": f"{100 * MIB}\n",
            },
            300 * MIB,
        ),
        (
            MEMINFO | FIRST | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{400 * MIB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{100 * MIB}\n",
                "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {40 * MIB}\n",
            },
            340 * MIB,
        ),
        (
            MEMINFO | FIRST | {
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            },
            1024 * MIB,
        ),
    ],
)  # fmt: skip
def test_the_least_of_what_the_system_and_its_groups_leave(tmp_path, files, available):
    assert available_memory_bytes(system(tmp_path, files)) == available


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
    assert available_memory_bytes(tmp_path) == 164 * 16384
    program.write_text("#!/bin/sh\nexit 1\n")
    assert available_memory_bytes(tmp_path) is None
