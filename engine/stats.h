// What the engine counts, as plain data: the door turns it into metrics. Published once per step.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/memory/ledger.h"
#include "engine/request.h"

namespace nibble {

// Cumulative counts per upper bound; the last bucket is +Inf. Bounds are fixed at construction.
class Histogram {
 public:
  explicit Histogram(const std::vector<double>& bounds)
      : bounds_(&bounds), counts_(bounds.size() + 1) {}
  void Observe(double value, int64_t times = 1);
  const std::vector<double>& bounds() const { return *bounds_; }
  const std::vector<int64_t>& counts() const { return counts_; }  // per bucket, not cumulative
  double sum() const { return sum_; }
  int64_t count() const { return count_; }

 private:
  const std::vector<double>* bounds_;  // static storage
  std::vector<int64_t> counts_;
  double sum_ = 0;
  int64_t count_ = 0;
};

const std::vector<double>&
LatencyBounds();  // seconds, from 0.5 ms; contains OpenTelemetry's boundaries
const std::vector<double>& CountBounds();  // 1 · 4^k, to 4^10

// Of one model; index by Operation where an array has two.
struct ModelStats {
  Histogram time_to_first_token{LatencyBounds()};
  Histogram inter_token_latency{LatencyBounds()};
  std::array<Histogram, 2> e2e_latency{Histogram{LatencyBounds()}, Histogram{LatencyBounds()}};
  std::array<Histogram, 2> queue_time{Histogram{LatencyBounds()}, Histogram{LatencyBounds()}};
  Histogram prefill_time{LatencyBounds()};
  Histogram decode_time{LatencyBounds()};
  std::map<std::string, Histogram> step_seconds;  // by phase: "prefill", "decode", "mixed", "embed"
  std::array<Histogram, 2> prompt_tokens{Histogram{CountBounds()}, Histogram{CountBounds()}};
  Histogram generation_tokens{CountBounds()};
  Histogram step_rows{CountBounds()};
  std::map<std::string, int64_t> finished;  // by reason: stop, length, cancelled, deadline, error
  std::array<int64_t, 2> prompt_tokens_total{};
  int64_t generation_tokens_total = 0;
  int64_t preemptions_total = 0;
  std::map<std::string, int64_t> gemm_calls;  // by path: "nf4", "fp4", "int8", "bf16", "fp16"
  std::array<int64_t, 2> running{};
  std::array<int64_t, 2> waiting{};
  double kv_usage_ratio = 0;  // pages in use / pages
};

struct EngineStats {
  std::map<std::string, ModelStats> models;
  std::vector<Ledger::Entry> memory;
  std::string device;
  int64_t memory_budget_bytes = 0;
};

}  // namespace nibble
