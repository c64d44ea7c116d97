#!/usr/bin/env python3
"""A crowd of real grpcio clients against a running server: 64 streams and 16 Embed calls at once, with health,
reflection and metrics read meanwhile. Every stream's tokens must equal its solo run, and the metrics must say exactly
what the clients saw.

usage: crowd.py [--target 127.0.0.1:50051] [--metrics http://127.0.0.1:9464/metrics] [--streams 64] [--embeds 16]
Needs: grpcio, grpcio-tools, grpcio-health-checking, grpcio-reflection, protobuf (PyPI). The server must be otherwise
idle and serve one generative and one embedding model.
"""
import argparse
import concurrent.futures
import pathlib
import random
import sys
import tempfile
import time
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def stubs():
    """The contract's protos as Python, made in a temporary folder."""
    out = tempfile.mkdtemp()
    protos = [str(p) for p in (ROOT / "proto/nibble/v1").glob("*.proto")]
    code = protoc.main(["protoc", f"-I{ROOT}/proto", f"--python_out={out}", f"--grpc_python_out={out}", *protos])
    if code != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, out)


def metrics(url):
    values = {}
    for line in urllib.request.urlopen(url).read().decode().splitlines():
        if line and not line.startswith("#"):
            key, value = line.rsplit(" ", 1)
            values[key] = float(value)
    return values


def total(values, name, **labels):
    wanted = [f'{k}="{v}"' for k, v in labels.items()]
    return sum(v for k, v in values.items() if k.split("{")[0] == name and all(w in k for w in wanted))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", default="127.0.0.1:50051")
    parser.add_argument("--metrics", default="http://127.0.0.1:9464/metrics")
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--embeds", type=int, default=16)
    args = parser.parse_args()
    stubs()
    from nibble.v1 import inference_pb2 as pb, inference_pb2_grpc, models_pb2, models_pb2_grpc

    channel = grpc.insecure_channel(args.target)
    inference = inference_pb2_grpc.InferenceStub(channel)
    models = models_pb2_grpc.ModelsStub(channel).ListModels(models_pb2.ListModelsRequest()).models
    writer = next(m.name for m in models if m.can_generate)
    embedder = next(m.name for m in models if m.can_embed)
    print(f"generate with {writer}, embed with {embedder}")

    rng = random.Random(5)
    topics = ["rain", "a lighthouse", "bread", "prime numbers", "the moon", "a slow train", "glass", "honey bees"]

    def request(i):
        sampled = i % 2 == 1
        return pb.GenerateRequest(
            model=writer,
            chat=pb.Chat(messages=[pb.ChatMessage(role="user", content=f"Write {i + 2} words about {topics[i % 8]}.")]),
            sampling=pb.Sampling(temperature=0.8 if sampled else 0.0, top_p=0.9, seed=i),
            stopping=pb.Stopping(max_tokens=rng.randint(8, 48)),
            output=pb.Output(token_ids=True))

    def stream(message):
        ids, text, last, first_at, start = [], "", None, None, time.perf_counter()
        for piece in inference.Generate(message):
            first_at = first_at or time.perf_counter()
            ids += piece.token_ids
            text += piece.text
            last = piece
        assert last.finish_reason != 0, "a stream ended without a finish reason"
        return ids, text, last, first_at - start

    texts = ["", "é", "A cat sleeps.", "中文句子", "long " * 60]

    def embed(i):
        return inference.Embed(pb.EmbedRequest(model=embedder, inputs=[pb.EmbedInput(text=texts[(i + j) % 5])
                                                                      for j in range(4)]))

    messages = [request(i) for i in range(args.streams)]
    solo = [stream(m) for m in messages[: min(16, args.streams)]]
    solo_embeds = [embed(i) for i in range(min(5, args.embeds))]

    before = metrics(args.metrics)
    started = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(args.streams + args.embeds) as pool:
        streams = [pool.submit(stream, m) for m in messages]
        embeds = [pool.submit(embed, i) for i in range(args.embeds)]
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "nibble.v1.Inference", f"nibble.v1.Inference/{writer}"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING, (name, status)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="nibble.v1.Inference"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert {"nibble.v1.Inference", "nibble.v1.Models", "nibble.v1.Control"} <= set(services), services
        busiest = 0.0
        while not all(f.done() for f in streams):
            busiest = max(busiest, total(metrics(args.metrics), "nibble_num_requests_running", op="generate"))
            time.sleep(0.05)
        crowd = [f.result() for f in streams]
        crowd_embeds = [f.result() for f in embeds]
    seconds = time.perf_counter() - started

    for i, (alone, together) in enumerate(zip(solo, crowd)):
        assert list(alone[0]) == list(together[0]), f"stream {i}: tokens differ from the solo run"
        assert alone[1] == together[1], f"stream {i}: text differs from the solo run"
    for i, (alone, together) in enumerate(zip(solo_embeds, crowd_embeds)):
        for a, b in zip(alone.embeddings, together.embeddings):
            assert list(a.values) == list(b.values), f"embed {i}: vectors differ from the solo run"

    after = metrics(args.metrics)

    def grew(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)

    completion = sum(last.usage.completion_tokens for _, _, last, _ in crowd)
    prompts = sum(last.usage.prompt_tokens for _, _, last, _ in crowd)
    checks = {
        "requests_total generate OK": (grew("nibble_requests_total", op="generate", code="OK"), args.streams),
        "requests_total embed OK": (grew("nibble_requests_total", op="embed", code="OK"), args.embeds),
        "generation_tokens_total": (grew("nibble_generation_tokens_total", model=writer), completion),
        "prompt_tokens_total generate": (grew("nibble_prompt_tokens_total", op="generate"), prompts),
        "prompt_tokens_total embed": (grew("nibble_prompt_tokens_total", op="embed"),
                                      sum(r.usage.prompt_tokens for r in crowd_embeds)),
        "time_to_first_token count": (grew("nibble_time_to_first_token_seconds_count"), args.streams),
        "inter_token count": (grew("nibble_inter_token_latency_seconds_count"), completion - args.streams),
        "e2e generate count": (grew("nibble_e2e_request_latency_seconds_count", op="generate"), args.streams),
        "finished": (grew("nibble_finished_total", model=writer), args.streams),
    }
    for name, (got, wanted) in checks.items():
        print(f"  {name}: {got:g}" + ("" if got == wanted else f"  WANTED {wanted:g}"))
        assert got == wanted, name
    reported = sum(last.timing.time_to_first_token_ms for _, _, last, _ in crowd) / 1e3
    counted = grew("nibble_time_to_first_token_seconds_sum")
    assert abs(reported - counted) < 0.02 * counted + 0.001, (reported, counted)
    assert total(after, "nibble_num_requests_running") == 0 and total(after, "nibble_kv_cache_usage_ratio") == 0
    print(f"{args.streams} streams and {args.embeds} Embed calls in {seconds:.2f} s: {completion / seconds:.0f} tokens/s, "
          f"at most {busiest:g} running at once; equal to their solo runs; metrics agree")


if __name__ == "__main__":
    main()
