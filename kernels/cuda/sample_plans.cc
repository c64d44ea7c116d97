// results := TokenLogprob sampled[plans], to a multiple of 256 bytes, TokenLogprob tops[...]
#include "kernels/cuda/sample_plans.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace nibble::cuda {
namespace {

constexpr auto kAnswerBytes = static_cast<int64_t>(sizeof(TokenLogprob));
constexpr int64_t kAlignment = 256;

int64_t TopsBegin(size_t num_plans) {
  const int64_t bytes = static_cast<int64_t>(num_plans) * kAnswerBytes;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// How many most likely tokens a plan wants and there are.
int32_t NumTop(const SamplingPlan& plan, int64_t vocab) {
  const int64_t limit = plan.vocab_limit > 0 ? std::min<int64_t>(plan.vocab_limit, vocab) : vocab;
  return static_cast<int32_t>(std::clamp<int64_t>(plan.num_logprobs, 0, limit));
}

// A list that several plans share an array for.
template <typename T>
class Lists {
 public:
  template <typename SpanOf>
  Lists(std::span<const SamplingPlan> plans, const SpanOf& span_of, StepInputs* inputs) {
    size_t total = 0;
    for (const SamplingPlan& plan : plans) total += span_of(plan).size();
    slot_ = inputs->Reserve(static_cast<int64_t>(total * sizeof(T)));
  }
  bool fits() const { return slot_.has_value(); }
  const T* device() const { return reinterpret_cast<const T*>(slot_->device); }
  void Append(std::span<const T> values, int32_t* first, int32_t* count) {
    *first = size_;
    *count = static_cast<int32_t>(values.size());
    if (!values.empty()) {
      std::memcpy(slot_->host + static_cast<size_t>(size_) * sizeof(T), values.data(),
                  values.size_bytes());
    }
    size_ += *count;
  }

 private:
  std::optional<StepInputs::Slot> slot_;
  int32_t size_ = 0;
};

bool IsGreedy(const SamplingPlan& plan) {
  return (plan.temperature == 0 || plan.forced_token >= 0) && plan.num_logprobs < 0;
}

DevicePlan ToDevice(const SamplingPlan& plan, int64_t vocab) {
  DevicePlan device = {};
  device.seed = plan.seed;
  device.row = plan.row;
  device.temperature = plan.temperature;
  device.top_k = plan.top_k;
  device.top_p = plan.top_p;
  device.min_p = plan.min_p;
  device.repetition_penalty = plan.repetition_penalty;
  device.frequency_penalty = plan.frequency_penalty;
  device.presence_penalty = plan.presence_penalty;
  device.index = plan.index;
  device.position = plan.position;
  device.num_logprobs = plan.num_logprobs < 0 ? -1 : NumTop(plan, vocab);
  device.vocab_limit = plan.vocab_limit;
  device.forced_token = plan.forced_token;
  return device;
}

}  // namespace

size_t PlansThatFit(std::span<const SamplingPlan> plans, int64_t vocab, int64_t bytes) {
  int64_t tops = 0;
  size_t count = 0;
  for (; count < plans.size(); ++count) {
    tops += NumTop(plans[count], vocab);
    if (TopsBegin(count + 1) + tops * kAnswerBytes > bytes) break;
  }
  return count;
}

int64_t ResultBytes(std::span<const SamplingPlan> plans, int64_t vocab) {
  int64_t tops = 0;
  for (const SamplingPlan& plan : plans) tops += NumTop(plan, vocab);
  return TopsBegin(plans.size()) + tops * kAnswerBytes;
}

std::optional<SamplingTask> AddPlans(std::span<const SamplingPlan> plans, int64_t vocab,
                                     char* results, StepInputs* inputs) {
  const auto slot = inputs->Reserve(static_cast<int64_t>(plans.size() * sizeof(DevicePlan)));
  Lists<TokenBias> biases(
      plans, [](const SamplingPlan& plan) { return plan.bias; }, inputs);
  Lists<TokenCount> counts(
      plans, [](const SamplingPlan& plan) { return plan.counts; }, inputs);
  Lists<int32_t> banned(
      plans, [](const SamplingPlan& plan) { return plan.banned; }, inputs);
  if (!slot.has_value() || !biases.fits() || !counts.fits() || !banned.fits()) return std::nullopt;
  SamplingTask task;
  task.greedy = std::all_of(plans.begin(), plans.end(), IsGreedy) ? 1 : 0;
  int32_t num_tops = 0;
  auto* const out = reinterpret_cast<DevicePlan*>(slot->host);
  for (size_t i = 0; i < plans.size(); ++i) {
    DevicePlan plan = ToDevice(plans[i], vocab);
    biases.Append(plans[i].bias, &plan.first_bias, &plan.num_bias);
    counts.Append(plans[i].counts, &plan.first_count, &plan.num_counts);
    banned.Append(plans[i].banned, &plan.first_banned, &plan.num_banned);
    plan.first_top = num_tops;
    num_tops += std::max(plan.num_logprobs, 0);
    task.max_top = std::max(task.max_top, plan.num_logprobs);
    out[i] = plan;
  }
  task.plans = reinterpret_cast<const DevicePlan*>(slot->device);
  task.biases = biases.device();
  task.counts = counts.device();
  task.banned = banned.device();
  task.sampled = reinterpret_cast<TokenLogprob*>(results);
  task.tops = reinterpret_cast<TokenLogprob*>(results + TopsBegin(plans.size()));
  task.num_plans = static_cast<int32_t>(plans.size());
  return task;
}

void ReadSampled(std::span<const SamplingPlan> plans, int64_t vocab, const char* results,
                 std::span<SampledToken> sampled) {
  const auto* const tokens = reinterpret_cast<const TokenLogprob*>(results);
  const auto* top = reinterpret_cast<const TokenLogprob*>(results + TopsBegin(plans.size()));
  for (size_t i = 0; i < plans.size(); ++i) {
    if (tokens[i].token < 0) {
      std::fprintf(stderr, "sample: every token is banned\n");
      std::abort();
    }
    sampled[i].token = tokens[i].token;
    if (plans[i].num_logprobs >= 0) sampled[i].logprob = tokens[i].logprob;
    const int32_t count = NumTop(plans[i], vocab);
    // The device says -1 where it ran out of tokens that may be told.
    const auto* const end =
        std::find_if(top, top + count, [](const TokenLogprob& each) { return each.token < 0; });
    sampled[i].top.assign(top, end);
    top += count;
  }
}

}  // namespace nibble::cuda
