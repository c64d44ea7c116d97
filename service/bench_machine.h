// The machine that `nibble bench kernels` measures: its peaks, a backend for each ISA row, mode and
// number of threads, and weights that no cache holds. Knows no goal and prints nothing.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/peaks.h"
#include "service/bench_samples.h"

namespace nibble {

// One product: a matrix, rows of x, and where the matrix lies.
struct Product {
  WeightSpec spec;
  int64_t m = 1;
  bool from_memory = true;  // several copies in turn, more than the caches hold; else one
  int64_t outliers = 0;     // values of each row of x that are large

  double Operations() const { return 2.0 * static_cast<double>(m * spec.n * spec.k); }
};

// The most that any product has.
struct ProductLimits {
  int64_t rows = 512;
  int64_t k = 4096;
  int64_t outputs = 512 * 4096;   // rows of x times N
  int64_t weights = 49152 * 576;  // N times K
};

struct BenchMachineOptions {
  int threads = 0;  // 0: all
  std::string isa;  // empty: the best
  Compute compute = Compute::kAuto;
  bool quick = false;  // a few samples, and weights that a cache may hold
  ProductLimits limits;
};

// Thread rule: one thread, and not the process's main one, which a pool of threads does not pin.
// Sides refer to the machine and must not outlive it.
class BenchMachine {
 public:
  static constexpr int64_t kReadBytes = int64_t{16} << 20;
  static constexpr int64_t kUnitSteps = 20'000;

  // Errors: as MakeBackend.
  static absl::StatusOr<std::unique_ptr<BenchMachine>> Create(const BenchMachineOptions& options);

  int threads() const { return threads_; }
  const std::string& isa() const { return isa_; }
  // What is measured: the mode asked for or, for kAuto, each that the row has, its own choice
  // first.
  const std::vector<Compute>& modes() const { return modes_; }
  const CpuCaches& caches() const { return caches_; }
  int64_t memory_bytes() const { return codes_.bytes(); }
  const std::vector<CpuUnit>& units() const { return units_; }
  // The unit that bounds products; null for the scalar row.
  const CpuUnit* Unit(const std::string& isa, Compute compute) const;
  CpuPeaks& peaks(int threads);
  // Errors: as MakeBackend.
  absl::StatusOr<Backend*> BackendOf(const std::string& isa, Compute compute, int threads);
  // The row's own backend on all threads; its modes have one.
  Backend* BackendOf(Compute compute);
  // One thread: its CPU time, so that neighbours do not count.
  Pace PaceOf(int threads) const;

  Side Multiply(Backend* backend, const Product& product);
  // What a fused product saves: 4 bits to bf16 in memory, then the product with that.
  Side DequantizeAndMultiply(Backend* backend, const Product& product);
  Side Read(int threads);                              // kReadBytes
  Side InRegisters(const CpuUnit* unit, int threads);  // kUnitSteps on every thread
  // fp32 rows of `columns` into INT8 on all threads: kReadBytes.
  Side QuantizeInt8Rows(int64_t columns);

 private:
  BenchMachine() = default;
  absl::Status Allocate();
  absl::Status FindModes();
  Weight Copy(const Backend& backend, const Product& product, int64_t turn) const;
  void Call(Backend* backend, const Weight& weight, const Product& product);

  struct ReadyBackend {
    std::unique_ptr<Backend> backend;
    Buffer scratch;
  };
  BenchMachineOptions options_;
  int threads_ = 1;
  std::string isa_;
  std::vector<Compute> modes_;
  CpuCaches caches_;
  std::vector<CpuUnit> units_;
  std::map<std::tuple<std::string, Compute, int>, ReadyBackend> backends_;
  std::map<int, std::unique_ptr<CpuPeaks>> peaks_;
  Buffer codes_, scales_, nested_, tables_, x_, x_with_outliers_, out_;
};

}  // namespace nibble
