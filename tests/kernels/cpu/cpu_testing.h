// What the tests of the CPU backend share: every ISA row and thread count that this machine has,
// matrices with poisoned margins, packed weights with their memory, exact and bounded comparison.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "kernels/half.h"

namespace nibble {

inline constexpr double kUlp = 0x1p-24;  // half an ulp of 1 in fp32: one rounding's relative error
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

inline std::unique_ptr<Backend> Cpu(const std::string& isa, int threads,
                                    Compute compute = Compute::kFp32) {
  BackendOptions options;
  options.compute = compute;
  options.cpu_isa = isa;
  options.num_threads = threads;
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return std::move(*backend);
}

// Every ISA row of this machine on one thread, and the best of them on 2 and 3.
inline std::vector<std::unique_ptr<Backend>> EveryCpu(Compute compute = Compute::kFp32) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const IsaTable* isa : SupportedIsas()) backends.push_back(Cpu(isa->name, 1, compute));
  for (const int threads : {2, 3}) backends.push_back(Cpu("", threads, compute));
  return backends;
}

inline std::string NameOf(const Backend& backend) {
  return absl::StrCat(backend.isa(), " on ", backend.num_threads(), " threads");
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float Normal() { return normal_(engine_); }
  int64_t Below(int64_t n) { return static_cast<int64_t>(engine_() % static_cast<uint64_t>(n)); }
  std::vector<float> Normals(int64_t n, float scale = 1) {
    std::vector<float> values(static_cast<size_t>(n));
    for (float& value : values) value = scale * Normal();
    return values;
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<float> normal_;
};

// [rows, cols] on the host with some NaN after each row: reading them shows in a result, writing
// them shows in MarginIsIntact.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t cols, int64_t margin = 3)
      : rows_(rows),
        cols_(cols),
        stride_(cols + margin),
        values_(static_cast<size_t>(rows * stride_), kNan) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) At(r, c) = 0;
    }
  }
  Matrix(int64_t rows, int64_t cols, Random& random, float scale = 1) : Matrix(rows, cols) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) At(r, c) = scale * random.Normal();
    }
  }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  float& At(int64_t r, int64_t c) { return values_[static_cast<size_t>(r * stride_ + c)]; }
  float At(int64_t r, int64_t c) const { return values_[static_cast<size_t>(r * stride_ + c)]; }
  Activations View() const { return {const_cast<float*>(values_.data()), rows_, cols_, stride_}; }
  bool MarginIsIntact() const {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = cols_; c < stride_; ++c) {
        if (!std::isnan(At(r, c))) return false;
      }
    }
    return true;
  }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> values_;
};

inline void ExpectSameBits(const Matrix& got, const Matrix& want, const std::string& what) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  EXPECT_TRUE(got.MarginIsIntact()) << what;
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      ASSERT_EQ(std::bit_cast<uint32_t>(got.At(r, c)), std::bit_cast<uint32_t>(want.At(r, c)))
          << what << " at [" << r << "," << c << "]: got " << got.At(r, c) << ", want "
          << want.At(r, c);
    }
  }
}

// |got - want| <= bound(r, c), and a NaN nowhere.
template <typename Bound>
void ExpectWithin(const Matrix& got, const Matrix& want, Bound bound, const std::string& what) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      const double limit = bound(r, c);
      ASSERT_LE(std::abs(double{got.At(r, c)} - double{want.At(r, c)}), limit)
          << what << " at [" << r << "," << c << "]: got " << got.At(r, c) << ", want "
          << want.At(r, c);
    }
  }
}

// A packed matrix and the memory it lies in.
class PackedMatrix {
 public:
  PackedMatrix(Backend& backend, const WeightSpec& spec) {
    const PackedSize size = backend.PackedBytes(spec);
    codes_ = std::move(*backend.Allocate(size.codes));
    scales_ = std::move(*backend.Allocate(size.scales));
    nested_ = std::move(*backend.Allocate(size.nested));
    tables_ = std::move(*backend.Allocate(size.tables));
    weight_ = {spec, codes_.data(), scales_.data(), nested_.data(), tables_.data()};
  }
  PackedMatrix(Backend& backend, const FourBitMatrix& matrix)
      : PackedMatrix(backend, WeightSpec{matrix.format, matrix.n, matrix.k, matrix.group_size,
                                         matrix.double_quant, NeedsOwnTables(matrix)}) {
    const absl::Status status = backend.PackFourBit(matrix, &weight_);
    EXPECT_TRUE(status.ok()) << status;
  }
  PackedMatrix(Backend& backend, const Int8Matrix& matrix, float outlier_threshold)
      : PackedMatrix(backend, {.format = WeightFormat::kInt8,
                               .n = matrix.n,
                               .k = matrix.k,
                               .outlier_threshold = outlier_threshold}) {
    const absl::Status status = backend.PackInt8(matrix, &weight_);
    EXPECT_TRUE(status.ok()) << status;
  }
  PackedMatrix(Backend& backend, WeightFormat format, int64_t n, int64_t k,
               const std::vector<uint16_t>& values)
      : PackedMatrix(backend, WeightSpec{format, n, k, 64, false}) {
    const absl::Status status = backend.Pack16(0, n, values.data(), &weight_);
    EXPECT_TRUE(status.ok()) << status;
  }
  const Weight& weight() const { return weight_; }

 private:
  Buffer codes_, scales_, nested_, tables_;
  Weight weight_;
};

inline std::vector<uint16_t> ToHalves(WeightFormat format, std::span<const float> values) {
  std::vector<uint16_t> halves;
  for (const float value : values) {
    halves.push_back(format == WeightFormat::kF16 ? F32ToF16(value) : F32ToBf16(value));
  }
  return halves;
}

// Lends a backend the scratch memory that it asks for, poisoned with NaN, for its own lifetime.
class LentScratch {
 public:
  LentScratch(Backend& backend, const BackendLimits& limits)
      : backend_(backend), memory_(std::move(*backend.Allocate(backend.ScratchBytes(limits)))) {
    for (int64_t i = 0; i + 4 <= memory_.bytes(); i += 4) {
      *reinterpret_cast<float*>(memory_.data() + i) = kNan;
    }
    backend_.UseScratch(memory_.data(), memory_.bytes(), limits);
  }
  ~LentScratch() { backend_.UseScratch(nullptr, 0, {}); }

 private:
  Backend& backend_;
  Buffer memory_;
};

}  // namespace nibble
