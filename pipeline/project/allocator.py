"""How the C library's `malloc` deals with memory that is freed."""

import ctypes
import os

# mallopt(3), of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER = -1
_LARGEST_MMAP_THRESHOLD = 2**25
_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> None:
    """Has the process keep what it frees for what it allocates next.

    TensorFlow allocates and frees the same megabytes in each step of a training. Given back to the kernel they have to
    be cleared again: an epoch took 1.4 to 1.8 times as long (`make bench`: `allocator`). TensorFlow 2.21 sees to it
    that each block above 128 KiB goes back, from the moment that a generator's dataset is made
    (`ApplyPython311MemoryPatch`, against its issue 65675), so this is called after that.
    Nothing changes where the environment already says how, or the C library has no such setting.
    """
    if any(name in os.environ for name in _VARIABLES):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_TOP_PAD, 2**26)
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
