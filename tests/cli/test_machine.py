"""Machine facts read from the kernel's own files."""

from clearseek.cli.machine import instruction_sets


def test_reads_x86_flags(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n")
    assert instruction_sets(path) == ["AVX2", "AVX-512", "AVX-512 bf16", "AVX-512 VNNI"]


def test_reads_arm_features(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd bf16 sve\n")
    assert instruction_sets(path) == ["NEON", "SVE", "bf16"]


def test_unknown_where_the_system_does_not_say(tmp_path):
    assert instruction_sets(tmp_path / "none") is None
