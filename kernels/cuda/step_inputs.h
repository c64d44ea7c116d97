// What a step reads from the host: copied into one page-locked block as operations are asked for,
// and carried to the device in one copy at the head of the step's tape. Knows no operation.
//
//   block := slot*          in the order of calls
//   slot  := the values, then anything up to a power of two of at least kSlotBytes
//
// So steps of equal shapes have equal addresses, and their tapes equal bytes, even where lists
// grow a little from step to step.
// Thread rule: one thread, the engine's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/sequences.h"
#include "kernels/kv_layout.h"

namespace nibble::cuda {

inline constexpr int64_t kSlotBytes = 256;

// 1. Nothing that was added moves or changes until Clear().
// 2. The host block may be written again only when the copy that took it is done.
class StepInputs {
 public:
  // Two blocks of `bytes`, 256-aligned, owned by the caller; host is page-locked.
  StepInputs(char* host, char* device, int64_t bytes)
      : host_(host), device_(device), bytes_(bytes) {}

  // Room for `bytes`: where to write them, and where they will be on the device.
  struct Slot {
    char* host = nullptr;
    const char* device = nullptr;
  };
  // Nothing: they do not fit beside what is there.
  std::optional<Slot> Reserve(int64_t bytes);

  // The values' place on the device; nothing when they do not fit.
  template <typename T>
  std::optional<const T*> Add(std::span<const T> values) {
    const std::optional<Slot> slot = Reserve(static_cast<int64_t>(values.size_bytes()));
    if (!slot.has_value()) return std::nullopt;
    if (!values.empty()) std::memcpy(slot->host, values.data(), values.size_bytes());
    return reinterpret_cast<const T*>(slot->device);
  }
  // The same, but only once for equal values: what every layer brings again.
  std::optional<const float*> AddOnce(std::span<const float> values);
  // Likewise a step's sequences. Rows that belong to none get sequence -1; pages beyond a
  // sequence's end are -1. Equal sequences are those with equal fields: page tables may not change
  // within a step.
  std::optional<DeviceSequences> AddSequences(std::span<const SequenceRows> sequences,
                                              int64_t num_rows);

  // Bytes from the blocks' begin that hold something.
  int64_t used() const { return used_; }
  void Clear();

 private:
  struct Once {
    int64_t at;
    int64_t bytes;
  };
  // What AddSequences was last given.
  bool SameSequences(std::span<const SequenceRows> sequences, int64_t num_rows) const;

  char* const host_;
  char* const device_;
  const int64_t bytes_;
  int64_t used_ = 0;
  std::vector<Once> once_;
  std::vector<SequenceRows> last_;
  DeviceSequences last_on_device_;  // of last_; num_sequences 0: of none
};

}  // namespace nibble::cuda
