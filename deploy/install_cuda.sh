#!/usr/bin/env bash
# Finds a CUDA 13 toolkit (nvcc, the static runtime, cuBLAS) or makes one in build/cuda_toolkit from PyPI's NVIDIA wheels
# (cuda_wheels.txt: 0.5 GB to fetch, 1 GB on disk); prints its folder. usage: install_cuda.sh
# NIBBLE_CUDA_ROOT or CUDA_HOME names a toolkit to take instead.
set -euo pipefail
cd "$(dirname "$0")/.."

complete() {
  [ -x "$1/bin/nvcc" ] && [ -e "$1/include/cublas_v2.h" ] && [ -n "$(find -L "$1"/lib* -name libcudart_static.a)" ] &&
    "$1/bin/nvcc" --version | grep -q 'release 13\.'
} 2>/dev/null

on_path=$(command -v nvcc || true)
for root in "${NIBBLE_CUDA_ROOT:-}" "${CUDA_HOME:-}" "${on_path:+$(dirname "$(dirname "$(readlink -f "$on_path")")")}" \
  /usr/local/cuda; do
  if [ -n "$root" ] && complete "$root"; then
    echo "$root"
    exit 0
  fi
done

root=$PWD/build/cuda_toolkit
stamp=$root/made_of
if ! cmp -s deploy/cuda_wheels.txt "$stamp"; then
  rm -rf "$root"
  mkdir -p "$root/wheels"
  echo "installing CUDA's compiler into build/cuda_toolkit" >&2
  python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes --dest "$root/wheels" \
    --requirement deploy/cuda_wheels.txt >&2
  for wheel in "$root"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$root/wheels/all"
    rm "$wheel"
  done
  mv "$root"/wheels/all/nvidia/cu13/* "$root"
  rm -rf "$root/wheels"
  chmod +x "$root"/bin/* "$root/nvvm/bin/cicc"
  ln -s lib "$root/lib64"
  ln -s libcublas.so.13 "$root/lib/libcublas.so"
  complete "$root" || {
    echo "install_cuda.sh: the wheels did not make a toolkit" >&2
    exit 1
  }
  cp deploy/cuda_wheels.txt "$stamp"
fi
echo "$root"
