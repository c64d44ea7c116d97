// What is asked of a backend when it is made, and what it is sized for: plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

// The arithmetic of activations: kernels/README.md, "Numeric modes".
enum class Compute : uint8_t { kAuto, kFp32, kBf16, kInt8 };
inline constexpr int kNumComputes = 4;

constexpr const char* Name(Compute compute) {
  constexpr const char* kNames[] = {"auto", "fp32", "bf16", "int8"};
  return kNames[static_cast<int>(compute)];
}
constexpr std::optional<Compute> ComputeNamed(std::string_view name) {
  for (int i = 0; i < kNumComputes; ++i) {
    if (name == Name(static_cast<Compute>(i))) return static_cast<Compute>(i);
  }
  return std::nullopt;
}

struct BackendOptions {
  std::string device =
      "cpu";            // "cpu", "cuda:0", "auto" (a GPU if the build and the machine have one)
  int num_threads = 0;  // CPU; 0: the cgroup's quota, else the number of usable CPUs
  std::string cpu_isa;  // as IsaTable names them ("avx512"); empty: the best the CPU has
  Compute compute = Compute::kAuto;  // kAuto: the device's own choice
  // A product is computed one way whatever the number of rows. The CPU always does so.
  bool batch_invariant = false;
};

// What a device takes for itself, whatever is loaded.
struct BackendMemory {
  int64_t workspace = 0;
  int64_t graphs = 0;  // at most
};

// The largest of everything that one model will ever ask, for sizing scratch memory.
struct BackendLimits {
  int64_t max_rows = 0;     // rows of one step
  int64_t max_context = 0;  // positions of one sequence
  int64_t max_heads = 0;
  int64_t max_head_dim = 0;
  int64_t max_k = 0;  // widest input of a matmul
  bool int8 = true;   // some matmul is with INT8 weights, which need rows of x in 8 bits
  int64_t max_vocab = 0;
  int64_t max_samples = 0;  // sampling plans of one step
};

}  // namespace nibble
