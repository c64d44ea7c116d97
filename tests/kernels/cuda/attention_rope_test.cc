// RopeAndStore: q and k against the oracle, stored bits against the rounding of what the device
// itself rotated, and every other byte of the cache as it was.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "kernels/cuda/attention.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/values.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

class CudaRope : public CudaTest {};

constexpr DType kTypes[] = {DType::kF16, DType::kBF16, DType::kF32};
constexpr int64_t kLayers = 2;

struct RopeShape {
  DType dtype = DType::kF16;
  int64_t head_dim = 64;
  int64_t heads = 1;
  int64_t kv_heads = 1;
  std::vector<SequenceRows> sequences;  // first_row ascending, with gaps
  int64_t num_rows = 0;
};

std::vector<float> Normal(std::mt19937_64* random, int64_t count) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(*random);
  return values;
}

std::vector<float> InverseFrequencies(int64_t head_dim) {
  std::vector<float> values;
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    values.push_back(
        std::pow(500000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(head_dim)));
  }
  return values;
}

// One step's inputs, what the oracle makes of them, and what the device does.
class RopeCase {
 public:
  RopeCase(const RopeShape& shape, uint64_t seed) : shape_(shape), random_(seed) {
    inv_freq_ = InverseFrequencies(shape.head_dim);
    stride_ = (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 2;
    rows_ = Normal(&random_, shape.num_rows * stride_);
    GrantPages();
    cache_.assign(static_cast<size_t>(CacheAt(nullptr).Bytes()), '\xff');
  }

  void Check() {
    const std::vector<float> before = rows_;
    const std::vector<float> got = RunDevice();
    std::vector<char> untouched = cache_;
    reference::RopeAndStore(Columns(rows_.data(), 0, shape_.heads), Keys(rows_.data()),
                            Values(rows_.data()), inv_freq_, shape_.sequences,
                            CacheAt(untouched.data()), 1);
    for (size_t i = 0; i < got.size(); ++i) {
      // cos and sin within 2 ulp, two products and a sum: 2^-21 of |a| + |b|.
      const float bound = Rotates(i) ? std::ldexp(Size(before, i), -21) : 0.0f;
      ASSERT_LE(std::fabs(got[i] - rows_[i]), bound)
          << "value " << i << ": got " << got[i] << ", reference " << rows_[i];
    }
    ExpectCache(got);
  }

 private:
  // Value i of the rows is one of q or k, in a row of some sequence.
  bool Rotates(size_t i) const {
    const auto row = static_cast<int64_t>(i) / stride_;
    return static_cast<int64_t>(i) % stride_ < (shape_.heads + shape_.kv_heads) * shape_.head_dim &&
           std::any_of(shape_.sequences.begin(), shape_.sequences.end(),
                       [&](const SequenceRows& s) {
                         return s.first_row <= row && row < s.first_row + s.num_rows;
                       });
  }
  // |a| + |b| of the pair that value i of the rows belongs to.
  float Size(const std::vector<float>& rows, size_t i) const {
    const auto half = static_cast<size_t>(shape_.head_dim / 2);
    const size_t column = i % static_cast<size_t>(stride_) % (2 * half);
    const size_t other = column < half ? i + half : i - half;
    return std::fabs(rows[i]) + std::fabs(rows[other]);
  }
  Activations Columns(float* rows, int64_t first_head, int64_t heads) const {
    return {rows + first_head * shape_.head_dim, shape_.num_rows, heads * shape_.head_dim, stride_};
  }
  Activations Keys(float* rows) const { return Columns(rows, shape_.heads, shape_.kv_heads); }
  Activations Values(float* rows) const {
    return Columns(rows, shape_.heads + shape_.kv_heads, shape_.kv_heads);
  }
  KvCache CacheAt(void* data) const {
    return {data, shape_.dtype, kLayers, num_pages_, shape_.kv_heads, shape_.head_dim};
  }

  // A page for each that the step writes to, in random order; the table says nonsense elsewhere.
  void GrantPages() {
    int64_t most = 1;
    for (const SequenceRows& s : shape_.sequences) {
      most = std::max(most, (s.start + s.num_rows - 1) / kPageSlots + 1);
      num_pages_ += s.num_rows == 0 ? 0 : (s.num_rows + 2 * kPageSlots - 2) / kPageSlots;
    }
    ++num_pages_;
    while (page_stride_ < most) page_stride_ *= 2;
    table_.assign(shape_.sequences.size() * static_cast<size_t>(page_stride_), INT32_MAX / 2);
    std::vector<int32_t> order(static_cast<size_t>(num_pages_));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random_);
    for (size_t i = 0; i < shape_.sequences.size(); ++i) {
      SequenceRows& s = shape_.sequences[i];
      int32_t* const own = table_.data() + static_cast<int64_t>(i) * page_stride_;
      for (int64_t p = s.start; p < s.start + s.num_rows; ++p) {
        if (own[p / kPageSlots] != INT32_MAX / 2) continue;
        own[p / kPageSlots] = order.back();
        order.pop_back();
      }
      s.pages = own;
    }
  }

  std::vector<float> RunDevice() {
    std::vector<DeviceSequence> sequences;
    std::vector<RowPlace> places(static_cast<size_t>(shape_.num_rows), RowPlace{-1, 0});
    for (const SequenceRows& s : shape_.sequences) {
      for (int64_t i = 0; i < s.num_rows; ++i) {
        places[static_cast<size_t>(s.first_row + i)] = {static_cast<int32_t>(sequences.size()),
                                                        static_cast<int32_t>(s.start + i)};
      }
      sequences.push_back({static_cast<int32_t>(s.first_row), static_cast<int32_t>(s.num_rows),
                           static_cast<int32_t>(s.start), 0});
    }
    const DeviceArray<DeviceSequence> device_sequences(sequences);
    const DeviceArray<RowPlace> device_places(places);
    const DeviceArray<int32_t> pages(table_);
    const DeviceArray<float> inv_freq(inv_freq_);
    const DeviceArray<char> cache(cache_, 256);
    const DeviceArray<float> rows(rows_);
    Tape tape;
    RopeAndStore(&tape, Columns(rows.data(), 0, shape_.heads), Keys(rows.data()),
                 Values(rows.data()), inv_freq.data(),
                 {device_sequences.data(), device_places.data(), pages.data(),
                  static_cast<int32_t>(sequences.size()), static_cast<int32_t>(shape_.num_rows),
                  static_cast<int32_t>(page_stride_), 1},
                 CacheAt(cache.data()), 1);
    Play(tape);
    stored_ = cache.Get();
    return rows.Get();
  }

  void ExpectCache(std::vector<float> rotated) const {
    std::vector<char> expected = cache_;
    const KvCache cache = CacheAt(expected.data());
    const Activations k = Keys(rotated.data());
    const Activations v = Values(rotated.data());
    for (const SequenceRows& s : shape_.sequences) {
      for (int64_t i = 0; i < s.num_rows * shape_.kv_heads; ++i) {
        const int64_t row = i / shape_.kv_heads;
        const int64_t head = i % shape_.kv_heads;
        const int64_t position = s.start + row;
        char* const page = expected.data() +
                           (num_pages_ + s.pages[position / kPageSlots]) * cache.LayerPageBytes() +
                           head * 2 * kPageSlots * shape_.head_dim * SizeOf(shape_.dtype);
        for (int64_t d = 0; d < shape_.head_dim; ++d) {
          const int64_t slot = position % kPageSlots;
          const int64_t column = head * shape_.head_dim + d;
          reference::Store(page, shape_.dtype, d * kPageSlots + slot,
                           k.Row(s.first_row + row)[column]);
          reference::Store(page, shape_.dtype, (kPageSlots + slot) * shape_.head_dim + d,
                           v.Row(s.first_row + row)[column]);
        }
      }
    }
    EXPECT_EQ(std::memcmp(stored_.data(), expected.data(), expected.size()), 0);
  }

  RopeShape shape_;
  std::mt19937_64 random_;
  std::vector<float> inv_freq_, rows_;
  int64_t stride_ = 0;
  int64_t num_pages_ = 0;
  int64_t page_stride_ = 1;
  std::vector<int32_t> table_;
  std::vector<char> cache_, stored_;
};

int64_t Pick(std::mt19937_64* random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(*random);
}

TEST_F(CudaRope, RotatesAndStoresRandomSteps) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 500; ++i) {
    RopeShape shape;
    shape.dtype = kTypes[i % 3];
    shape.head_dim = 2 * Pick(&random, 1, i % 8 == 0 ? 128 : 20);
    shape.heads = Pick(&random, 1, 10);
    shape.kv_heads = Pick(&random, 1, 3);
    const int64_t sequences = Pick(&random, 1, 4);
    for (int64_t s = 0; s < sequences; ++s) {
      shape.num_rows += Pick(&random, 0, 2);
      const int64_t rows = Pick(&random, 0, 1) == 0 ? 1 : Pick(&random, 0, 40);
      shape.sequences.push_back({shape.num_rows, rows, Pick(&random, 0, 100), nullptr});
      shape.num_rows += rows;
    }
    shape.num_rows += 1;
    SCOPED_TRACE(::testing::Message()
                 << "step " << i << ": " << Name(shape.dtype) << ", head_dim " << shape.head_dim);
    SetMachineSeed(static_cast<uint64_t>(i));
    RopeCase(shape, static_cast<uint64_t>(i)).Check();
    if (HasFailure()) return;
  }
}

// An angle's range is reduced in full: fast sines would be wrong from a few thousand on.
TEST_F(CudaRope, KnowsSinesOfAMillion) {
  for (const int64_t start : {8191, 131070, 1048570}) {
    RopeShape shape;
    shape.dtype = DType::kF32;
    shape.sequences.push_back({0, 5, start, nullptr});
    shape.num_rows = 5;
    RopeCase(shape, 7).Check();
  }
}

}  // namespace
}  // namespace nibble::cuda
