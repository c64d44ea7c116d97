// Sampling in as few passes over the vocabulary as the plan allows: nothing is sorted but what may
// be kept. Values are fp32 by the ISA row's exp; probability masses that are compared or walked are
// whole numbers of 2^-40, so that no sum depends on its order.
#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "kernels/cpu/packing.h"

namespace nibble {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();

struct Candidate {
  float value;  // a logit, or e^(logit - largest)
  int32_t token;
};

bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.value != b.value ? a.value > b.value : a.token < b.token;
}
bool LowerToken(const Candidate& a, const Candidate& b) { return a.token < b.token; }

// e^(logit - largest) in [0, 1] as a whole number. A vocabulary of 2^20 keeps sums below 2^61.
uint64_t Mass(float value) { return static_cast<uint64_t>(static_cast<double>(value) * 0x1p40); }

uint64_t TotalMass(std::span<const Candidate> candidates) {
  uint64_t total = 0;
  for (const Candidate& candidate : candidates) total += Mass(candidate.value);
  return total;
}

// ln(x), x > 0 and normal, within 1e-15: x = m·2^e, ln m = 2·artanh((m-1)/(m+1)).
double Log(double x) {
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & ((uint64_t{1} << 52) - 1)) | uint64_t{1023} << 52);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1);
  double sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * (s * s) + 1.0 / i;
  return 2 * s * sum + static_cast<double>(exponent) * 0.6931471805599453;
}

// One worker's memory for one row of logits.
struct Workspace {
  float* logits;          // [vocab] after bias, penalties and bans
  float* exps;            // [vocab]
  float* sums;            // [vocab / 1024], or 16 maxima for each
  int32_t* indices;       // [vocab]
  Candidate* candidates;  // [vocab]

  static int64_t SumFloats(int64_t vocab) { return CeilDiv(vocab, kSumBlock) * kLanes; }
  static int64_t Bytes(int64_t vocab) {
    return AlignScratch(vocab * 4) * 3 + AlignScratch(SumFloats(vocab) * 4) +
           AlignScratch(vocab * int64_t{sizeof(Candidate)});
  }
  Workspace(char* memory, int64_t vocab) {
    const int64_t row = AlignScratch(vocab * 4);
    logits = reinterpret_cast<float*>(memory);
    exps = reinterpret_cast<float*>(memory + row);
    indices = reinterpret_cast<int32_t*>(memory + 2 * row);
    sums = reinterpret_cast<float*>(memory + 3 * row);
    candidates =
        reinterpret_cast<Candidate*>(memory + 3 * row + AlignScratch(SumFloats(vocab) * 4));
  }
};

// The arithmetic on one row.
class RowSampler {
 public:
  RowSampler(const IsaTable& isa, const float* raw, int64_t vocab, char* memory)
      : isa_(isa), raw_(raw), vocab_(vocab), work_(memory, vocab) {}

  void Run(const SamplingPlan& plan, SampledToken* sampled) {
    sampled->token = plan.forced_token >= 0 ? plan.forced_token : Pick(plan);
    sampled->top.clear();
    if (plan.num_logprobs >= 0) ReportLogprobs(plan, sampled);
  }

 private:
  int64_t Limit(const SamplingPlan& plan) const {
    return plan.vocab_limit > 0 ? std::min<int64_t>(plan.vocab_limit, vocab_) : vocab_;
  }

  int32_t Pick(const SamplingPlan& plan) {
    const int64_t n = Limit(plan);
    const float* x = Edited(plan, n);
    const float max = isa_.max_value(x, n);
    if (max == kImpossible) return FirstAllowed(plan, n);
    if (plan.temperature == 0 || max == -kImpossible) {
      return static_cast<int32_t>(isa_.find(x, n, max));
    }
    // A temperature so small that its inverse overflows leaves only the largest logits.
    const float factor = std::min(1.0f / plan.temperature, std::numeric_limits<float>::max());
    if (plan.top_k > 0 && plan.top_k < n) return PickOfTopK(plan, x, n, max, factor);
    const double total = Exponentials(x, n, max, factor);
    if (plan.top_p >= 1 && plan.min_p <= 0) return DrawOfAll(plan, n, total);
    const int64_t count = LikelyCandidates(plan, n, total);
    return DrawOfCandidates(plan, count, total);
  }

  // The row after bias, penalties and bans; the raw row itself if there are none.
  const float* Edited(const SamplingPlan& plan, int64_t n) {
    const bool penalized =
        plan.repetition_penalty != 1 || plan.frequency_penalty != 0 || plan.presence_penalty != 0;
    if (plan.bias.empty() && plan.banned.empty() && !penalized) return raw_;
    std::copy(raw_, raw_ + n, work_.logits);
    for (const TokenBias& bias : plan.bias) {
      if (bias.token >= 0 && bias.token < n) work_.logits[bias.token] += bias.bias;
    }
    if (penalized) {
      for (const TokenCount& count : plan.counts) {
        if (count.token >= 0 && count.token < n) Penalize(plan, count);
      }
    }
    for (const int32_t token : plan.banned) {
      if (token >= 0 && token < n) work_.logits[token] = kImpossible;
    }
    return work_.logits;
  }

  void Penalize(const SamplingPlan& plan, const TokenCount& count) {
    float& logit = work_.logits[count.token];
    logit = logit > 0 ? logit / plan.repetition_penalty : logit * plan.repetition_penalty;
    logit -= plan.frequency_penalty * static_cast<float>(count.output_count);
    if (count.output_count > 0) logit -= plan.presence_penalty;
  }

  // Every logit is impossible: the lowest token that is not banned.
  int32_t FirstAllowed(const SamplingPlan& plan, int64_t n) const {
    for (int32_t token = 0; token < n; ++token) {
      if (std::find(plan.banned.begin(), plan.banned.end(), token) == plan.banned.end()) {
        return token;
      }
    }
    std::fprintf(stderr, "sample: every token is banned\n");
    std::abort();
  }

  // Fills exps and sums; returns the total. A NaN logit counts as impossible; where the largest
  // logit is infinite the total is NaN.
  double Exponentials(const float* x, int64_t n, float max, float factor) {
    const double total = SumExponentials(x, n, max, factor);
    if (!std::isnan(total)) return total;
    for (int64_t i = 0; i < n; ++i) work_.logits[i] = std::isnan(x[i]) ? kImpossible : x[i];
    return SumExponentials(work_.logits, n, max, factor);
  }

  double SumExponentials(const float* x, int64_t n, float max, float factor) {
    isa_.exp_sums(x, n, max, factor, work_.exps, work_.sums);
    double total = 0;
    for (int64_t b = 0; b < CeilDiv(n, kSumBlock); ++b) total += static_cast<double>(work_.sums[b]);
    return total;
  }

  // The k most likely of x[0 .. n), unordered; ties: lowest token. k < n. Every one of the k
  // largest reaches the k-th largest of any values of x, and maxima of parts are good such values.
  int64_t TopK(const float* x, int64_t n, int64_t k) {
    const int64_t maxima = CeilDiv(n, kSumBlock) * kLanes;
    float threshold = kImpossible;
    if (k <= maxima) {
      isa_.lane_maxima(x, n, work_.sums);
      std::nth_element(work_.sums, work_.sums + (k - 1), work_.sums + maxima, std::greater<>());
      threshold = work_.sums[k - 1];
    }
    const int64_t count = isa_.select(x, n, threshold, work_.indices);
    for (int64_t i = 0; i < count; ++i) {
      work_.candidates[i] = {x[work_.indices[i]], work_.indices[i]};
    }
    if (count <= k) return count;
    std::nth_element(work_.candidates, work_.candidates + k, work_.candidates + count, MoreLikely);
    return k;
  }

  int32_t PickOfTopK(const SamplingPlan& plan, const float* x, int64_t n, float max, float factor) {
    const int64_t count = TopK(x, n, plan.top_k);
    for (int64_t i = 0; i < count; ++i) work_.exps[i] = work_.candidates[i].value;
    isa_.exp_sums(work_.exps, count, max, factor, work_.exps, work_.sums);
    for (int64_t i = 0; i < count; ++i) work_.candidates[i].value = work_.exps[i];
    const uint64_t total = TotalMass({work_.candidates, static_cast<size_t>(count)});
    return DrawOfCandidates(plan, count, static_cast<double>(total) * 0x1p-40);
  }

  // Candidates that hold everything top-p and min-p can keep: all that reach a threshold, lowered
  // until their mass suffices; without top-p, all that reach min-p.
  int64_t LikelyCandidates(const SamplingPlan& plan, int64_t n, double total) {
    const double wanted = static_cast<double>(plan.top_p) * total;
    for (float threshold = 0x1p-4f;; threshold *= 0x1p-4f) {
      const bool all = threshold < 0x1p-40f || plan.top_p >= 1;
      const float lowest = std::max(all ? 0.0f : threshold, plan.min_p);
      const int64_t count = isa_.select(work_.exps, n, lowest, work_.indices);
      for (int64_t i = 0; i < count; ++i) {
        work_.candidates[i] = {work_.exps[work_.indices[i]], work_.indices[i]};
      }
      const std::span<const Candidate> found(work_.candidates, static_cast<size_t>(count));
      if (all || lowest > threshold || static_cast<double>(TotalMass(found)) * 0x1p-40 >= wanted) {
        return count;
      }
    }
  }

  // Of candidates with masses: top-p of `total`, min-p, draw.
  int32_t DrawOfCandidates(const SamplingPlan& plan, int64_t count, double total) {
    if (plan.top_p < 1) {
      count =
          KeepTopP(static_cast<uint64_t>(static_cast<double>(plan.top_p) * total * 0x1p40), count);
    }
    Candidate* const end = std::remove_if(work_.candidates, work_.candidates + count,
                                          [&](const Candidate& c) { return c.value < plan.min_p; });
    std::sort(work_.candidates, end, LowerToken);
    const std::span<const Candidate> kept(work_.candidates, end);
    const auto u = static_cast<uint64_t>(
        static_cast<double>(UniformDraw(plan.seed, plan.index, plan.position)) * 0x1p24);
    const auto target =
        static_cast<uint64_t>(static_cast<unsigned __int128>(TotalMass(kept)) * u >> 24);
    uint64_t mass = 0;
    for (const Candidate& candidate : kept) {
      mass += Mass(candidate.value);
      if (mass > target) return candidate.token;
    }
    return kept.back().token;
  }

  // The fewest most likely candidates whose mass reaches `wanted`, by halving: the more likely half
  // is either enough, or kept whole.
  int64_t KeepTopP(uint64_t wanted, int64_t count) {
    Candidate* const c = work_.candidates;
    int64_t low = 0, high = count;
    uint64_t mass = 0;  // of [0, low)
    while (high - low > 32) {
      const int64_t middle = low + (high - low) / 2;
      std::nth_element(c + low, c + middle, c + high, MoreLikely);
      const uint64_t half = TotalMass({c + low, c + middle});
      if (mass + half >= wanted) {
        high = middle;
      } else {
        mass += half;
        low = middle;
      }
    }
    std::sort(c + low, c + high, MoreLikely);
    while (low < high && (low == 0 || mass < wanted)) mass += Mass(c[low++].value);
    return low;
  }

  // Everything is kept: whole blocks of the vocabulary are walked first.
  int32_t DrawOfAll(const SamplingPlan& plan, int64_t n, double total) {
    const double u = static_cast<double>(UniformDraw(plan.seed, plan.index, plan.position));
    const double target = u * total;
    double mass = 0;
    int64_t block = 0;
    while ((block + 1) * kSumBlock < n && mass + static_cast<double>(work_.sums[block]) <= target) {
      mass += static_cast<double>(work_.sums[block++]);
    }
    int32_t last = 0;  // the last possible one, should rounding leave the target unreached
    for (int64_t i = block * kSumBlock; i < std::min(n, (block + 1) * kSumBlock); ++i) {
      if (work_.exps[i] == 0) continue;
      mass += static_cast<double>(work_.exps[i]);
      last = static_cast<int32_t>(i);
      if (mass > target) break;
    }
    return last;
  }

  // log softmax of the raw row over the whole vocabulary.
  void ReportLogprobs(const SamplingPlan& plan, SampledToken* sampled) {
    const double max = static_cast<double>(isa_.max_value(raw_, vocab_));
    const double log_total = max + Log(Exponentials(raw_, vocab_, static_cast<float>(max), 1.0f));
    const auto logprob = [&](float logit) {
      return std::isnan(logit) ? kImpossible
                               : static_cast<float>(static_cast<double>(logit) - log_total);
    };
    sampled->logprob = logprob(raw_[sampled->token]);
    const int64_t n = Limit(plan);
    const int64_t k = std::min<int64_t>(plan.num_logprobs, n);
    if (k == 0) return;
    const int64_t count = TopK(raw_, n, k);
    std::sort(work_.candidates, work_.candidates + count, MoreLikely);
    for (int64_t i = 0; i < count; ++i) {
      const Candidate& candidate = work_.candidates[i];
      sampled->top.push_back({candidate.token, logprob(candidate.value)});
    }
  }

  const IsaTable& isa_;
  const float* const raw_;
  const int64_t vocab_;
  Workspace work_;
};

}  // namespace

int64_t SamplingScratchBytes(const BackendLimits& limits, int num_threads) {
  if (limits.max_samples == 0) return 0;
  return AlignScratch(Workspace::Bytes(limits.max_vocab)) * num_threads;
}

void CpuSample(const CpuContext& context, const Activations& logits,
               std::span<const SamplingPlan> plans, std::span<SampledToken> sampled) {
  const int64_t num_plans = static_cast<int64_t>(plans.size());
  context.Run(num_plans, num_plans * logits.cols, [&](int64_t i, int worker) {
    const SamplingPlan& plan = plans[static_cast<size_t>(i)];
    char* memory = context.WorkerScratch(worker, Workspace::Bytes(logits.cols));
    RowSampler(*context.isa, logits.Row(plan.row), logits.cols, memory)
        .Run(plan, &sampled[static_cast<size_t>(i)]);
  });
}

}  // namespace nibble
