"""What a run is made from and by: the kind of CPU, and a process that others can find again."""

import os
import sys
from pathlib import Path

import pytest

from pipeline.project import provenance


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_the_kind_of_cpu_names_its_instruction_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(provenance, "_CPU_INFO", info)
    info.write_text("processor : 0\nmodel name\t: A Chip @ 2 GHz\nflags\t\t: fpu avx2 sse4_1 fma avx512f\n")
    assert provenance.cpu() == "A Chip @ 2 GHz avx2 avx512f fma sse4_1"
    info.write_text("processor : 0\nmodel name\t: A Chip @ 2 GHz\nflags\t\t: fpu avx2 sse4_1 fma\n")
    assert provenance.cpu() == "A Chip @ 2 GHz avx2 fma sse4_1"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_is_known_by_its_boot_its_namespace_and_its_start() -> None:
    own = provenance.process_tags()
    assert not provenance.is_gone(own) and not provenance.is_of_earlier_boot(own)
    since_boot = int(own["process.started"]) / os.sysconf("SC_CLK_TCK")  # a step of the clock changes nothing
    assert 0 < since_boot < float(Path("/proc/uptime").read_text().split()[0])
    assert provenance.is_gone(own | {"process.started": "1"})  # another one has its number now
    name, boot, namespace = own["process.host"].split()
    dead = own | {"process.pid": str(2**22 + 1)}
    assert provenance.is_gone(dead)
    for host in (f"{name} {boot} pid:[1]", f"other {boot} {namespace}", f"{name} 0000 {namespace}", f"{name} {boot}"):
        assert not provenance.is_gone(dead | {"process.host": host}), host  # nothing can be known of it
    assert provenance.is_of_earlier_boot(own | {"process.host": f"{name} 0000 {namespace}"})
    assert provenance.is_of_earlier_boot(own | {"process.host": f"{name} 0000"})  # as earlier versions wrote it
    assert not provenance.is_of_earlier_boot(own | {"process.host": f"other 0000 {namespace}"})
