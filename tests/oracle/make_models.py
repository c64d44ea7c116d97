#!/usr/bin/env python3
"""Makes the small models of tests/golden/models: real and random weights, Hugging Face layout.

usage: make_models.py STORIES_BIN OUT_DIR
  STORIES_BIN  stories260K.bin of karpathy/tinyllamas (MIT), llama2.c's legacy layout
Needs: numpy, torch, safetensors, tokenizers.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a small test model.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TRAINING_TEXT = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
    "One day, she saw a big, red ball. The ball was very high in the sky, and she could not reach it.",
    "The cat sat on the mat and looked at the dog. The dog was happy to see the cat again today.",
    "What is the weather like today? It is sunny and warm, with a little wind from the west.",
    "Tom and his mother went to the market to buy bread, milk, 12 eggs and some apples for dinner.",
    "A server answers many questions at once; every answer is the same as if it were asked alone.",
]


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def unpermute(weight, heads):
    """Rows of interleaved-pair RoPE to halves, per head (models.md 12.1)."""
    rows, cols = weight.shape
    return weight.view(heads, rows // heads // 2, 2, cols).transpose(1, 2).reshape(rows, cols)


def stories(source, out):
    raw = pathlib.Path(source).read_bytes()
    dim, ffn, layers, heads, kv_heads, vocab, seq = struct.unpack("<7i", raw[:28])
    values = torch.from_numpy(np.frombuffer(raw, dtype="<f4", offset=28).copy())
    at = 0

    def take(*shape):
        nonlocal at
        size = int(np.prod(shape))
        piece = values[at : at + size].view(*shape)
        at += size
        return piece

    head_dim = dim // heads
    tensors = {"model.embed_tokens.weight": take(vocab, dim)}
    attn_norm = take(layers, dim)
    wq, wk = take(layers, dim, dim), take(layers, kv_heads * head_dim, dim)
    wv, wo = take(layers, kv_heads * head_dim, dim), take(layers, dim, dim)
    ffn_norm = take(layers, dim)
    w1, w2, w3 = take(layers, ffn, dim), take(layers, dim, ffn), take(layers, ffn, dim)
    tensors["model.norm.weight"] = take(dim)
    for i in range(layers):
        p = f"model.layers.{i}."
        tensors[p + "self_attn.q_proj.weight"] = unpermute(wq[i], heads)
        tensors[p + "self_attn.k_proj.weight"] = unpermute(wk[i], kv_heads)
        tensors[p + "self_attn.v_proj.weight"] = wv[i]
        tensors[p + "self_attn.o_proj.weight"] = wo[i]
        tensors[p + "mlp.gate_proj.weight"] = w1[i]
        tensors[p + "mlp.down_proj.weight"] = w2[i]
        tensors[p + "mlp.up_proj.weight"] = w3[i]
        tensors[p + "input_layernorm.weight"] = attn_norm[i]
        tensors[p + "post_attention_layernorm.weight"] = ffn_norm[i]
    out.mkdir(parents=True, exist_ok=True)
    save_file({k: v.to(torch.float16).contiguous() for k, v in tensors.items()}, out / "model.safetensors",
              metadata={"format": "pt"})
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": dim, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "vocab_size": vocab, "max_position_embeddings": seq, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 1,
        "torch_dtype": "float16"})


def tiny_chat(out):
    """A random Llama with an untied head, biases and GQA, and a small byte-level BPE tokenizer."""
    out.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tok.train_from_iterator(TRAINING_TEXT * 4, trainer)
    tok.save(str(out / "tokenizer.json"), pretty=False)
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "chat_template": CHATML})
    hidden, ffn, layers, heads, kv_heads, head_dim, vocab = 64, 160, 2, 4, 2, 16, 512
    gen = torch.Generator().manual_seed(7)

    def random(*shape, scale=0.08):
        return torch.randn(*shape, generator=gen) * scale

    tensors = {"model.embed_tokens.weight": random(vocab, hidden, scale=0.5),
               "model.norm.weight": 1 + random(hidden), "lm_head.weight": random(vocab, hidden, scale=0.5)}
    for i in range(layers):
        p = f"model.layers.{i}."
        for name, rows in (("q", heads * head_dim), ("k", kv_heads * head_dim), ("v", kv_heads * head_dim)):
            tensors[p + f"self_attn.{name}_proj.weight"] = random(rows, hidden, scale=0.2)
            tensors[p + f"self_attn.{name}_proj.bias"] = random(rows)
        tensors[p + "self_attn.o_proj.weight"] = random(hidden, heads * head_dim, scale=0.2)
        tensors[p + "self_attn.o_proj.bias"] = random(hidden)
        tensors[p + "mlp.gate_proj.weight"] = random(ffn, hidden, scale=0.2)
        tensors[p + "mlp.up_proj.weight"] = random(ffn, hidden, scale=0.2)
        tensors[p + "mlp.down_proj.weight"] = random(hidden, ffn, scale=0.2)
        tensors[p + "input_layernorm.weight"] = 1 + random(hidden)
        tensors[p + "post_attention_layernorm.weight"] = 1 + random(hidden)
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in tensors.items()}, out / "model.safetensors",
              metadata={"format": "pt"})
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "vocab_size": vocab, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "attention_bias": True, "mlp_bias": False, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"})
    write_json(out / "generation_config.json", {"eos_token_id": [2, 0], "do_sample": False})


def tiny_bert(out):
    """A random BERT of two layers with a trained WordPiece vocabulary; sentence-transformers layout."""
    out.mkdir(parents=True, exist_ok=True)
    tok = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizers.BertNormalizer(lowercase=True)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tok.train_from_iterator(TRAINING_TEXT * 4, trainers.WordPieceTrainer(
        vocab_size=300, special_tokens=special, show_progress=False))
    tok.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tok.save(str(out / "tokenizer.json"), pretty=False)
    write_json(out / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "cls_token": "[CLS]",
                                                "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"})
    hidden, ffn, layers, heads, positions = 48, 96, 2, 4, 64
    vocab = tok.get_vocab_size()
    gen = torch.Generator().manual_seed(11)

    def random(*shape, scale=0.15):
        return torch.randn(*shape, generator=gen) * scale

    tensors = {"embeddings.word_embeddings.weight": random(vocab, hidden),
               "embeddings.position_embeddings.weight": random(positions, hidden),
               "embeddings.token_type_embeddings.weight": random(2, hidden),
               "embeddings.LayerNorm.weight": 1 + random(hidden), "embeddings.LayerNorm.bias": random(hidden),
               "pooler.dense.weight": random(hidden, hidden), "pooler.dense.bias": random(hidden)}
    for i in range(layers):
        p = f"encoder.layer.{i}."
        for name, rows, cols in (("attention.self.query", hidden, hidden), ("attention.self.key", hidden, hidden),
                                 ("attention.self.value", hidden, hidden), ("attention.output.dense", hidden, hidden),
                                 ("intermediate.dense", ffn, hidden), ("output.dense", hidden, ffn)):
            tensors[p + name + ".weight"] = random(rows, cols)
            tensors[p + name + ".bias"] = random(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            tensors[p + name + ".weight"] = 1 + random(hidden)
            tensors[p + name + ".bias"] = random(hidden)
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors", metadata={"format": "pt"})
    write_json(out / "config.json", {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_size": hidden, "intermediate_size": ffn,
        "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": vocab,
        "max_position_embeddings": positions, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu",
        "position_embedding_type": "absolute", "pad_token_id": 0})
    write_json(out / "modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}])
    (out / "1_Pooling").mkdir(exist_ok=True)
    write_json(out / "1_Pooling" / "config.json", {
        "word_embedding_dimension": hidden, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False})
    write_json(out / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": False})
    write_json(out / "config_sentence_transformers.json", {
        "prompts": {"query": "question: "}, "default_prompt_name": None})


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    stories(sys.argv[1], target / "stories260k")
    tiny_chat(target / "tiny_chat")
    tiny_bert(target / "tiny_bert")
