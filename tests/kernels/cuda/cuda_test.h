// What every test of the CUDA kernels uses, on the emulated machine and on a card alike: device 0,
// arrays of its memory, and tapes that are played and waited for.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "kernels/cuda/tape.h"
#include "tests/kernels/cuda/machine_seeds.h"

namespace nibble::cuda {

// The device that all tests share; opened at first use, with one stream.
struct TestDevice {
  bool found = false;
  std::string why_not;
  DeviceTraits traits;
  Stream* stream = nullptr;
};
const TestDevice& GetTestDevice();

// Does all of a stream's work; a failure of the test if it fails.
void Play(const Tape& tape);
void CopyNow(void* to, const void* from, int64_t bytes);

// An array in device memory: NaN or -1 at first on the emulated machine. It ends as near to memory
// that cannot be touched as `alignment` permits, so kernels that run past it are seen.
template <typename T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t size, int64_t alignment = 16) : size_(size) {
    const int64_t bytes = size * static_cast<int64_t>(sizeof(T));
    const int64_t aligned = (bytes + alignment - 1) / alignment * alignment;
    // The values stand at the end of memory whose begin is 256-aligned.
    const int64_t skipped = (aligned + 255) / 256 * 256 - aligned;
    absl::StatusOr<void*> memory = Malloc(skipped + bytes);
    if (!memory.ok()) {
      ADD_FAILURE() << memory.status();
      return;
    }
    memory_ = *memory;
    data_ = reinterpret_cast<T*>(static_cast<char*>(memory_) + skipped);
  }
  explicit DeviceArray(const std::vector<T>& values, int64_t alignment = 16)
      : DeviceArray(static_cast<int64_t>(values.size()), alignment) {
    Set(values);
  }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() {
    if (memory_ != nullptr) Free(memory_);
  }

  T* data() const { return data_; }
  int64_t size() const { return size_; }
  // As many values as there is room for.
  void Set(const std::vector<T>& values) {
    CopyNow(data_, values.data(), static_cast<int64_t>(values.size() * sizeof(T)));
  }
  std::vector<T> Get() const {
    std::vector<T> values(static_cast<size_t>(size_));
    CopyNow(values.data(), data_, static_cast<int64_t>(values.size() * sizeof(T)));
    return values;
  }

 private:
  void* memory_ = nullptr;
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Scratch memory of kernels: 256-aligned.
inline DeviceArray<char> DeviceScratch(int64_t bytes) { return DeviceArray<char>(bytes, 256); }

// Skips where a program built for a card finds none.
class CudaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!GetTestDevice().found) GTEST_SKIP() << GetTestDevice().why_not;
    SetMachineSeed(1);
  }
  const DeviceTraits& traits() const { return GetTestDevice().traits; }
};

// Runs `body` once for each seed; once on a card.
void ForMachineSeeds(int num_seeds, const std::function<void()>& body);

}  // namespace nibble::cuda
