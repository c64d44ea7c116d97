// What this machine's CPU can do at most, for the ratios of `nibble bench kernels`: memory reads,
// arithmetic in registers, and the dequantization that a fused product saves. Knows no product and
// no clock.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backend_options.h"
#include "kernels/four_bit.h"

namespace nibble {

// One arithmetic unit, shown by one instruction again and again on registers.
struct CpuUnit {
  const char* name;            // "vnni_512"
  const char* what;            // "vpdpbusd, 512 bits"
  bool present;                // in this CPU, and granted by its kernel
  double operations_per_step;  // a product and its addition are two
  int32_t (*run)(int64_t steps);
};

// All that Nibble knows, those that the CPU lacks too.
std::vector<CpuUnit> CpuUnits();
// The unit whose peak bounds products of this row in this mode: "fma_512"; "" for scalar.
// compute: not kAuto.
std::string_view UnitOf(const std::string& isa, Compute compute);

// "AMD EPYC (AuthenticAMD, family 26, model 2)".
std::string CpuName();
// What BackendOptions::cpu_isa may be here, slowest first; "scalar" is always there.
std::vector<std::string> CpuIsaNames();

struct CpuCaches {
  int64_t l2 = 0;    // bytes of one core; 1 MiB unless the system tells
  int64_t last = 0;  // bytes of the last level; 32 MiB likewise
};
CpuCaches ReadCpuCaches();

// The loops on all threads at once, pinned as a backend's are. Thread rule: one caller at a time.
class CpuPeaks {
 public:
  // num_threads >= 1, the caller included.
  explicit CpuPeaks(int num_threads);
  ~CpuPeaks();
  CpuPeaks(const CpuPeaks&) = delete;
  CpuPeaks& operator=(const CpuPeaks&) = delete;

  // `steps` of a present unit on every thread.
  void Multiply(const CpuUnit& unit, int64_t steps);
  // Every byte once, each thread a part at a time. bytes % 64 KiB == 0, data 64-aligned.
  void Read(const char* data, int64_t bytes);
  // values[i] = bf16(matrix's element i), N · K of them.
  void DequantizeToBf16(const FourBitMatrix& matrix, uint16_t* values);
  // f(unit) for every unit in [0, num_units), on any thread.
  void Run(int64_t num_units, const std::function<void(int64_t unit)>& f);
  // Lets the threads park: they are in nobody's way until the next call.
  void Park();

 private:
  class Threads;
  std::unique_ptr<Threads> threads_;
};

}  // namespace nibble
