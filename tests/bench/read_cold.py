#!/usr/bin/env python3
"""Reads the files of a folder that no cache holds, and tells how long it took; with --evict only drops them from the
page cache. usage: read_cold.py [--evict] FOLDER
"""
import json
import os
import pathlib
import sys
import time


def files(folder):
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())


def evict(folder):
    for path in files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder):
    total, block = 0, bytearray(1 << 20)
    begin = time.perf_counter()
    for path in files(folder):
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(block):
                total += count
    return total, time.perf_counter() - begin


if __name__ == "__main__":
    *options, target = sys.argv[1:] or sys.exit(__doc__)
    evict(target)
    if options != ["--evict"]:
        size, seconds = read(target)
        print(json.dumps({"bytes": size, "seconds": seconds}))
