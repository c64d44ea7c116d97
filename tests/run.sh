#!/usr/bin/env bash
# Sets up and passes the tests on a Debian 12 machine that has nothing installed by hand.
#   tests/run.sh          the release suite
#   tests/run.sh --all    the same with the CUDA backend compiled for every GPU, then AddressSanitizer +
#                         UndefinedBehaviorSanitizer, and ThreadSanitizer for engine and kernels
# One ctest summary at the end, whatever ran. Exit code: ctest's, or 1 if the rehearsal of tests/gpu failed.
set -euo pipefail
cd "$(dirname "$0")/.."

presets=(release)
case "${1:-}" in
  "") ;;
  --all) presets=(cuda asan tsan) ;;
  *)
    sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac

deploy/install_packages.sh build test
if [ "${1:-}" = "--all" ]; then
  CUDA_HOME=$(deploy/install_cuda.sh)
  export CUDA_HOME
fi
# Models are not committed; what needs the real ones is skipped by name when they cannot be had.
if models=$(deploy/fetch_models.sh); then
  export NIBBLE_TEST_MODELS=$models
else
  echo "tests/run.sh: the demo models could not be fetched; tests that need them will be skipped"
fi

mkdir -p build/all
: >build/all/CTestTestfile.cmake
for preset in "${presets[@]}"; do
  echo "== build $preset"
  cmake --preset "$preset" -DNIBBLE_TESTS=ON >"build/$preset.configure.log" 2>&1 || {
    cat "build/$preset.configure.log" >&2
    exit 1
  }
  cmake --build "build/$preset" -j "$(nproc)" -- --quiet
  echo "subdirs(\"../$preset/tests\")" >>build/all/CTestTestfile.cmake
done

# What a machine with a GPU would get and do, as far as this one can: the bundle, and a rehearsal on the emulated GPU.
failed=0
gpu_log=build/gpu.log
if [ "${1:-}" = "--all" ]; then
  NIBBLE_BITSANDBYTES=none tests/gpu/bundle.sh 2>&1 | tee "$gpu_log" || failed=1
  NIBBLE_BUILD=build/cuda tests/gpu/run.sh --rehearse build/gpu_rehearsal_out 2>&1 | tee -a "$gpu_log" || failed=1
fi
rehearsed=$failed

export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
# Debian's simdjson is not instrumented: what it allocates and our inlined code frees looks mismatched.
export ASAN_OPTIONS="alloc_dealloc_mismatch=0:detect_stack_use_after_return=1:strict_string_checks=1"
ctest --test-dir build/all --output-on-failure -j "$(nproc)" || failed=$?
[ "$rehearsed" -eq 0 ] || {
  grep -v '^|' "$gpu_log" | tail -40 || true
  echo "tests/run.sh: the bundle for a GPU or its rehearsal failed, as these lines of $gpu_log say"
}
exit "$failed"
