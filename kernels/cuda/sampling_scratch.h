// What the kernels of sampling leave for each other, and where. Knows no kernel.
//
//   scratch := rows maxima[2] slices[2] sums[2]    each aligned to 256; [2]: of both views
//   rows    := [plans][vocab rounded up to 64] fp32   the row after bias, penalties and bans, for
//                                                     plans that have any
//   maxima  := [plans][ceil(vocab / 128)] fp32        the largest of each part; a NaN counts as
//   -inf slices  := [plans][ceil(vocab / 2048)] fp32       the largest of each slice sums    :=
//   [plans][ceil(vocab / 1024)] fp32       of e^((x - largest)·factor)
//
// The views of a plan: what it picks from (edited, tokens below its limit), and the raw row, of
// which logprobs are. More plans than fit into kGroupBytes are worked off group by group.
#pragma once

#include <cstdint>

namespace nibble::cuda {

inline constexpr int64_t kPartTokens = 128;
inline constexpr int64_t kSliceTokens = 2048;
inline constexpr int64_t kSumTokens = 1024;  // kSumBlock of kernels/cpu: its order of additions
inline constexpr int64_t kGroupBytes = 64 << 20;

enum View : int32_t { kPicked = 0, kRaw = 1 };
inline constexpr int kNumViews = 2;

// Plain data without padding: a kernel's parameter.
struct SamplingScratch {
  float* rows;
  float* maxima[kNumViews];
  float* slices[kNumViews];
  float* sums[kNumViews];
  int64_t row_stride;
  int64_t num_parts;
  int64_t num_slices;
  int64_t num_sums;
  int64_t bytes;  // of all of it
};

// A row of logits that a plan looks at.
struct SamplingRow {
  const float* logits;
  int32_t count;    // tokens below it only
  int32_t aligned;  // to 16 bytes
};

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

inline SamplingScratch ScratchOf(char* memory, int64_t plans, int64_t vocab) {
  SamplingScratch scratch = {};
  scratch.row_stride = RoundUp(vocab, 64);
  scratch.num_parts = RoundUp(vocab, kPartTokens) / kPartTokens;
  scratch.num_slices = RoundUp(vocab, kSliceTokens) / kSliceTokens;
  scratch.num_sums = RoundUp(vocab, kSumTokens) / kSumTokens;
  const auto take = [&](int64_t floats_of_a_plan) {
    const uintptr_t begin =
        reinterpret_cast<uintptr_t>(memory) + static_cast<uintptr_t>(scratch.bytes);
    scratch.bytes += RoundUp(plans * floats_of_a_plan * 4, 256);
    return reinterpret_cast<float*>(begin);
  };
  scratch.rows = take(scratch.row_stride);
  for (float*& maxima : scratch.maxima) maxima = take(scratch.num_parts);
  for (float*& slices : scratch.slices) slices = take(scratch.num_slices);
  for (float*& sums : scratch.sums) sums = take(scratch.num_sums);
  return scratch;
}

// Plans worked on at once.
inline int64_t GroupSize(int64_t plans, int64_t vocab) {
  const int64_t fit = kGroupBytes / ScratchOf(nullptr, 1, vocab).bytes;
  return fit < 1 ? 1 : fit < plans ? fit : plans;
}

}  // namespace nibble::cuda
