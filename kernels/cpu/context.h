// What every CPU operation works with: a row of arithmetic, threads, lent memory.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "kernels/backend_options.h"
#include "kernels/cpu/isa_table.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace nibble {

constexpr int64_t kScratchAlignment = 64;
constexpr int64_t AlignScratch(int64_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

struct CpuContext {
  const IsaTable* isa = nullptr;
  ThreadPool* pool = nullptr;
  Compute compute = Compute::kFp32;  // never kAuto
  char* scratch = nullptr;
  int64_t scratch_bytes = 0;

  // The scratch memory of one worker, when an operation gives each `bytes`. Aborts if the model
  // lent too little.
  char* WorkerScratch(int worker, int64_t bytes) const {
    const int64_t each = AlignScratch(bytes);
    return Scratch(each * pool->num_threads()) + worker * each;
  }

  // The scratch memory that all workers share, likewise.
  char* Scratch(int64_t bytes) const {
    if (bytes > scratch_bytes) {
      std::fprintf(stderr, "cpu: an operation needs %lld bytes of scratch memory, got %lld\n",
                   static_cast<long long>(bytes), static_cast<long long>(scratch_bytes));
      std::abort();
    }
    return scratch;
  }

  // f(unit, worker) for all units; on the caller alone when the whole work (in arithmetic
  // operations, roughly) is not worth waking anyone.
  template <typename F>
  void Run(int64_t num_units, int64_t work, F&& f) const {
    constexpr int64_t kWorthSharing = 65536;
    if (work < kWorthSharing) {
      for (int64_t unit = 0; unit < num_units; ++unit) f(unit, 0);
    } else {
      pool->Run(num_units, f);
    }
  }

  // f(row) for all rows, some at a time, each costing `row_work`.
  template <typename F>
  void RunRows(int64_t rows, int64_t row_work, F&& f) const {
    constexpr int64_t kUnitWork = 16384;
    const int64_t rows_per_unit = row_work >= kUnitWork ? 1 : kUnitWork / (row_work + 1) + 1;
    const int64_t units = (rows + rows_per_unit - 1) / rows_per_unit;
    Run(units, rows * row_work, [&](int64_t unit, int) {
      const int64_t end = (unit + 1) * rows_per_unit < rows ? (unit + 1) * rows_per_unit : rows;
      for (int64_t row = unit * rows_per_unit; row < end; ++row) f(row);
    });
  }
};

constexpr LaneType LaneTypeOf(DType dtype) {
  return dtype == DType::kF32 ? kLaneF32 : dtype == DType::kF16 ? kLaneF16 : kLaneBF16;
}

}  // namespace nibble
