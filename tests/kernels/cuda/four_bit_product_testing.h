// Grouped products with packed 4-bit matrices: random ones, their inputs and outputs on the device,
// and what they must give.
#pragma once

#include <memory>
#include <vector>

#include "tests/kernels/cuda/four_bit_testing.h"

namespace nibble::cuda {

// Scratch memory for split sums, its counters zero.
class SplitMemory {
 public:
  SplitMemory() : memory_(DeviceScratch(kSplitBytes)) {
    const std::vector<uint32_t> zeros(static_cast<size_t>(kSplitCounters), 0);
    CopyNow(memory_.data(), zeros.data(), kSplitCounters * 4);
  }
  void* data() const { return memory_.data(); }
  // Every kernel leaves the counters as it found them.
  void ExpectCountersAreZero() const {
    std::vector<uint32_t> counters(static_cast<size_t>(kSplitCounters));
    CopyNow(counters.data(), memory_.data(), kSplitCounters * 4);
    for (size_t i = 0; i < counters.size(); ++i) ASSERT_EQ(counters[i], 0u) << i;
  }

 private:
  DeviceArray<char> memory_;
};

// Up to four matrices of one width and form; some with bias, some added to old values.
class TestProduct {
 public:
  TestProduct(Dice& dice, const WeightSpec& spec, const std::vector<int64_t>& widths, int64_t rows)
      : rows_(rows), k_(spec.k), x_(dice.Normals(rows * spec.k)) {
    for (size_t i = 0; i < widths.size(); ++i) {
      WeightSpec part = spec;
      part.n = widths[i];
      parts_.emplace_back(dice, part, rows);
    }
  }

  int64_t rows() const { return rows_; }
  int64_t k() const { return k_; }
  const std::vector<float>& x() const { return x_; }

  // The parts from scratch: old values where they are added to, poison elsewhere.
  FourBitParts Parts() const {
    FourBitParts parts = {};
    for (const Part& part : parts_) {
      CopyNow(part.out.data(), part.old.data(), part.out.size() * 4);
      FourBitPart& to = parts.parts[parts.num_parts++];
      to.weight = part.weight->view();
      to.out = part.out.data();
      to.out_stride = part.stride;
      to.bias = part.bias_type < 0 ? nullptr : part.bias.data();
      to.bias_type = part.bias_type < 0 ? 0 : part.bias_type;
      to.accumulate = part.accumulate ? 1 : 0;
    }
    return parts;
  }
  std::vector<float> Out(size_t part) const { return parts_[part].out.Get(); }

  // A part as the CPU takes it.
  struct HostPart {
    const FourBitMatrix* matrix;
    const std::vector<float>* old;
    int64_t stride;
    const void* bias;
    DType bias_type;
    bool accumulate;
  };
  HostPart Host(size_t index) const {
    const Part& part = parts_[index];
    const bool none = part.bias_type < 0;
    return {&part.matrix,
            &part.old,
            part.stride,
            none ? nullptr : part.bias_bytes.data(),
            none ? DType::kF32 : static_cast<DType>(part.bias_type),
            part.accumulate};
  }
  size_t num_parts() const { return parts_.size(); }

  // Every output against Σ_k x·w in double; w has its codes rounded to fp16 if `half_codes`.
  // Each of the K products joins its sum by a chain of at most K / 16 · 17 + groups additions, in
  // the tensor cores truncated (one ulp, 2^-23), then the splits, bias and the old value; ref
  // itself is rounded once. Twice that many ulps of Σ|x·w| bound it.
  void ExpectOut(const std::vector<float>& x, bool half_codes) const {
    for (size_t p = 0; p < parts_.size(); ++p) {
      const Part& part = parts_[p];
      const std::vector<float> w = part.Weights(half_codes), out = Out(p);
      const double ulps = 2.0 * static_cast<double>(k_ + k_ / part.matrix.group_size + 64);
      for (int64_t m = 0; m < rows_; ++m) {
        for (int64_t n = 0; n < part.matrix.n; ++n) {
          double sum = 0, magnitude = 0;
          for (int64_t i = 0; i < k_; ++i) {
            const double product = double{x[static_cast<size_t>(m * k_ + i)]} *
                                   double{w[static_cast<size_t>(n * k_ + i)]};
            sum += product;
            magnitude += std::fabs(product);
          }
          const size_t at = static_cast<size_t>(m * part.stride + n);
          const double rest = part.Bias(n) + (part.accumulate ? double{part.old[at]} : 0.0);
          const double want = sum + rest;
          const double bound =
              ulps * 0x1p-23 *
                  (magnitude + std::fabs(part.Bias(n)) + std::fabs(double{part.old[at]})) +
              1e-30;
          ASSERT_LE(std::fabs(double{out[at]} - want), bound)
              << "part " << p << " [" << m << "," << n << "] got " << out[at] << " want " << want;
        }
        // The margin between rows is nobody's.
        for (int64_t n = part.matrix.n; n < part.stride; ++n) {
          const size_t at = static_cast<size_t>(m * part.stride + n);
          ASSERT_EQ(out[at], part.old[at]) << "margin of part " << p;
        }
      }
    }
  }

 private:
  struct Part {
    Part(Dice& dice, const WeightSpec& spec, int64_t rows)
        : matrix(RandomFourBit(dice, spec)), stride(spec.n + dice.Between(0, 3)) {
      weight = std::make_unique<DeviceFourBit>(matrix);
      old = dice.Normals(rows * stride);
      accumulate = dice.Chance();
      bias_type = static_cast<int>(dice.Between(-1, 2));
      for (int64_t n = 0; n < spec.n; ++n) bias_values.push_back(dice.Normal());
      for (float& value : bias_values) {
        const auto type = static_cast<DType>(bias_type < 0 ? 0 : bias_type);
        if (type != DType::kF32) value = HalfToF32(type, F32ToHalf(type, value));
        const uint32_t bits =
            type == DType::kF32 ? std::bit_cast<uint32_t>(value) : F32ToHalf(type, value);
        for (int64_t i = 0; i < SizeOf(type); ++i) {
          bias_bytes.push_back(static_cast<uint8_t>(bits >> (8 * i)));
        }
      }
      bias = DeviceArray<uint8_t>(bias_bytes, 4);
      out = DeviceArray<float>(rows * stride, 4);
    }
    std::vector<float> Weights(bool half_codes) const {
      FourBitMatrix rounded = matrix;
      for (float& code : rounded.codebook) {
        if (half_codes) code = F16ToF32(F32ToF16(code));
      }
      return Dequantized(rounded);
    }
    double Bias(int64_t n) const {
      return bias_type < 0 ? 0.0 : double{bias_values[static_cast<size_t>(n)]};
    }

    FourBitMatrix matrix;
    int64_t stride;
    std::unique_ptr<DeviceFourBit> weight;
    std::vector<float> old, bias_values;
    bool accumulate;
    int bias_type;  // DType, or none: -1
    std::vector<uint8_t> bias_bytes;
    DeviceArray<uint8_t> bias;
    DeviceArray<float> out;
  };

  int64_t rows_, k_;
  std::vector<float> x_;
  std::vector<Part> parts_;
};

// Forms that the tensor-core kernels take.
inline WeightSpec RandomFitting(Dice& dice, int64_t max_units) {
  WeightSpec spec;
  spec.format = dice.Between(0, 3) == 0 ? WeightFormat::kFp4 : WeightFormat::kNf4;
  spec.group_size = static_cast<int32_t>(32) << dice.Between(0, 3);
  spec.double_quant = dice.Chance();
  spec.own_tables = dice.Between(0, 7) == 0;
  const int64_t most = std::max<int64_t>(1, max_units * kUnitK / spec.group_size);
  spec.k = spec.group_size * dice.Between(1, most);
  return spec;
}

}  // namespace nibble::cuda
