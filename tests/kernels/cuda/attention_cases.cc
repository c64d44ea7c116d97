// Cuts steps from sequences: what the device, the oracle and the bound take.
#include "tests/kernels/cuda/attention_cases.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/half.h"
#include "kernels/reference/attention.h"
#include "kernels/reference/values.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

std::vector<float> Normal(std::mt19937_64* random, int64_t count, float size) {
  std::normal_distribution<float> normal(0.0f, size);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(*random);
  return values;
}

// What a cache of this type makes of the values.
std::vector<double> Stored(const std::vector<float>& values, DType dtype) {
  std::vector<double> result;
  for (const float value : values) {
    float bits = 0;
    reference::Store(&bits, dtype, 0, value);
    result.push_back(reference::Load(&bits, dtype, 0));
  }
  return result;
}

int64_t Pages(int64_t positions) { return (positions + kPageSlots - 1) / kPageSlots; }

// A step's rows on the host: sequences apart from each other by rows of none.
struct StepRows {
  std::vector<DeviceSequence> sequences;
  std::vector<RowPlace> places;
  int32_t max_rows = 0;

  explicit StepRows(const std::vector<StepPart>& step) {
    for (const StepPart& part : step) {
      const auto index = static_cast<int32_t>(sequences.size());
      if (index % 3 == 1) places.push_back({-1, 0});
      sequences.push_back({static_cast<int32_t>(places.size()), static_cast<int32_t>(part.rows),
                           static_cast<int32_t>(part.start), 0});
      for (int64_t i = 0; i < part.rows; ++i) {
        places.push_back({index, static_cast<int32_t>(part.start + i)});
      }
      max_rows = std::max(max_rows, static_cast<int32_t>(part.rows));
    }
    places.push_back({-1, 0});
  }
};

}  // namespace

AttentionCase::AttentionCase(const AttentionShape& shape, const std::vector<int64_t>& lengths,
                             uint64_t seed, float size)
    : shape_(shape), scale_(1.0f / std::sqrt(static_cast<float>(shape.head_dim))), random_(seed) {
  for (const int64_t length : lengths) num_pages_ += Pages(length) + 1;
  std::vector<int32_t> order(static_cast<size_t>(num_pages_));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_);
  auto next = order.begin();
  for (const int64_t length : lengths) {
    Sequence sequence;
    sequence.length = length;
    sequence.q = Normal(&random_, length * shape.cols(), size);
    sequence.k = Normal(&random_, length * shape.kv_cols(), 1.0f);
    sequence.v = Normal(&random_, length * shape.kv_cols(), 1.0f);
    sequence.stored_k = Stored(sequence.k, shape.dtype);
    sequence.stored_v = Stored(sequence.v, shape.dtype);
    sequence.pages.assign(next, next + Pages(length));
    next += Pages(length);
    sequences_.push_back(std::move(sequence));
  }
}

KvCache AttentionCase::CacheAt(void* data) const {
  return {data, shape_.dtype, kLayers, num_pages_, shape_.num_kv_heads, shape_.head_dim};
}

std::vector<char> AttentionCase::Image(const std::vector<StepPart>& step) const {
  std::vector<char> image(static_cast<size_t>(CacheAt(nullptr).Bytes()), '\xff');
  const KvCache cache = CacheAt(image.data());
  for (const StepPart& part : step) {
    const Sequence& sequence = sequences_[static_cast<size_t>(part.sequence)];
    const int64_t end = part.rows == 0 ? 0 : part.start + part.rows;
    for (int64_t p = 0; p < end; ++p) {
      const int64_t page = sequence.pages[static_cast<size_t>(p / kPageSlots)];
      for (int64_t c = 0; c < shape_.kv_cols(); ++c) {
        const int64_t head = c / shape_.head_dim;
        const int64_t d = c % shape_.head_dim;
        char* const at = image.data() + (kLayer * num_pages_ + page) * cache.LayerPageBytes() +
                         head * 2 * shape_.head_dim * kPageSlots * SizeOf(shape_.dtype);
        const auto from = static_cast<size_t>(p * shape_.kv_cols() + c);
        reference::Store(at, shape_.dtype, d * kPageSlots + p % kPageSlots, sequence.k[from]);
        reference::Store(at, shape_.dtype, (kPageSlots + p % kPageSlots) * shape_.head_dim + d,
                         sequence.v[from]);
      }
    }
  }
  return image;
}

std::vector<float> AttentionCase::Attend(const std::vector<StepPart>& step, bool exact,
                                         int64_t max_context) {
  const StepRows rows(step);
  const auto num_rows = static_cast<int64_t>(rows.places.size());
  const int64_t cols = shape_.cols();
  const int64_t stride = cols + 4;
  std::vector<float> q(static_cast<size_t>(num_rows * stride), NAN);
  int64_t most_pages = 1;
  for (size_t i = 0; i < step.size(); ++i) {
    const Sequence& sequence = sequences_[static_cast<size_t>(step[i].sequence)];
    for (int64_t r = 0; r < step[i].rows; ++r) {
      std::copy_n(sequence.q.begin() + (step[i].start + r) * cols, cols,
                  q.begin() + (rows.sequences[i].first_row + r) * stride);
    }
    most_pages = std::max(most_pages, Pages(step[i].start + step[i].rows));
  }
  int32_t page_stride = 1;
  while (page_stride < most_pages) page_stride *= 2;
  std::vector<int32_t> pages(step.size() * static_cast<size_t>(page_stride), INT32_MAX / 2);
  for (size_t i = 0; i < step.size(); ++i) {
    const std::vector<int32_t>& own = sequences_[static_cast<size_t>(step[i].sequence)].pages;
    std::copy_n(own.begin(), Pages(step[i].rows == 0 ? 0 : step[i].start + step[i].rows),
                pages.begin() + static_cast<int64_t>(i) * page_stride);
  }
  const DeviceArray<float> device_q(q);
  const DeviceArray<DeviceSequence> device_sequences(rows.sequences);
  const DeviceArray<RowPlace> device_places(rows.places);
  const DeviceArray<int32_t> device_pages(pages);
  const DeviceArray<char> cache(Image(step), 256);
  const DeviceArray<float> out(
      std::vector<float>(static_cast<size_t>(num_rows * cols), kUntouched));
  const int64_t scratch_bytes =
      AttentionScratchBytes(num_rows, max_context, shape_.num_heads(), shape_.head_dim);
  const DeviceArray<char> scratch = DeviceScratch(scratch_bytes);
  DeviceSequences sequences = {device_sequences.data(),
                               device_places.data(),
                               device_pages.data(),
                               static_cast<int32_t>(step.size()),
                               static_cast<int32_t>(num_rows),
                               page_stride,
                               rows.max_rows};
  Tape tape;
  PagedAttention(&tape, {exact, max_context, scratch.data()},
                 {device_q.data(), num_rows, cols, stride}, sequences, CacheAt(cache.data()),
                 kLayer, scale_, {out.data(), num_rows, cols, cols});
  Play(tape);
  const std::vector<float> all = out.Get();
  std::vector<float> result;
  for (int64_t r = 0; r < num_rows; ++r) {
    const auto row = all.begin() + r * cols;
    if (rows.places[static_cast<size_t>(r)].sequence >= 0) {
      result.insert(result.end(), row, row + cols);
    } else {
      EXPECT_EQ(std::count(row, row + cols, kUntouched), cols) << "row of no sequence " << r;
    }
  }
  return result;
}

std::vector<float> AttentionCase::Reference(const std::vector<StepPart>& step) {
  std::vector<char> image = Image(step);
  const KvCache cache = CacheAt(image.data());
  std::vector<float> result;
  for (const StepPart& part : step) {
    Sequence& sequence = sequences_[static_cast<size_t>(part.sequence)];
    const int64_t cols = shape_.cols();
    const auto before = static_cast<int64_t>(result.size());
    result.resize(result.size() + static_cast<size_t>(part.rows * cols));
    const SequenceRows rows = {0, part.rows, part.start, sequence.pages.data()};
    const Activations q = {sequence.q.data() + part.start * cols, part.rows, cols, cols};
    reference::PagedAttention(q, {&rows, 1}, cache, kLayer, scale_,
                              {result.data() + before, part.rows, cols, cols});
  }
  return result;
}

void AddAttentionBounds(const BoundTask& task, const AttentionRounding& rounding,
                        std::vector<float>* bounds) {
  const double fine = std::ldexp(1, -24);
  const auto at = [&](const double* rows, int64_t p, int64_t d) {
    return rows[p * task.stride + d];
  };
  std::vector<double> scores;
  double most = 0, most_k = 0, largest_q = 0, largest_v = 0;
  for (int64_t d = 0; d < task.head_dim; ++d) {
    largest_q = std::max(largest_q, std::fabs(static_cast<double>(task.q[d])));
  }
  for (int64_t p = 0; p < task.count; ++p) {
    double score = 0, magnitude = 0, keys = 0;
    for (int64_t d = 0; d < task.head_dim; ++d) {
      const double k = at(task.keys, p, d);
      score += static_cast<double>(task.q[d]) * k;
      magnitude += std::fabs(static_cast<double>(task.q[d]) * k);
      keys += std::fabs(k);
      largest_v = std::max(largest_v, std::fabs(at(task.values, p, d)));
    }
    scores.push_back(score * task.scale);
    most = std::max(most, magnitude * task.scale);
    most_k = std::max(most_k, keys * task.scale);
  }
  const double error =
      (rounding.q + rounding.k + static_cast<double>(4 * task.head_dim + 16) * fine) * most +
      (rounding.q > 0 ? fine * largest_q * most_k : 0);
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  const double relative = 2 * (std::expm1(2 * error) + rounding.weight + 8 * fine) + rounding.v +
                          4 * static_cast<double>(task.count) * fine;
  for (int64_t d = 0; d < task.head_dim; ++d) {
    double bound = 1e-30 + (rounding.v > 0 ? std::ldexp(largest_v, -38) : 0);
    for (int64_t p = 0; p < task.count; ++p) {
      const double weight = scores[static_cast<size_t>(p)] * relative + rounding.weight_floor;
      bound += weight / total * std::fabs(at(task.values, p, d));
    }
    bounds->push_back(static_cast<float>(bound));
  }
}

std::vector<float> AttentionCase::Bounds(const std::vector<StepPart>& step, bool exact) {
  AttentionRounding rounding;
  if (!exact && shape_.dtype != DType::kF32 && shape_.head_dim % 16 == 0) {
    const bool half = shape_.dtype == DType::kF16;
    rounding.q = rounding.weight = std::ldexp(1, half ? -11 : -9);
    rounding.weight_floor = half ? std::ldexp(1, -24) : 0;
  }
  std::vector<float> bounds;
  for (const StepPart& part : step) {
    const Sequence& sequence = sequences_[static_cast<size_t>(part.sequence)];
    for (int64_t i = 0; i < part.rows; ++i) {
      for (int64_t head = 0; head < shape_.num_heads(); ++head) {
        const int64_t column = head / shape_.group * shape_.head_dim;
        const int64_t position = part.start + i;
        AddAttentionBounds(
            {sequence.q.data() + position * shape_.cols() + head * shape_.head_dim,
             sequence.stored_k.data() + column, sequence.stored_v.data() + column, shape_.kv_cols(),
             shape_.head_dim, position + 1, static_cast<double>(scale_)},
            rounding, &bounds);
      }
    }
  }
  return bounds;
}

void ExpectWithin(std::span<const float> got, std::span<const float> want,
                  std::span<const float> bounds) {
  ASSERT_EQ(got.size(), want.size());
  ASSERT_EQ(got.size(), bounds.size());
  for (size_t i = 0; i < got.size(); ++i) {
    // Not "greater": a NaN must fail.
    if (!(std::fabs(got[i] - want[i]) <= bounds[i])) {
      ADD_FAILURE() << "value " << i << ": got " << got[i] << ", reference " << want[i]
                    << ", bound " << bounds[i];
      return;
    }
  }
}

}  // namespace nibble::cuda
