#!/usr/bin/env bash
# Format and static analysis of our sources. usage: tests/lint.sh [--format | --tidy]   (both without an argument)
# --tidy takes some minutes. Without precompiled headers, so that it also finds what a file forgot to include.
set -euo pipefail
cd "$(dirname "$0")/.."
deploy/install_packages.sh check

mapfile -t sources < <(git ls-files '*.h' '*.cc' '*.inl' '*.cu' '*.cuh')
case "${1:-}" in "" | --format | --tidy) ;; *) sed -n '2,3p' "$0" >&2; exit 2 ;; esac
if [ "${1:-}" != "--tidy" ]; then
  clang-format-14 --dry-run -Werror "${sources[@]}"
  echo "format: ${#sources[@]} files"
fi
if [ "${1:-}" != "--format" ]; then
  cmake -S . -B build/lint -G Ninja -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON >/dev/null
  cmake --build build/lint --target nibble_proto -- --quiet
  # clang 14 does not know all the CPU features that these name; the last needs CUDA's headers.
  printf '%s\n' "${sources[@]}" | grep '\.cc$' | grep -vE '/(isa|peaks)_|cpu/isa\.cc|four_bit_(rows|avx)|cuda/runtime' |
    xargs -P "$(nproc)" -n 4 clang-tidy-14 --quiet -p build/lint --extra-arg=-Wno-unknown-warning-option
  echo "tidy: no findings"
fi
