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
  // How far each value may be off: see attention_cases.cc. Tensor cores' arithmetic unless exact.
  std::vector<float> Bounds(const std::vector<StepPart>& step, bool exact);

 private:
  struct Sequence {
    int64_t length = 0;
    std::vector<float> q, k, v;  // [length, cols], [length, kv_cols]
    std::vector<int32_t> pages;
  };
  static constexpr int64_t kLayers = 2;
  static constexpr int64_t kLayer = 1;

  // The cache as it is after the step's own keys and values were stored.
  std::vector<char> Image(const std::vector<StepPart>& step) const;
  KvCache CacheAt(void* data) const;
  double Key(const Sequence& sequence, int64_t position, int64_t column) const;
  double Value(const Sequence& sequence, int64_t position, int64_t column) const;
  void RowBounds(const Sequence& sequence, int64_t position, int64_t head, bool exact,
                 float* bounds) const;

  AttentionShape shape_;
  float scale_ = 1;
  int64_t num_pages_ = 0;
  std::vector<Sequence> sequences_;
  std::mt19937_64 random_;
};

// got[i] within bounds[i] of want[i]; prints the first that is not.
void ExpectWithin(std::span<const float> got, std::span<const float> want,
                  std::span<const float> bounds);

}  // namespace nibble::cuda
