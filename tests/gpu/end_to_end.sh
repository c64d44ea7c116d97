#!/usr/bin/env bash
# The whole program on the GPU: serves a tiny Llama and a tiny BERT, and compares what they say with the CPU's answer in
# the same arithmetic. usage: end_to_end.sh [--rehearse]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tokens=48 start=120
[ "${1:-}" = --rehearse ] && tokens=24 start=300
logs=$(mktemp -d)
server=
stop() {
  [ -n "$server" ] && kill -TERM "$server" 2>/dev/null && wait "$server"
  server=
}
trap 'stop || true; rm -rf "$logs"' EXIT

# serve NAME PORT FLAGS...: starts a server and waits until it serves.
serve() {
  local port=$1
  shift
  "$here/nibble" serve --listen "127.0.0.1:$port" --model "llama=$here/models/tiny_chat" \
    --model "bert=$here/models/tiny_bert" "$@" 2>"$logs/$port.log" &
  server=$!
  for ((i = 0; i < start; ++i)); do
    "$here/nibble" health --target "127.0.0.1:$port" --service nibble.v1.Inference >/dev/null 2>&1 && return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.25
  done
  echo "the server with $* does not serve:"
  tail -5 "$logs/$port.log"
  return 1
}
ask() {
  "$here/nibble" generate --target "127.0.0.1:$1" --model llama --prompt "Once upon a time" --temperature 0 \
    --max-tokens "$tokens" --timeout 60s
}
embed() {
  "$here/nibble" embed --target "127.0.0.1:$1" --model bert --similarity --prompt "a cat" --prompt "a small cat" --timeout 60s
}

serve 50151 --device cpu --compute fp32
on_cpu=$(ask 50151)
embed 50151 | tee "$logs/cpu.embed"
stop
serve 50152 --device cuda:0 --compute fp32 --metrics 127.0.0.1:50153
on_gpu=$(ask 50152)
embed 50152 | tee "$logs/gpu.embed"
python3 -c 'import urllib.request as u
print("\n".join(l for l in u.urlopen("http://127.0.0.1:50153/metrics").read().decode().splitlines()
  if l.startswith("nibble_memory_bytes")))'
stop
serve 50154 --device cuda:0
in_bf16=$(ask 50154)
stop
printf 'cpu fp32:  %s\ncuda fp32: %s\ncuda bf16: %s\n' "$on_cpu" "$on_gpu" "$in_bf16"
if [ -z "$on_cpu" ] || [ "$on_cpu" != "$on_gpu" ]; then
  echo "the GPU says something else in fp32"
  exit 1
fi
diff "$logs/cpu.embed" "$logs/gpu.embed"
echo "the same tokens and the same similarities"
