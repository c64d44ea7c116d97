// LLM.int8() on the device: equal to the CPU backend bit for bit, and its rows of x to the
// reference's number for number.
#include "kernels/cuda/int8_matmul.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "kernels/reference/int8.h"
#include "tests/kernels/cuda/matmul_testing.h"

namespace nibble::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

using Int8 = CudaTest;

// Quantized normal values, with codes that only a foreign file holds.
Int8Matrix RandomInt8(int64_t n, int64_t k, Random& random) {
  Int8Matrix matrix = MakeInt8Matrix(n, k);
  const absl::Status status = QuantizeInt8(0, random.Normals(n * k, 0.05f), &matrix);
  EXPECT_TRUE(status.ok()) << status;
  matrix.codes[static_cast<size_t>(random.Below(n * k))] = -128;
  return matrix;
}

std::vector<int8_t> PaddedRows(const Int8Matrix& matrix) {
  const int64_t stride = Int8Stride(matrix.k);
  std::vector<int8_t> rows(static_cast<size_t>(matrix.n * stride));
  for (int64_t n = 0; n < matrix.n; ++n) {
    std::copy_n(matrix.codes.data() + n * matrix.k, matrix.k, rows.data() + n * stride);
  }
  return rows;
}

struct Case {
  int64_t m, n, k;
  float threshold;
  bool accumulate = false;
  bool in_place = false;  // integer sums lie in out
};

// The three launches.
Matrix OnDevice(const Case& c, const Matrix& x, const Int8Matrix& matrix, const DeviceBias& bias,
                const Matrix& old) {
  const DeviceMatrix on_device(x, 4), out(old, 4);
  const DeviceArray<int8_t> codes(PaddedRows(matrix));
  const DeviceArray<float> absmax(matrix.absmax, 4);
  const DeviceArray<char> memory = DeviceScratch(Int8RowsBytes(c.m, c.k));
  const DeviceArray<int32_t> sums(c.m * c.n, 4);
  const DensePart part = {codes.data(),
                          absmax.data(),
                          bias.View().data,
                          out.View().data,
                          out.View().stride,
                          c.n,
                          static_cast<int32_t>(bias.View().dtype),
                          c.accumulate ? 1 : 0};
  const Int8Rows rows = PlaceInt8Rows(memory.data(), c.m, c.k);
  int32_t* const place = c.in_place ? reinterpret_cast<int32_t*>(part.out) : sums.data();
  const int64_t stride = c.in_place ? part.out_stride : c.n;
  Tape tape;
  PrepareInt8(&tape, on_device.View(), c.threshold, rows);
  Int8Sums(&tape, rows, codes.data(), c.n, place, stride);
  FinishInt8(&tape, on_device.View(), rows, part, place, stride);
  Play(tape);
  return out.Get();
}

Matrix OnCpu(Backend& cpu, const Case& c, const Matrix& x, const Int8Matrix& matrix,
             const DeviceBias& bias, const Matrix& old) {
  const LentScratch scratch(cpu, {.max_rows = c.m, .max_k = c.k});
  const PackedMatrix packed(cpu, matrix, c.threshold);
  Matrix out = old;
  const MatMulPart part = {&packed.weight(), bias.HostView(), out.View(), c.accumulate};
  cpu.MatMul(x.View(), {&part, 1});
  return out;
}

Case RandomCase(Random& random) {
  constexpr float kThresholds[] = {0, 6, 1, 3.3f, 1e-9f};
  Case c = {1 + random.Below(random.Below(3) == 0 ? 20 : 6), 1 + random.Below(150),
            1 + random.Below(random.Below(5) == 0 ? 1500 : 150), kThresholds[random.Below(5)]};
  c.accumulate = random.Below(3) == 0;
  c.in_place = !c.accumulate && random.Below(2) == 0;
  return c;
}

TEST_F(Int8, ProductsEqualTheCpuBitForBit) {
  Random random(1);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  for (int i = 0; i < 500; ++i) {
    const Case c = RandomCase(random);
    SCOPED_TRACE(absl::StrCat("M=", c.m, " N=", c.n, " K=", c.k, " threshold=", c.threshold,
                              " accumulate=", c.accumulate, " in_place=", c.in_place));
    Matrix x(c.m, c.k, random, 2);
    for (int64_t j = random.Below(4); j > 0; --j) {
      constexpr float kOdd[] = {50, -7, 1e6f, 65504, 65519, kInf, kNan, -kInf, 1e-9f};
      x.At(random.Below(c.m), random.Below(c.k)) = kOdd[random.Below(9)];
    }
    const Int8Matrix matrix = RandomInt8(c.n, c.k, random);
    const DeviceBias bias = RandomBias(c.n, random);
    const Matrix old(c.m, c.n, random);
    ExpectSameNumbers(OnDevice(c, x, matrix, bias, old), OnCpu(*cpu, c, x, matrix, bias, old), "");
    if (HasFatalFailure()) return;
  }
}

TEST_F(Int8, TheMachinesOrderDoesNotShow) {
  Random random(2);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const Case c = {9, 140, 700, 2};
  const Matrix x(c.m, c.k, random, 2), old(c.m, c.n);
  const Int8Matrix matrix = RandomInt8(c.n, c.k, random);
  const Matrix want = OnCpu(*cpu, c, x, matrix, {}, old);
  ForMachineSeeds(8, [&] { ExpectSameNumbers(OnDevice(c, x, matrix, {}, old), want, ""); });
}

TEST_F(Int8, TheLargestCodesOfTheWidestMatrixSumExactly) {
  const Case c = {1, 2, kMaxInt8Columns, 0};
  Int8Matrix matrix = MakeInt8Matrix(c.n, c.k);
  std::fill_n(matrix.codes.begin(), c.k, int8_t{-128});
  std::fill_n(matrix.codes.begin() + c.k, c.k, int8_t{127});
  matrix.absmax = {127, 127};
  Matrix x(1, c.k);
  for (int64_t k = 0; k < c.k; ++k) x.At(0, k) = 127;
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const Matrix old(1, c.n);
  ExpectSameNumbers(OnDevice(c, x, matrix, {}, old), OnCpu(*cpu, c, x, matrix, {}, old), "");
}

TEST_F(Int8, RowsAreTakenApartAsTheReferenceDoes) {
  Random random(3);
  Matrix x(4, 203, random, 3);
  constexpr float kOdd[] = {6, 5.9999995f, -5.99f, 1e6f, -65519, kInf, kNan, -kInf, 0};
  std::copy(std::begin(kOdd), std::end(kOdd), x.View().Row(1) + 30);
  for (int64_t k = 0; k < 203; ++k) x.At(2, k) = 0;
  for (int64_t k = 0; k < 203; ++k) x.At(3, k) = 100;
  const DeviceMatrix on_device(x, 4);
  for (const float threshold : {0.0f, 6.0f, 3.3f, 1e-9f}) {
    const DeviceArray<char> memory = DeviceScratch(Int8RowsBytes(4, 203));
    const Int8Rows rows = PlaceInt8Rows(memory.data(), 4, 203);
    Tape tape;
    PrepareInt8(&tape, on_device.View(), threshold, rows);
    Play(tape);
    std::vector<int8_t> codes(static_cast<size_t>(4 * rows.stride));
    std::vector<uint32_t> masks(static_cast<size_t>(4 * rows.masks));
    std::vector<float> stats(4);
    std::vector<int32_t> counts(4);
    CopyNow(codes.data(), rows.codes, 4 * rows.stride);
    CopyNow(masks.data(), rows.outliers, 4 * rows.masks * 4);
    CopyNow(stats.data(), rows.stats, 16);
    CopyNow(counts.data(), rows.counts, 16);
    for (int64_t m = 0; m < 4; ++m) {
      const reference::Int8Row want = reference::TakeApart({x.View().Row(m), 203}, threshold);
      EXPECT_EQ(stats[static_cast<size_t>(m)], want.stat) << m << " " << threshold;
      EXPECT_EQ(counts[static_cast<size_t>(m)],
                std::count(want.is_outlier.begin(), want.is_outlier.end(), true));
      for (int64_t k = 0; k < rows.stride; ++k) {
        const bool inside = k < 203;
        const auto at = static_cast<size_t>(k);
        ASSERT_EQ(codes[static_cast<size_t>(m * rows.stride + k)], inside ? want.codes[at] : 0)
            << m << " " << k << " " << threshold;
        const uint32_t word = masks[static_cast<size_t>(m * rows.masks + k / 32)];
        ASSERT_EQ((word >> (k % 32) & 1) != 0, inside && want.is_outlier[at])
            << m << " " << k << " " << threshold;
      }
    }
  }
}

TEST_F(Int8, MemoryOfRowsIsWhatIsAskedFor) {
  const int64_t m = 5, k = 203;
  char* const memory = reinterpret_cast<char*>(int64_t{4096});
  const Int8Rows rows = PlaceInt8Rows(memory, m, k);
  EXPECT_EQ(reinterpret_cast<char*>(rows.counts + m) - memory, Int8RowsBytes(m, k) - (256 - m * 8));
  EXPECT_GE(reinterpret_cast<char*>(rows.stats),
            reinterpret_cast<char*>(rows.outliers) + m * rows.masks * 4);
  EXPECT_GE(reinterpret_cast<char*>(rows.outliers),
            reinterpret_cast<char*>(rows.codes) + m * rows.stride);
}

}  // namespace
}  // namespace nibble::cuda
