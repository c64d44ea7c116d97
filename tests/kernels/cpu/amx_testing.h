// Products of the `amx` row's twin, by the CPU backend's own way to them.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/context.h"
#include "kernels/cpu/matmul.h"
#include "kernels/four_bit.h"
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

struct FourBitShape {
  int64_t m, n, k;
  int32_t group_size;
};
inline std::string NameOf(const FourBitShape& s) {
  return absl::StrCat("M=", s.m, " N=", s.n, " K=", s.k, " group ", s.group_size);
}

// A few rows, or so many that the thread does not cut them into units; as many columns as take no
// long time.
inline int64_t RandomRows(Random& random) {
  return random.Below(2) == 0 ? 1 + random.Below(20) : 64 + random.Below(64);
}
inline int64_t RandomColumns(int64_t m, int64_t k, Random& random) {
  return 1 + random.Below(std::clamp<int64_t>(200000 / (m * k), 20, 150));
}
inline FourBitShape RandomFourBitShape(Random& random) {
  const int32_t group_size = 32 << random.Below(random.Below(4) == 0 ? 8 : 4);
  const int64_t k = group_size * (1 + random.Below(std::max(1, 700 / group_size)));
  const int64_t m = RandomRows(random);
  return {m, RandomColumns(m, k, random), k, group_size};
}

inline FourBitMatrix RandomFourBit(const FourBitShape& shape, Random& random) {
  FourBitForm form;
  form.format = random.Below(2) == 0 ? WeightFormat::kNf4 : WeightFormat::kFp4;
  form.group_size = shape.group_size;
  form.double_quant = random.Below(2) == 0;
  FourBitMatrix matrix =
      *QuantizeFourBit(random.Normals(shape.n * shape.k, 0.1f), shape.n, shape.k, form);
  if (random.Below(3) == 0) {
    for (float& value : matrix.codebook) value = 0.75f * value + 0.01f * random.Normal();
    for (float& value : matrix.nested_map) value *= 0.9f;
  }
  return matrix;
}

// What a random product is made of beside its weights.
struct Surroundings {
  Matrix x, residual;
  std::vector<float> bias;
  bool has_bias, accumulates;
};

inline Surroundings RandomSurroundings(int64_t m, int64_t n, int64_t k, Random& random) {
  Surroundings s = {Matrix(m, k, random), Matrix(m, n, random), random.Normals(n),
                    random.Below(3) == 0, random.Below(3) == 0};
  const float strange[] = {kNan, std::numeric_limits<float>::infinity(), -0.0f, 0x1p-130f, 1e30f};
  for (int64_t i = random.Below(4); i > 0; --i) {
    s.x.At(random.Below(m), random.Below(k)) = strange[random.Below(5)];
  }
  return s;
}

// Rows [first, first + count) of a matrix.
inline Matrix RowsOf(const Matrix& matrix, int64_t first, int64_t count) {
  Matrix rows(count, matrix.cols());
  for (int64_t r = 0; r < count; ++r) {
    std::copy_n(matrix.View().Row(first + r), matrix.cols(), rows.View().Row(r));
  }
  return rows;
}

}  // namespace nibble
