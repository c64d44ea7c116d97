// Attention of packed sequences against the oracle, with keys and values far outside fp16, and a
// sequence's independence of its neighbours.
#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/reference/attention.h"
#include "tests/kernels/cuda/attention_cases.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

class CudaEncoder : public CudaTest {};

struct EncoderShape {
  int64_t head_dim = 64;
  int64_t num_heads = 1;
  std::vector<int64_t> lengths;
  float q_size = 1, k_size = 1, v_size = 1;
  int64_t cols() const { return head_dim * num_heads; }
};

// Rows [q | k | v] of all sequences, a row of none after each.
class EncoderCase {
 public:
  EncoderCase(const EncoderShape& shape, uint64_t seed) : shape_(shape) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal;
    for (const int64_t length : shape.lengths) {
      sequences_.push_back({num_rows_, length, 0, nullptr});
      num_rows_ += length + 1;
    }
    const float sizes[] = {shape.q_size, shape.k_size, shape.v_size};
    for (int64_t i = 0; i < num_rows_ * Stride(); ++i) {
      const float value = normal(random) * sizes[i % Stride() / shape.cols()];
      // Some are far smaller than the others, some of v far larger.
      const bool outlier = i % Stride() >= 2 * shape.cols() && random() % 64 == 0;
      rows_.push_back(outlier ? value * 1e4f : random() % 16 == 0 ? value * 1e-4f : value);
    }
    for (const SequenceRows& s : sequences_) {
      float* const none = rows_.data() + (s.first_row + s.num_rows) * Stride();
      std::fill_n(none, Stride(), NAN);
    }
  }

  std::vector<float> Attend(bool exact) const {
    std::vector<DeviceSequence> sequences;
    std::vector<RowPlace> places(static_cast<size_t>(num_rows_), RowPlace{-1, 0});
    int32_t max_rows = 0;
    for (const SequenceRows& s : sequences_) {
      for (int64_t i = 0; i < s.num_rows; ++i) {
        places[static_cast<size_t>(s.first_row + i)] = {static_cast<int32_t>(sequences.size()),
                                                        static_cast<int32_t>(i)};
      }
      sequences.push_back(
          {static_cast<int32_t>(s.first_row), static_cast<int32_t>(s.num_rows), 0, 0});
      max_rows = std::max(max_rows, static_cast<int32_t>(s.num_rows));
    }
    const DeviceArray<DeviceSequence> device_sequences(sequences);
    const DeviceArray<RowPlace> device_places(places);
    const DeviceArray<float> rows(rows_);
    const DeviceArray<float> out(
        std::vector<float>(static_cast<size_t>(num_rows_ * shape_.cols()), kUntouched));
    Tape tape;
    EncoderAttention(
        &tape, {exact, 0, nullptr}, Part(rows.data(), 0), Part(rows.data(), 1),
        Part(rows.data(), 2),
        {device_sequences.data(), device_places.data(), nullptr,
         static_cast<int32_t>(sequences.size()), static_cast<int32_t>(num_rows_), 0, max_rows},
        shape_.num_heads, Scale(), {out.data(), num_rows_, shape_.cols(), shape_.cols()});
    Play(tape);
    return out.Get();
  }
  std::vector<float> Reference() {
    std::vector<float> out(static_cast<size_t>(num_rows_ * shape_.cols()), kUntouched);
    for (const SequenceRows& s : sequences_) {
      if (s.num_rows == 0) continue;
      reference::EncoderAttention(Part(rows_.data(), 0), Part(rows_.data(), 1),
                                  Part(rows_.data(), 2), {&s, 1}, shape_.num_heads, Scale(),
                                  {out.data(), num_rows_, shape_.cols(), shape_.cols()});
    }
    return out;
  }
  std::vector<float> Bounds(bool exact) const {
    AttentionRounding rounding;
    if (!exact && shape_.head_dim % 16 == 0) {
      rounding.q = rounding.k = rounding.v = rounding.weight = std::ldexp(1, -11);
      rounding.weight_floor = std::ldexp(1, -24);
    }
    const std::vector<double> values(rows_.begin(), rows_.end());
    std::vector<float> bounds;
    for (const SequenceRows& s : sequences_) {
      const double* const first = values.data() + s.first_row * Stride();
      for (int64_t i = 0; i < s.num_rows * shape_.num_heads; ++i) {
        const int64_t column = i % shape_.num_heads * shape_.head_dim;
        const int64_t row = s.first_row + i / shape_.num_heads;
        AddAttentionBounds({rows_.data() + row * Stride() + column, first + shape_.cols() + column,
                            first + 2 * shape_.cols() + column, Stride(), shape_.head_dim,
                            s.num_rows, static_cast<double>(Scale())},
                           rounding, &bounds);
      }
      bounds.resize(bounds.size() + static_cast<size_t>(shape_.cols()), 0.0f);  // the row of none
    }
    return bounds;
  }

 private:
  int64_t Stride() const { return 3 * shape_.cols(); }
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)); }
  Activations Part(float* rows, int64_t part) const {
    return {rows + part * shape_.cols(), num_rows_, shape_.cols(), Stride()};
  }

  EncoderShape shape_;
  std::vector<SequenceRows> sequences_;
  std::vector<float> rows_;
  int64_t num_rows_ = 0;
};

int64_t Pick(std::mt19937_64* random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(*random);
}

void ExpectRandomBatches(int num_batches, bool exact, uint64_t seed) {
  std::mt19937_64 random(seed);
  for (int i = 0; i < num_batches; ++i) {
    EncoderShape shape;
    const int64_t widest = i % 16 == 0 ? 16 : i % 4 == 0 ? 8 : 2;
    shape.head_dim = exact ? Pick(&random, 1, 16 * widest) : 16 * Pick(&random, 1, widest);
    shape.num_heads = Pick(&random, 1, 3);
    const int64_t sequences = Pick(&random, 1, 3);
    for (int64_t s = 0; s < sequences; ++s) {
      shape.lengths.push_back(Pick(&random, 0, i % 8 == 0 ? 140 : 30));
    }
    const float sizes[] = {1.0f, 1e6f, 1e-6f};
    shape.k_size = sizes[Pick(&random, 0, 2)];
    shape.q_size = 1.0f / shape.k_size;
    shape.v_size = sizes[Pick(&random, 0, 2)] * sizes[Pick(&random, 0, 2)];
    SCOPED_TRACE(::testing::Message()
                 << "batch " << i << ": head_dim " << shape.head_dim << ", " << shape.num_heads
                 << " heads, k " << shape.k_size << ", v " << shape.v_size);
    SetMachineSeed(static_cast<uint64_t>(i));
    EncoderCase batch(shape, seed * 1000 + static_cast<uint64_t>(i));
    ExpectWithin(batch.Attend(exact), batch.Reference(), batch.Bounds(exact));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST_F(CudaEncoder, TakesRandomBatchesOnTheTensorCores) { ExpectRandomBatches(500, false, 1); }
TEST_F(CudaEncoder, IsExactForRandomBatchesInFp32) { ExpectRandomBatches(500, true, 2); }

}  // namespace
}  // namespace nibble::cuda
