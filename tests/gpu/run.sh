#!/usr/bin/env bash
# Proves and measures the CUDA backend on this machine, from the folder that bundle.sh made: the device tests,
# compute-sanitizer, the bench, whole models, an end-to-end run. Less than 9 minutes; every step has a limit of its own,
# and one that fails does not stop the others. Writes report.json, report.md and every step's log.
#   run.sh [OUT]                what it writes goes to OUT, else $OUT, else ./out
#   run.sh --table [OUT]        prints this GPU's line for kernels/cuda/matmul_table.cc; some minutes, nothing else
#   run.sh --rehearse [OUT]     all of it on the emulated machine at tiny sizes, in a source tree: no figure means anything
# Exit code: 1 if a step failed or was cut short.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mode=all
case "${1:-}" in
  --rehearse | --table) mode=${1#--} && shift ;;
  -*)
    sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
out=${1:-${OUT:-out}}
mkdir -p "$out"
out=$(cd "$out" && pwd)

[ -e "$here/programs.tar.gz" ] && [ ! -e "$here/nibble" ] && tar -C "$here" -xzf "$here/programs.tar.gz"
# In a source tree: make the folder first, with programs that are linked to the emulated machine.
if [ "$mode" = rehearse ] && [ ! -e "$here/nibble" ]; then
  bundle=$here/../../build/gpu_rehearsal
  "$here/bundle.sh" --rehearse "$bundle" || exit 1
  exec "$bundle/run.sh" --rehearse "$out"
fi
rehearse=()
[ "$mode" = rehearse ] && rehearse=(--rehearse)

# cuBLAS and the rest of CUDA come from the machine.
for root in "${CUDA_HOME:-}" /usr/local/cuda; do
  [ -n "$root" ] && [ -d "$root/lib64" ] && export LD_LIBRARY_PATH="$root/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" &&
    export PATH="$PATH:$root/bin" && break
done
if ldd "$here/nibble" | grep -q 'libcublas.*not found'; then # as PyTorch's wheels bring it
  packages=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
  export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$packages/cu13/lib:$packages/cublas/lib:$packages/cuda_runtime/lib"
fi
if [ "$mode" = table ]; then
  exec "$here/cuda_bench" --table
fi

deadline=$((SECONDS + 525))
: >"$out/steps.jsonl"
: >"$out/failures.log"
failed=0

# step NAME SECONDS COMMAND...: runs it within its limit and what is left, and writes how it went.
step() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  [ $((deadline - SECONDS)) -lt "$limit" ] && limit=$((deadline - SECONDS))
  if [ "$limit" -le 0 ]; then
    code=124
    echo "no time was left" >"$out/$name.log"
  else
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  fi
  printf '{"step": "%s", "code": %d, "seconds": %d, "limit": %d}\n' "$name" "$code" $((SECONDS - begin)) "$limit" \
    >>"$out/steps.jsonl"
  [ "$code" -eq 0 ] || { echo "$name: exit code $code" && tail -5 "$out/$name.log"; } | tee -a "$out/failures.log"
  return "$code"
}
# The same beside others; join waits for them.
steps=()
beside() {
  step "$@" &
  steps+=($!)
}
join() {
  for pid in "${steps[@]}"; do wait "$pid" || failed=1; done
  steps=()
}

step facts 30 "$here/facts.sh" || failed=1
step starts 20 "$here/nibble" --version || failed=1
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv,noheader -lms 500 \
    >"$out/clocks.csv" 2>/dev/null &
  clocks=$!
fi

# A rehearsal shows that tests are found and run; all of them are the emulator suite's business.
filter='*'
shards=6
[ "$mode" = rehearse ] && filter='MatMulTable.*:FourBitLayout.*' && shards=2
for ((shard = 0; shard < shards; ++shard)); do
  beside "device_tests_$shard" 130 env GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$shard \
    "$here/cuda_device_tests" --gtest_filter="$filter" "--gtest_output=json:$out/device_tests_$shard.json"
done
join

# Every kernel and every path at tiny sizes, which the sanitizer's slowness bears.
small="'$here/cuda_bench' --rehearse --out=/dev/null && '$here/cuda_bench' --table --rehearse"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    beside "sanitizer_$tool" 100 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all bash -c "$small"
  done
  join
else
  step sanitizer_none 200 bash -c "$small" || failed=1
fi

library=$here/lib/libbitsandbytes_cuda130.so
limits=(products:160 exact:60 ops:45 steps:80)
[ "$mode" = rehearse ] && limits=(products:120 exact:120 ops:120 steps:120)
for part in "${limits[@]}"; do
  step "bench_${part%:*}" "${part#*:}" "$here/cuda_bench" "--only=${part%:*}" "--out=$out/bench_${part%:*}.jsonl" \
    "--bitsandbytes=$library" "${rehearse[@]}" || failed=1
done
step end_to_end 80 "$here/end_to_end.sh" "${rehearse[@]}" || failed=1

[ "$mode" = all ] && { step table 110 "$here/cuda_bench" --table || failed=1; }

[ -n "${clocks:-}" ] && kill "$clocks" 2>/dev/null
python3 "$here/report.py" "${rehearse[@]}" "$out" || failed=1
cat "$out/report.md" 2>/dev/null
cat "$out/failures.log"
exit "$failed"
