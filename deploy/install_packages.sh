#!/usr/bin/env bash
# Installs Debian packages, only those that are missing. usage: install_packages.sh build|test|check|runtime ...
set -euo pipefail

build="build-essential cmake ninja-build ccache pkg-config protobuf-compiler protobuf-compiler-grpc
  libprotobuf-dev libgrpc++-dev libabsl-dev prometheus-cpp-dev libcivetweb-dev libcurl4-openssl-dev
  zlib1g-dev libssl-dev libsimdjson-dev libutf8proc-dev python3 python3-pip ca-certificates"
test="libgtest-dev libgmock-dev binutils prometheus"
check="clang-format-14 clang-tidy-14"

wanted=()
for group in "$@"; do
  case "$group" in
    build | test | check) for package in ${!group}; do wanted+=("$package"); done ;;
    *)
      echo "install_packages.sh: unknown group '$group'; want build, test or check" >&2
      exit 2
      ;;
  esac
done

missing=()
for package in "${wanted[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "install_packages.sh: needs root to install: ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "installing ${#missing[@]} packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" apt-get install -y --no-install-recommends \
  "${missing[@]}"; } >"$log" 2>&1; then
  tail -20 "$log" >&2
  exit 1
fi
rm -f "$log"
