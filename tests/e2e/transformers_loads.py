#!/usr/bin/env python3
"""Does transformers with bitsandbytes load what `nibble quantize` writes, and say the same?

usage: transformers_loads.py NIBBLE SRC [--type nf4|fp4|int8] [--group-size N] [--no-double-quant] [--text TEXT]
NIBBLE is the program, SRC a Llama (Hugging Face directory or .gguf). Writes into a temporary folder, loads the result
with transformers, checks every 4-bit matrix's dequantized bits against our own reading of the source, compares the log
probabilities of a text with a running `nibble serve` (compute and kv in fp32), and lets peft attach a LoRA and take a step.
For 4 bits every Linear4bit is replaced by nn.Linear on dequantize_4bit in fp32, since bitsandbytes' own CPU forward
rounds; for INT8 bitsandbytes computes, row by row.
Needs: torch, transformers, bitsandbytes, peft, safetensors, grpcio, grpcio-tools (PyPI).
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import grpc
import torch
from grpc_tools import protoc

COMPUTE = "fp32"
ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = ("Rain had fallen for three days when the keeper of the lighthouse noticed that the old bell no longer rang. "
        "He climbed the stairs, one hand on the wet rope, and counted: 128 steps, as on every other night.")


def stubs():
    out = tempfile.mkdtemp()
    protos = [str(p) for p in (ROOT / "proto/nibble/v1").glob("*.proto")]
    if protoc.main(["protoc", f"-I{ROOT}/proto", f"--python_out={out}", f"--grpc_python_out={out}", *protos]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)


def ours(nibble, path, ids):
    """log p(ids[i+1] | ids[..i]) as the server tells them."""
    from nibble.v1 import inference_pb2 as pb, inference_pb2_grpc

    server = subprocess.Popen([nibble, "serve", "--listen", "127.0.0.1:50391", "--metrics", "", "--compute", COMPUTE,
                               "--model", f"m={path},kv_dtype=fp32"], stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        if '"ready"' in line:
            break
    else:
        sys.exit("nibble serve did not become ready")
    try:
        request = pb.GenerateRequest(model="m", token_ids=pb.TokenIds(ids=ids),
                                     sampling=pb.Sampling(temperature=0),
                                     stopping=pb.Stopping(max_tokens=1),
                                     output=pb.Output(prompt_logprobs=0))
        got = []
        with grpc.insecure_channel("127.0.0.1:50391") as channel:
            for piece in inference_pb2_grpc.InferenceStub(channel).Generate(request):
                got += [entry.logprob for entry in piece.prompt_logprobs]
        return got
    finally:
        server.terminate()
        server.wait()


def dequantize_linear4bit(model):
    """Every Linear4bit becomes an nn.Linear in fp32; dequantized as one row, which the AVX-512 path gets right."""
    import bitsandbytes as bnb

    for name, module in list(model.named_modules()):
        if not isinstance(module, bnb.nn.Linear4bit):
            continue
        state = module.weight.quant_state
        shape, state.shape = state.shape, torch.Size([1, state.shape[0] * state.shape[1]])
        state.dtype = torch.float32
        values = bnb.functional.dequantize_4bit(module.weight.data, state).reshape(shape)
        linear = torch.nn.Linear(shape[1], shape[0], bias=module.bias is not None)
        linear.weight.data = values
        if module.bias is not None:
            linear.bias.data = module.bias.data.float()
        parent = model.get_submodule(name.rpartition(".")[0]) if "." in name else model
        setattr(parent, name.rpartition(".")[2], linear)
    return torch.nn.Module.float(model)  # transformers refuses model.float() of what was quantized


def row_by_row(model):
    """INT8 as one request sees it: each row alone, so that no neighbour's outlier touches it."""
    import bitsandbytes as bnb

    for module in model.modules():
        if not isinstance(module, bnb.nn.Linear8bitLt):
            continue
        module.state.is_training = False
        forward = module.forward

        def rows(x, forward=forward):
            flat = x.reshape(-1, x.shape[-1])
            return torch.cat([forward(flat[i:i + 1]) for i in range(len(flat))]).reshape(*x.shape[:-1], -1)

        module.forward = rows
    return torch.nn.Module.float(model)  # everything but the products


def lora(path):
    import peft
    from transformers import AutoModelForCausalLM

    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(path),
                                peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert trained and all(p.grad is not None and torch.isfinite(p.grad).all() for p in trained)
    return float(loss.detach()), len(trained)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nibble")
    parser.add_argument("source")
    parser.add_argument("--type", default="nf4", choices=["nf4", "fp4", "int8"])
    parser.add_argument("--group-size", default="64")
    parser.add_argument("--no-double-quant", action="store_true")
    parser.add_argument("--text", default=TEXT)
    args = parser.parse_args()
    stubs()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/quantized"
        flags = ["--type", args.type, "--group-size", args.group_size]
        flags += ["--no-double-quant"] if args.no_double_quant else []
        subprocess.run([args.nibble, "quantize", args.source, path, *flags], check=True)
        ids = AutoTokenizer.from_pretrained(path)(args.text)["input_ids"]
        model = AutoModelForCausalLM.from_pretrained(path)
        model.eval()
        model = row_by_row(model) if args.type == "int8" else dequantize_linear4bit(model)
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].float()
        theirs = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        mine = torch.tensor(ours(args.nibble, path, ids))
        mine = mine[-len(theirs):]
        if args.type == "int8":
            # Codes of activations flip at the slightest difference, so two right ways drift apart as far as INT8 does
            # from 16 bits. Neither may be farther from those than the other.
            plain = torch.tensor(ours(args.nibble, f"{args.source},weights=bf16", ids))[-len(theirs):]
            away, theirs_away = float((mine - plain).abs().mean()), float((theirs - plain).abs().mean())
            print(f"{len(ids)} tokens: mean distance from 16 bits {away:.3f}, bitsandbytes' {theirs_away:.3f}")
            assert away <= 1.5 * theirs_away, "farther away than bitsandbytes"
        else:
            worst = float((mine - theirs).abs().max())
            print(f"{len(ids)} tokens: log probabilities differ by at most {worst:.2e}, bound 1e-4")
            assert worst <= 1e-4, "too far apart"
        if args.type != "int8":
            loss, trained = lora(path)
            print(f"peft: LoRA on q and v, loss {loss:.3f}, {trained} matrices have gradients")
    print("ok")


if __name__ == "__main__":
    main()
