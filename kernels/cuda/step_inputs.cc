// Slots one behind the other.
#include "kernels/cuda/step_inputs.h"

#include <algorithm>
#include <bit>

namespace nibble::cuda {
namespace {

int64_t NumPages(const SequenceRows& sequence) {
  return (sequence.start + sequence.num_rows + kPageSlots - 1) / kPageSlots;
}

int64_t PowerOfTwo(int64_t at_least) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(at_least)));
}

bool Same(const SequenceRows& a, const SequenceRows& b) {
  return a.first_row == b.first_row && a.num_rows == b.num_rows && a.start == b.start &&
         a.pages == b.pages;
}

void WritePages(std::span<const SequenceRows> sequences, int64_t stride, int32_t* out) {
  for (const SequenceRows& sequence : sequences) {
    const int64_t count = NumPages(sequence);
    std::copy_n(sequence.pages, count, out);
    std::fill_n(out + count, stride - count, -1);
    out += stride;
  }
}

void WriteRows(std::span<const SequenceRows> sequences, int64_t num_rows, DeviceSequence* out,
               RowPlace* places) {
  std::fill_n(places, num_rows, RowPlace{-1, 0});
  for (size_t i = 0; i < sequences.size(); ++i) {
    const SequenceRows& sequence = sequences[i];
    out[i] = {static_cast<int32_t>(sequence.first_row), static_cast<int32_t>(sequence.num_rows),
              static_cast<int32_t>(sequence.start), 0};
    for (int64_t row = 0; row < sequence.num_rows; ++row) {
      places[sequence.first_row + row] = {static_cast<int32_t>(i),
                                          static_cast<int32_t>(sequence.start + row)};
    }
  }
}

}  // namespace

std::optional<StepInputs::Slot> StepInputs::Reserve(int64_t bytes) {
  const int64_t rounded = PowerOfTwo(std::max(bytes, kSlotBytes));
  if (rounded > bytes_ - used_) return std::nullopt;
  const Slot slot = {host_ + used_, device_ + used_};
  used_ += rounded;
  return slot;
}

std::optional<const float*> StepInputs::AddOnce(std::span<const float> values) {
  const auto bytes = static_cast<int64_t>(values.size_bytes());
  for (const Once& once : once_) {
    if (once.bytes == bytes &&
        std::memcmp(host_ + once.at, values.data(), values.size_bytes()) == 0)
      return reinterpret_cast<const float*>(device_ + once.at);
  }
  const int64_t at = used_;
  const std::optional<const float*> added = Add(values);
  if (added.has_value()) once_.push_back({at, bytes});
  return added;
}

std::optional<DeviceSequences> StepInputs::AddSequences(std::span<const SequenceRows> sequences,
                                                        int64_t num_rows) {
  if (SameSequences(sequences, num_rows)) return last_on_device_;
  const auto count = static_cast<int64_t>(sequences.size());
  DeviceSequences device;
  device.num_sequences = static_cast<int32_t>(count);
  device.num_rows = static_cast<int32_t>(num_rows);
  int64_t longest = 1;
  for (const SequenceRows& sequence : sequences) {
    longest = std::max(longest, NumPages(sequence));
    device.max_rows = std::max(device.max_rows, static_cast<int32_t>(sequence.num_rows));
  }
  const bool paged = sequences.front().pages != nullptr;
  const int64_t stride = PowerOfTwo(longest), before = used_;
  const auto rows = Reserve(count * static_cast<int64_t>(sizeof(DeviceSequence)));
  const auto places = Reserve(num_rows * static_cast<int64_t>(sizeof(RowPlace)));
  const auto pages = Reserve(paged ? count * stride * static_cast<int64_t>(sizeof(int32_t)) : 0);
  if (!rows || !places || !pages) {
    used_ = before;
    return std::nullopt;
  }
  WriteRows(sequences, num_rows, reinterpret_cast<DeviceSequence*>(rows->host),
            reinterpret_cast<RowPlace*>(places->host));
  device.sequences = reinterpret_cast<const DeviceSequence*>(rows->device);
  device.places = reinterpret_cast<const RowPlace*>(places->device);
  if (paged) {
    WritePages(sequences, stride, reinterpret_cast<int32_t*>(pages->host));
    device.pages = reinterpret_cast<const int32_t*>(pages->device);
    device.page_stride = static_cast<int32_t>(stride);
  }
  last_.assign(sequences.begin(), sequences.end());
  last_on_device_ = device;
  return device;
}

bool StepInputs::SameSequences(std::span<const SequenceRows> sequences, int64_t num_rows) const {
  return last_on_device_.num_sequences > 0 && last_on_device_.num_rows == num_rows &&
         std::equal(sequences.begin(), sequences.end(), last_.begin(), last_.end(), Same);
}

void StepInputs::Clear() {
  used_ = 0;
  once_.clear();
  last_.clear();
  last_on_device_ = {};
}

}  // namespace nibble::cuda
