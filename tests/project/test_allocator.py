"""Freed memory is kept, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

PLAIN = """
from pipeline.project.allocator import keep_freed_memory
keep_freed_memory()
"""
WHILE_BATCHES_COME = """
import numpy as np
from pipeline.training.fitting import as_dataset
batches = as_dataset(lambda: iter([(np.ones((2, 3), np.int32), np.ones(2))] * 9), 9)
under_way = iter(batches)
next(under_way)
"""
ALLOCATE = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        blocks = [libc.malloc(16 * 2**20) for _ in range(4)]
        for block in blocks:
            ctypes.memset(block, 1, 16 * 2**20)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
PAGES = 20 * 4 * 16 * 2**20 // 4096


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is glibc's")
@pytest.mark.parametrize(
    ("before", "environment", "most"),
    [
        (PLAIN, {}, PAGES // 100),
        (WHILE_BATCHES_COME, {}, PAGES // 20),  # other threads allocate too
        (PLAIN, {"GLIBC_TUNABLES": ""}, PAGES),
    ],
)
def test_what_was_freed_is_not_cleared_again(before: str, environment: dict[str, str], most: int) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", before + ALLOCATE],
        env=kept | environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert most // 2 * bool(environment) <= int(done.stdout) <= most * 1.1
