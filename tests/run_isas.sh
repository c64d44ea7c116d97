#!/usr/bin/env bash
# The release suite on every ISA row of this CPU in turn, as if it had no better one.
#   tests/run_isas.sh [ROW...]      all rows unless told; those that the CPU lacks are skipped by name
# Builds once in build/isa; for each row one file is compiled again. One line a row at the end; exit code 1 if a test
# failed. Set up a bare machine with tests/run.sh first.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

rows=("$@")
[ $# -gt 0 ] || rows=(scalar avx2 avx2_vnni avx512 avx512_vnni avx512_bf16 amx)
build=build/isa
models=$(deploy/fetch_models.sh) && export NIBBLE_TEST_MODELS=$models

summary=()
failed=0
for row in "${rows[@]}"; do
  echo "== $row"
  cmake --preset release -B "$build" -DNIBBLE_TESTS=ON -DNIBBLE_CPU_ISA="$row" >"$build.configure.log" 2>&1 &&
    cmake --build "$build" -j "$(nproc)" -- --quiet || exit 1
  if ! why=$("$build/nibble" bench kernels --cpu-isa "$row" --only "no such line" 2>&1 >/dev/null); then
    summary+=("$row: not run: $why")
    [[ "$why" == *"this CPU has no"* ]] || failed=1
    continue
  fi
  # One test says that the best row is the default, which it is not here; the emulated GPU has no row.
  ctest --test-dir "$build/tests" --output-on-failure -j "$(nproc)" -E TheBestIsTheDefault -LE '^cuda$' | tee "$build.log" | tail -40
  [ "${PIPESTATUS[0]}" -eq 0 ] || failed=1
  summary+=("$row: $(grep 'tests passed' "$build.log")")
done
printf '%s\n' "${summary[@]}"
exit "$failed"
