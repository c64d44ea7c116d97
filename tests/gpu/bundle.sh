#!/usr/bin/env bash
# Makes a folder that runs on a machine with a GPU, CUDA 13 (cuBLAS) and none of our libraries: nibble, the device
# tests, the bench, what they link, tiny models and run.sh. usage: bundle.sh [--rehearse] [FOLDER]
#   FOLDER      build/gpu_bundle. At most 40 MiB.
#   --rehearse  the same programs linked to the emulated machine
# NIBBLE_BUILD names the build folder (build/cuda, for a rehearsal build/release), which is made if it is missing.
# NIBBLE_BITSANDBYTES names libbitsandbytes_cuda130.so; else it comes out of its PyPI wheel.
set -euo pipefail
cd "$(dirname "$0")/../.."

preset=cuda suffix=
if [ "${1:-}" = --rehearse ]; then
  preset=release suffix=_rehearsal
  shift
fi
folder=${1:-build/gpu_bundle}
build=${NIBBLE_BUILD:-build/$preset}
tests=cuda_device_tests
[ -n "$suffix" ] && tests=cuda_tests

[ -e "$build/build.ninja" ] || cmake --preset "$preset" >/dev/null
cmake --build "$build" --target "nibble$suffix" "$tests" "cuda_bench$suffix" -- --quiet

rm -rf "$folder"
mkdir -p "$folder/lib"
programs=("$folder/nibble" "$folder/cuda_device_tests" "$folder/cuda_bench")
nibble=$build/nibble
[ -n "$suffix" ] && nibble=$build/tests/nibble$suffix
strip -o "${programs[0]}" "$nibble"
strip -o "${programs[1]}" "$build/tests/$tests"
strip -o "${programs[2]}" "$build/tests/cuda_bench$suffix"
cp -r tests/golden/models "$folder/models"
cp tests/gpu/{run.sh,facts.sh,end_to_end.sh,report.py} "$folder"

if [ -z "$suffix" ]; then
  # All they link but the loader, libc and CUDA. The programs find them by their own RPATH, $ORIGIN/lib.
  ldd "${programs[@]}" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(ld-linux|libc|libm|libdl|librt|libpthread|libresolv|libcuda|libcudart|libcublas|libcublasLt)[-.]' |
    while read -r library; do strip -o "$folder/lib/$(basename "$library")" "$library"; done
  peer=${NIBBLE_BITSANDBYTES:-}
  if [ -z "$peer" ]; then
    wheels=build/wheels
    peer=$wheels/bitsandbytes/libbitsandbytes_cuda130.so
    [ -e "$peer" ] || { python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$wheels" bitsandbytes==0.50.2 &&
      python3 -m zipfile -e "$wheels"/bitsandbytes-0.50.2-*.whl "$wheels"; } || true
  fi
  if [ -e "$peer" ]; then
    cp "$peer" "$folder/lib/libbitsandbytes_cuda130.so"
  else
    echo "bundle.sh: without bitsandbytes' library; the bench will say so"
  fi
  echo "needs glibc $(objdump -T "${programs[@]}" "$folder"/lib/*.so* 2>/dev/null | grep -oE 'GLIBC_2\.[0-9]+' | sort -uV | tail -1 | cut -c7-)"
  # run.sh unpacks them: as they are they weigh more than what may be carried.
  tar -C "$folder" -czf "$folder/programs.tar.gz" lib nibble cuda_device_tests cuda_bench
  rm "${programs[@]}"
fi
rm -rf "${folder:?}/lib"

bytes=$(du -sb "$folder" | cut -f1)
echo "$folder: $((bytes / 1048576)).$((bytes % 1048576 * 10 / 1048576)) MiB"
[ "$bytes" -le $((40 << 20)) ] || {
  echo "bundle.sh: more than 40 MiB" >&2
  exit 1
}
