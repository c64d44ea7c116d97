// Products by wgmma with weights decoded into its registers, against the definition in double.
#include "kernels/cuda/four_bit_hopper.h"

#include <cmath>
#include <cstring>

#include "kernels/half.h"
#include "tests/kernels/cuda/four_bit_fixture.h"

namespace nibble::cuda {
namespace {

// One part of a product: a matrix, where its results go and what was there before.
struct TestPart {
  FourBitMatrix matrix;
  PackedFourBit packed;
  DType bias_type = DType::kF32;
  std::vector<float> bias;  // [n], or none
  DeviceArray<uint8_t> device_bias;
  bool accumulate = false;
  int64_t stride = 0;
  std::vector<float> old;  // [rows - 1, stride] and a row of n
  DeviceArray<float> out;

  explicit TestPart(const FourBitMatrix& values) : matrix(values), packed(values) {}
};

void AddBias(Random& random, TestPart* part) {
  part->bias_type = static_cast<DType>(Uniform(random, 0, 2));
  std::vector<uint8_t> bytes;
  for (int64_t n = 0; n < part->matrix.n; ++n) {
    float value = static_cast<float>(Uniform(random, -64, 64)) / 8.0f;  // exact in every type
    part->bias.push_back(value);
    const uint16_t half =
        part->bias_type == DType::kF32 ? uint16_t{0} : F32ToHalf(part->bias_type, value);
    const auto* from = part->bias_type == DType::kF32 ? reinterpret_cast<const uint8_t*>(&value)
                                                      : reinterpret_cast<const uint8_t*>(&half);
    bytes.insert(bytes.end(), from, from + SizeOf(part->bias_type));
  }
  part->device_bias = DeviceArray<uint8_t>(bytes, 4);
}

TestPart MakePart(Random& random, const FourBitMatrix& matrix, int64_t rows) {
  TestPart part(matrix);
  if (Uniform(random, 0, 1) == 1) AddBias(random, &part);
  part.accumulate = Uniform(random, 0, 1) == 1;
  part.stride = matrix.n + Uniform(random, 0, 5);
  part.old.resize(static_cast<size_t>((rows - 1) * part.stride + matrix.n));
  for (float& value : part.old) value = static_cast<float>(Uniform(random, -99, 99));
  part.out = DeviceArray<float>(part.old, 4);
  return part;
}

// Multiplies and leaves results in the parts' `out`; the counters must be zero again.
void Multiply(const std::vector<float>& x, int64_t rows, int processors,
              std::vector<TestPart>& parts) {
  const int64_t k = parts[0].matrix.k;
  DeviceArray<float> device_x(x, 4);
  DeviceArray<char> scratch(TiledRowsBytes(rows, k), 128);
  DeviceArray<char> split = DeviceScratch(HopperSplitBytes(processors));
  FourBitParts task = {};
  for (TestPart& part : parts) {
    task.parts[task.num_parts++] = {part.packed.view(),
                                    part.out.data(),
                                    part.stride,
                                    part.bias.empty() ? nullptr : part.device_bias.data(),
                                    static_cast<int32_t>(part.bias_type),
                                    part.accumulate ? 1 : 0};
  }
  Tape tape;
  tape.AddFill(split.data(), 0, 4 * kSplitCounters);
  const TiledRows tiled = PrepareTiles(&tape, {device_x.data(), rows, k, k}, scratch.data());
  FourBitHopper(&tape, processors, tiled, task, split.data());
  Play(tape);
  std::vector<uint32_t> counters(static_cast<size_t>(kSplitCounters));
  CopyNow(counters.data(), split.data(), 4 * kSplitCounters);
  for (const uint32_t counter : counters) ASSERT_EQ(counter, 0u);
}

// The largest magnitude of a row of x, and the sum of a row of W's: what tiny x may lose.
double LargestOf(const std::vector<float>& x, int64_t m, int64_t k) {
  double largest = 0;
  for (int64_t i = 0; i < k; ++i) {
    largest = std::fmax(largest, std::fabs(static_cast<double>(x[static_cast<size_t>(m * k + i)])));
  }
  return largest;
}

// |got - ref| <= c·Σ|x·w| + tiny + rounding of the last additions. x and the codebook are each
// rounded to fp16, 2^-11 of their values; x also by 2^-25 of its power of two, that is 2^-39 of the
// row's largest, when its fp16 is subnormal. Then fp32 sums, at worst truncated, 2^-23 a step: 64
// products of a unit and one addition per group and per piece.
void ExpectNear(const std::vector<float>& x, int64_t rows, const TestPart& part) {
  const ProductSums want = MultiplyExactly(x, rows, part.matrix);
  const std::vector<float> got = part.out.Get();
  const int64_t n = part.matrix.n, k = part.matrix.k;
  const double steps = 64.0 + static_cast<double>(k) / 32 + static_cast<double>(k) / 64 + 4;
  const double c = 2 * std::ldexp(1.0, -11) + std::ldexp(1.0, -22) + steps * std::ldexp(1.0, -23);
  for (int64_t m = 0; m < rows; ++m) {
    const double tiny = std::ldexp(LargestOf(x, m, k), -39) * static_cast<double>(k) * 4;
    for (int64_t i = 0; i < n; ++i) {
      const size_t at = static_cast<size_t>(m * n + i);
      const size_t place = static_cast<size_t>(m * part.stride + i);
      const double bias = part.bias.empty() ? 0 : part.bias[static_cast<size_t>(i)];
      const double old = part.accumulate ? part.old[place] : 0;
      const double ref = want.sum[at] + bias + old;
      const double last = std::fabs(want.sum[at]) + std::fabs(bias) + std::fabs(old);
      const double bound = c * want.magnitude[at] + tiny + std::ldexp(last, -22);
      ASSERT_LE(std::fabs(static_cast<double>(got[place]) - ref), bound)
          << "row " << m << " feature " << i << ": got " << got[place] << ", reference " << ref;
    }
    for (int64_t i = n; i < part.stride && m + 1 < rows; ++i) {
      const size_t place = static_cast<size_t>(m * part.stride + i);
      ASSERT_EQ(got[place], part.old[place]) << "beside the results of row " << m;
    }
  }
}

std::vector<float> RandomX(Random& random, int64_t rows, int64_t k) {
  std::vector<float> x(static_cast<size_t>(rows * k));
  const bool outliers = Uniform(random, 0, 3) == 0;
  for (int64_t m = 0; m < rows; ++m) {
    const int exponent = static_cast<int>(Uniform(random, -12, 12));
    for (int64_t i = 0; i < k; ++i) {
      const int extra = outliers && Uniform(random, 0, 31) == 0 ? 12 : 0;
      x[static_cast<size_t>(m * k + i)] = std::ldexp(UniformFloat(random, -1, 1), exponent + extra);
    }
  }
  return x;
}

struct RandomShape {
  int64_t rows, k;
  int32_t group;
  int processors, num_parts;
};
// Mostly a tile or a few in each direction, with every kind of edge.
RandomShape DrawShape(Random& random) {
  constexpr int32_t kGroups[] = {32, 64, 64, 64, 128, 256};
  RandomShape shape;
  shape.group = kGroups[Uniform(random, 0, 5)];
  const bool deep = Uniform(random, 0, 4) == 0;  // enough units for several blocks to share a tile
  shape.k = shape.group * Uniform(random, 1, (deep ? 1600 : 320) / shape.group);
  shape.rows =
      deep || Uniform(random, 0, 3) > 0 ? Uniform(random, 1, 80) : Uniform(random, 65, 300);
  shape.processors = static_cast<int>(Uniform(random, 1, 5));
  shape.num_parts = static_cast<int>(Uniform(random, 0, 3) > 0 ? 1 : Uniform(random, 2, 4));
  return shape;
}

void TryRandomShape(uint64_t seed) {
  Random random(seed);
  const RandomShape shape = DrawShape(random);
  SCOPED_TRACE(::testing::Message() << "seed " << seed << " rows " << shape.rows << " k " << shape.k
                                    << " group " << shape.group << " processors "
                                    << shape.processors << " parts " << shape.num_parts);
  SetMachineSeed(seed);
  const bool double_quant = Uniform(random, 0, 1) == 1, own = Uniform(random, 0, 3) == 0;
  const WeightFormat format = Uniform(random, 0, 3) == 0 ? WeightFormat::kFp4 : WeightFormat::kNf4;
  std::vector<TestPart> parts;
  for (int i = 0; i < shape.num_parts; ++i) {
    const int64_t n = Uniform(random, 0, 5) > 0 ? Uniform(random, 1, 64) : Uniform(random, 65, 400);
    parts.push_back(
        MakePart(random, RandomFourBit(random, format, n, shape.k, shape.group, double_quant, own),
                 shape.rows));
  }
  const std::vector<float> x = RandomX(random, shape.rows, shape.k);
  Multiply(x, shape.rows, shape.processors, parts);
  for (const TestPart& part : parts) ExpectNear(x, shape.rows, part);
}

class FourBitHopperTest : public CudaTest {
 protected:
  void SetUp() override {
    CudaTest::SetUp();
    if (IsSkipped()) return;
    if (traits().compute_major != 9 || traits().compute_minor != 0) {
      GTEST_SKIP() << "the kernel is for compute capability 9.0";
    }
  }
};

TEST_F(FourBitHopperTest, ComesNearTheReferenceOverRandomShapes) {
  for (uint64_t seed = 1; seed <= 520 && !HasFailure(); ++seed) TryRandomShape(seed);
}

// Small integers, eighths and powers of two: no rounding anywhere, so any order gives these bits.
TEST_F(FourBitHopperTest, GivesExactNumbersExactly) {
  Random random(7);
  for (int round = 0; round < 24 && !HasFailure(); ++round) {
    SetMachineSeed(static_cast<uint64_t>(round));
    const int32_t group = round % 3 == 0 ? 32 : 64;
    const int64_t rows = Uniform(random, 1, 140), k = group * Uniform(random, 1, 5);
    std::vector<TestPart> parts;
    parts.push_back(
        MakePart(random, ExactFourBit(random, Uniform(random, 1, 300), k, group), rows));
    std::vector<float> x(static_cast<size_t>(rows * k));
    for (float& value : x) value = static_cast<float>(Uniform(random, -4, 4));
    Multiply(x, rows, 1 + round % 5, parts);
    const TestPart& part = parts[0];
    const ProductSums want = MultiplyExactly(x, rows, part.matrix);
    const std::vector<float> got = part.out.Get();
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t n = 0; n < part.matrix.n; ++n) {
        const size_t place = static_cast<size_t>(m * part.stride + n);
        const double bias = part.bias.empty() ? 0 : part.bias[static_cast<size_t>(n)];
        const double old = part.accumulate ? part.old[place] : 0;
        ASSERT_EQ(static_cast<double>(got[place]),
                  want.sum[static_cast<size_t>(m * part.matrix.n + n)] + bias + old)
            << "round " << round << " row " << m << " feature " << n;
      }
    }
  }
}

// Two row tiles and two token tiles of five units among three blocks: every kind of piece.
TEST_F(FourBitHopperTest, GivesTheSameBitsWhateverTheTiming) {
  Random random(11);
  const FourBitMatrix matrix = RandomFourBit(random, WeightFormat::kNf4, 300, 320, 64, true, false);
  const std::vector<float> x = RandomX(random, 130, 320);
  std::vector<float> first;
  ForMachineSeeds(4, [&] {
    std::vector<TestPart> parts;
    Random same(3);
    parts.push_back(MakePart(same, matrix, 130));
    Multiply(x, 130, 3, parts);
    const std::vector<float> got = parts[0].out.Get();
    if (first.empty()) first = got;
    ASSERT_EQ(std::memcmp(got.data(), first.data(), got.size() * sizeof(float)), 0);
  });
}

// Every weight is 1 times its scale, and row m of x takes the m-th group alone.
TEST_F(FourBitHopperTest, ReadsNestedScalesWithTwoRoundings) {
  Random random(23);
  FourBitMatrix matrix = RandomFourBit(random, WeightFormat::kNf4, 300, 320, 64, true, false);
  for (uint8_t& byte : matrix.codes) byte = 0xff;
  std::vector<float> x(5 * 320);
  for (size_t m = 0; m < 5; ++m) x[m * 320 + m * 64] = 1.0f;
  std::vector<TestPart> parts;
  parts.emplace_back(matrix);
  parts[0].stride = 300;
  parts[0].out = DeviceArray<float>(5 * 300, 4);
  Multiply(x, 5, 2, parts);
  const std::vector<float> got = parts[0].out.Get();
  for (int64_t m = 0; m < 5; ++m) {
    for (int64_t n = 0; n < 300; ++n) {
      ASSERT_EQ(got[static_cast<size_t>(m * 300 + n)], GroupScale(matrix, n * 5 + m))
          << "row " << m << " feature " << n;
    }
  }
}

TEST_F(FourBitHopperTest, TakesPartsWithDifferentCodebooks) {
  Random random(13);
  std::vector<TestPart> parts;
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4, WeightFormat::kFp4}) {
    parts.push_back(
        MakePart(random, RandomFourBit(random, format, 40, 128, 64, true, parts.size() == 2), 70));
  }
  const std::vector<float> x = RandomX(random, 70, 128);
  Multiply(x, 70, 2, parts);
  for (const TestPart& part : parts) ExpectNear(x, 70, part);
}

TEST_F(FourBitHopperTest, TakesScalesOfManyUnitsAndOfHalfAUnit) {
  Random random(17);
  for (const int32_t group : {32, 512}) {
    std::vector<TestPart> parts;
    const int64_t k = group == 32 ? 96 : 1024;  // 96: the last unit is half empty
    parts.push_back(MakePart(
        random, RandomFourBit(random, WeightFormat::kNf4, 20, k, group, group == 32, false), 9));
    const std::vector<float> x = RandomX(random, 9, k);
    Multiply(x, 9, 3, parts);
    ExpectNear(x, 9, parts[0]);
  }
}

TEST_F(FourBitHopperTest, LetsNaNAndInfinityThrough) {
  Random random(19);
  std::vector<TestPart> parts;
  parts.push_back(
      MakePart(random, RandomFourBit(random, WeightFormat::kNf4, 17, 64, 64, false, false), 3));
  std::vector<float> x = RandomX(random, 3, 64);
  x[5] = std::nanf("");
  Multiply(x, 3, 1, parts);
  const std::vector<float> got = parts[0].out.Get();
  for (int64_t n = 0; n < 17; ++n) {
    EXPECT_TRUE(std::isnan(got[static_cast<size_t>(n)]));
    EXPECT_TRUE(std::isfinite(got[static_cast<size_t>(parts[0].stride + n)]));
  }
}

}  // namespace
}  // namespace nibble::cuda
