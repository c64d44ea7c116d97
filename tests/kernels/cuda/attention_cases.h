// Sequences with queries and cached keys and values, from which steps are cut: the same positions
// in one step, in chunks or row by row. What a step may not read is NaN: slots past its sequences'
// ends, pages of nobody, and the page table past their pages.
#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "kernels/cuda/attention.h"
#include "kernels/kv_layout.h"

namespace nibble::cuda {

struct AttentionShape {
  DType dtype = DType::kF16;
  int64_t head_dim = 64;
  int64_t num_kv_heads = 1;
  int64_t group = 1;  // query heads to a KV head
  int64_t num_heads() const { return num_kv_heads * group; }
  int64_t cols() const { return num_heads() * head_dim; }
  int64_t kv_cols() const { return num_kv_heads * head_dim; }
};

// Positions start … start + rows - 1 of a sequence; 0 rows: an empty place in the step.
struct StepPart {
  int sequence = 0;
  int64_t start = 0;
  int64_t rows = 1;
};

inline constexpr float kUntouched = 12345.0f;

class AttentionCase {
 public:
  // size: the standard deviation of queries.
  AttentionCase(const AttentionShape& shape, const std::vector<int64_t>& lengths, uint64_t seed,
                float size = 1.0f);

  const AttentionShape& shape() const { return shape_; }
  float scale() const { return scale_; }
  // [rows of all parts, H·hd]; fails the test if a row of no sequence changed.
  std::vector<float> Attend(const std::vector<StepPart>& step, bool exact, int64_t max_context);
  std::vector<float> Reference(const std::vector<StepPart>& step);
  // How far each value may be off.
  std::vector<float> Bounds(const std::vector<StepPart>& step, bool exact);

 private:
  struct Sequence {
    int64_t length = 0;
    std::vector<float> q, k, v;  // [length, cols], [length, kv_cols]
    std::vector<double> stored_k, stored_v;
    std::vector<int32_t> pages;
  };
  static constexpr int64_t kLayers = 2;
  static constexpr int64_t kLayer = 1;

  // The cache as it is after the step's own keys and values were stored.
  std::vector<char> Image(const std::vector<StepPart>& step) const;
  KvCache CacheAt(void* data) const;

  AttentionShape shape_;
  float scale_ = 1;
  int64_t num_pages_ = 0;
  std::vector<Sequence> sequences_;
  std::mt19937_64 random_;
};

// The relative errors of rounding to 16 bits, 0 where nothing is rounded, and how far a weight
// below the type's normal range is off, of the row's largest.
struct AttentionRounding {
  double q = 0, k = 0, v = 0, weight = 0, weight_floor = 0;
};
// One query against `count` keys and values, `stride` apart.
struct BoundTask {
  const float* q = nullptr;  // [head_dim]
  const double* keys = nullptr;
  const double* values = nullptr;
  int64_t stride = 0;
  int64_t head_dim = 0;
  int64_t count = 0;
  double scale = 0;
};
// Appends how far each of the head_dim results may be off. With s the exact scores, A =
// scale·Σ|q·k|:
//   Δ = (u_q + u_k + (4·hd + 16)·2^-24)·max A + 2^-24·scale·max|q|·max Σ|k|
// bounds the error of a score: q and k rounded once (values 2^-14 below the row's largest lose
// more: the last term), sums of hd products in any order and with tensor cores that cut off bits,
// the scaling and the subtraction. A weight's relative error is then e^(2Δ) - 1 + u_p + 2^-21 (its
// rounding; exp2), and as much again in the denominator; a weight below 2^-14 of the largest is off
// by 2^-25 of it in fp16, which the denominator doubles, too. Values are rounded to u_v, those far
// below the largest to 2^-39 of it. Sums over n keys add n·2^-22.
void AddAttentionBounds(const BoundTask& task, const AttentionRounding& rounding,
                        std::vector<float>* bounds);

// got[i] within bounds[i] of want[i]; prints the first that is not.
void ExpectWithin(std::span<const float> got, std::span<const float> want,
                  std::span<const float> bounds);

}  // namespace nibble::cuda
