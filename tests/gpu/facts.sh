#!/usr/bin/env bash
# What this machine is, for the report; missing tools leave gaps.
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,clocks.sm,clocks.mem,power.limit,power.draw,ecc.mode.current,mig.mode.current \
  --format=csv || echo "no nvidia-smi"
nvcc --version | tail -2 || echo "no nvcc"
ldd --version | head -1
uname -srm
lscpu | grep -E '^(Model name|CPU\(s\))'
exit 0
