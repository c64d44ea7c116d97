// Products of the `amx` row's twin, by the CPU backend's own way to them.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "kernels/cpu/context.h"
#include "kernels/cpu/matmul.h"
#include "tests/kernels/cpu/amx_twin.h"
#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {

// Memory full of NaN that ends at a page nobody may touch.
class FencedMemory {
 public:
  explicit FencedMemory(int64_t bytes) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t used = (static_cast<size_t>(bytes) + page - 1) / page * page;
    mapped_ = used + page;
    begin_ = static_cast<char*>(
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_NE(begin_, MAP_FAILED);
    EXPECT_EQ(mprotect(begin_ + used, page, PROT_NONE), 0);
    std::fill_n(reinterpret_cast<float*>(begin_), used / sizeof(float), kNan);
    data_ = begin_ + used - bytes;
  }
  ~FencedMemory() { munmap(begin_, mapped_); }
  FencedMemory(const FencedMemory&) = delete;
  FencedMemory& operator=(const FencedMemory&) = delete;

  char* data() const { return data_; }

 private:
  size_t mapped_;
  char* begin_;
  char* data_;
};

// One mode of the twin on some threads, with exactly the scratch memory that it asks for.
class AmxTwin {
 public:
  explicit AmxTwin(Compute compute, int threads = 1) : compute_(compute), pool_(threads) {}

  Matrix Product(const Weight& weight, const Matrix& x, const VectorView& bias = {},
                 const Matrix* residual = nullptr) {
    BackendLimits limits;
    limits.max_rows = x.rows();
    limits.max_k = x.cols();
    CpuContext context;
    context.isa = &kAmxTwinTable;
    context.pool = &pool_;
    context.compute = compute_;
    context.scratch_bytes = MatMulScratchBytes(limits, compute_);
    const FencedMemory scratch(context.scratch_bytes);
    context.scratch = scratch.data();
    Matrix out(x.rows(), weight.spec.n);
    if (residual != nullptr) out = *residual;
    const MatMulPart part = {&weight, bias, out.View(), residual != nullptr};
    CpuMatMul(context, x.View(), {&part, 1});
    return out;
  }

 private:
  const Compute compute_;
  ThreadPool pool_;
};

// Rows [first, first + count) of a matrix.
inline Matrix RowsOf(const Matrix& matrix, int64_t first, int64_t count) {
  Matrix rows(count, matrix.cols());
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(matrix.View().Row(first + r), matrix.cols(), rows.View().Row(r));
  }
  return rows;
}

}  // namespace nibble
