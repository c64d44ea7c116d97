// One function for each step of the contract's order: bias, penalties, temperature, top-k, top-p,
// min-p, draw. Knows no speed and no bound on memory.
#include "kernels/reference/sample.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <utility>
#include <vector>

namespace nibble::reference {
namespace {

struct Candidate {
  int32_t token = 0;
  double logit = 0;
  double mass = 0;  // exp(logit - largest logit): its share before dividing by the total
};

bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// A NaN logit counts as impossible.
std::vector<Candidate> CandidatesOf(std::span<const float> logits, int32_t limit) {
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto token = static_cast<int32_t>(i);
    if (limit > 0 && token >= limit) break;
    const double logit = std::isnan(logits[i]) ? -std::numeric_limits<double>::infinity()
                                               : static_cast<double>(logits[i]);
    candidates.push_back({token, logit});
  }
  return candidates;
}

double TotalMass(const std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.mass;
  return total;
}

void ComputeMasses(std::vector<Candidate>* candidates) {
  const double largest =
      std::min_element(candidates->begin(), candidates->end(), MoreLikely)->logit;
  for (Candidate& candidate : *candidates) candidate.mass = std::exp(candidate.logit - largest);
}

// log softmax of the raw logits over the whole row.
void ReportLogprobs(std::span<const float> logits, const SamplingPlan& plan,
                    SampledToken* sampled) {
  sampled->top.clear();
  if (plan.num_logprobs < 0) return;
  std::vector<Candidate> all = CandidatesOf(logits, 0);
  ComputeMasses(&all);
  std::vector<Candidate> sorted = all;
  std::sort(sorted.begin(), sorted.end(), MoreLikely);
  const double log_total = sorted.front().logit + std::log(TotalMass(all));
  const auto logprob = [&](const Candidate& c) { return static_cast<float>(c.logit - log_total); };

  sampled->logprob = logprob(all[static_cast<size_t>(sampled->token)]);
  for (const Candidate& candidate : sorted) {
    if (static_cast<int32_t>(sampled->top.size()) == plan.num_logprobs) break;
    if (plan.vocab_limit > 0 && candidate.token >= plan.vocab_limit) continue;
    sampled->top.push_back({candidate.token, logprob(candidate)});
  }
}

void AddBias(const SamplingPlan& plan, std::vector<Candidate>* candidates) {
  for (const TokenBias& bias : plan.bias) {
    const auto token = static_cast<size_t>(bias.token);
    if (token < candidates->size()) (*candidates)[token].logit += static_cast<double>(bias.bias);
  }
}

void Penalize(const SamplingPlan& plan, std::vector<Candidate>* candidates) {
  const auto repetition = static_cast<double>(plan.repetition_penalty);
  for (const TokenCount& count : plan.counts) {
    const auto token = static_cast<size_t>(count.token);
    if (token >= candidates->size()) continue;
    double& logit = (*candidates)[token].logit;
    logit = logit > 0 ? logit / repetition : logit * repetition;
    logit -= static_cast<double>(plan.frequency_penalty) * count.output_count;
    if (count.output_count > 0) logit -= static_cast<double>(plan.presence_penalty);
  }
}

void RemoveBanned(const SamplingPlan& plan, std::vector<Candidate>* candidates) {
  std::erase_if(*candidates, [&](const Candidate& candidate) {
    return std::find(plan.banned.begin(), plan.banned.end(), candidate.token) != plan.banned.end();
  });
  if (candidates->empty()) {
    std::fprintf(stderr, "sample: every token is banned\n");
    std::abort();
  }
}

void KeepTopK(int32_t top_k, std::vector<Candidate>* sorted) {
  if (top_k > 0 && static_cast<size_t>(top_k) < sorted->size()) {
    sorted->resize(static_cast<size_t>(top_k));
  }
}

// The smallest set of most likely tokens whose share reaches top_p.
void KeepTopP(float top_p, std::vector<Candidate>* sorted) {
  if (top_p >= 1) return;
  const double wanted = static_cast<double>(top_p) * TotalMass(*sorted);
  double mass = 0;
  size_t kept = 0;
  while (kept < sorted->size() && (kept == 0 || mass < wanted)) mass += (*sorted)[kept++].mass;
  sorted->resize(kept);
}

// The largest mass is 1.
void KeepMinP(float min_p, std::vector<Candidate>* sorted) {
  std::erase_if(*sorted, [&](const Candidate& c) { return c.mass < static_cast<double>(min_p); });
}

// Ascending ids, until the mass so far passes u of the whole.
int32_t Draw(double u, std::vector<Candidate> kept) {
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  const double target = u * TotalMass(kept);
  double mass = 0;
  for (const Candidate& candidate : kept) {
    mass += candidate.mass;
    if (mass > target) return candidate.token;
  }
  return kept.back().token;
}

int32_t Choose(std::span<const float> logits, const SamplingPlan& plan) {
  std::vector<Candidate> candidates = CandidatesOf(logits, plan.vocab_limit);
  AddBias(plan, &candidates);
  Penalize(plan, &candidates);
  RemoveBanned(plan, &candidates);
  if (plan.temperature > 0) {
    for (Candidate& candidate : candidates) {
      candidate.logit /= static_cast<double>(plan.temperature);
    }
  }
  std::sort(candidates.begin(), candidates.end(), MoreLikely);
  // Where the largest logit is infinite there are no masses to draw by.
  if (plan.temperature == 0 || std::isinf(candidates.front().logit)) {
    return candidates.front().token;
  }

  KeepTopK(plan.top_k, &candidates);
  ComputeMasses(&candidates);
  KeepTopP(plan.top_p, &candidates);
  KeepMinP(plan.min_p, &candidates);
  const float u = UniformDraw(plan.seed, plan.index, plan.position);
  return Draw(static_cast<double>(u), std::move(candidates));
}

}  // namespace

void SampleOne(std::span<const float> logits, const SamplingPlan& plan, SampledToken* sampled) {
  sampled->token = plan.forced_token >= 0 ? plan.forced_token : Choose(logits, plan);
  ReportLogprobs(logits, plan, sampled);
}

}  // namespace nibble::reference
