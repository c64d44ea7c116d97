// Norms, activations, look-ups and pooling on the device: against the reference by derived bounds,
// against the CPU bit by bit where both compute the same formula, in rows of any width, stride and
// alignment.
#include "kernels/cuda/row_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/backend.h"
#include "kernels/half.h"
#include "tests/kernels/cuda/cuda_test.h"

namespace nibble::cuda {
namespace {

constexpr double kUlp = 0x1p-24;  // half an ulp of 1: one rounding's relative error
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();
// Additions that one value of a row sum goes through: a thread's 16 (4·ceil(cols/4096) of the
// widest), then two foldings of 32.
constexpr double kSumSteps = 20 + 10;

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

// [rows, cols] on host and device, NaN between the rows. A device row begins anywhere.
class Rows {
 public:
  Rows(int64_t rows, int64_t cols, int64_t margin = 0)
      : rows_(rows),
        cols_(cols),
        stride_(cols + margin),
        host_(static_cast<size_t>((rows - 1) * stride_ + cols), kNan),
        device_(static_cast<int64_t>(host_.size()), 4) {
    for (int64_t r = 0; r < rows; ++r) std::fill_n(Host().Row(r), cols, 0.0f);
  }
  Rows(int64_t rows, int64_t cols, int64_t margin, Random& random, float scale = 1)
      : Rows(rows, cols, margin) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) At(r, c) = scale * random.Normal();
    }
    Upload();
  }
  float& At(int64_t r, int64_t c) { return host_[static_cast<size_t>(r * stride_ + c)]; }
  Activations Host() { return {host_.data(), rows_, cols_, stride_}; }
  Activations Device() const { return {device_.data(), rows_, cols_, stride_}; }
  void Upload() { device_.Set(host_); }
  void Download() { host_ = device_.Get(); }
  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }

 private:
  int64_t rows_, cols_, stride_;
  std::vector<float> host_;
  DeviceArray<float> device_;
};

struct Shape {
  int64_t rows, cols, margin;
};
// Mostly small; some of every number of threads.
Shape RandomShape(Random& random) {
  constexpr int64_t kWidths[] = {1, 4, 31, 128, 512, 516, 1024, 2050, 4096, 5000, 9000, 17001};
  const int64_t rows = 1 + random.Below(6), margin = random.Below(5);
  if (random.Below(16) != 0) return {rows, 1 + random.Below(300), margin};
  return {1 + random.Below(2), kWidths[random.Below(12)], margin};
}

bool SameBits(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void ExpectSame(Rows& got, Rows& want) {
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      ASSERT_TRUE(SameBits(got.At(r, c), want.At(r, c)))
          << "[" << r << "," << c << "] of " << want.cols() << ": got " << got.At(r, c) << ", want "
          << want.At(r, c);
    }
  }
}

// |got - want| <= bound(r, c); NaN and infinities exactly where the reference has them.
template <typename Bound>
void ExpectWithin(Rows& got, Rows& want, const Bound& bound) {
  for (int64_t r = 0; r < want.rows(); ++r) {
    for (int64_t c = 0; c < want.cols(); ++c) {
      if (SameBits(got.At(r, c), want.At(r, c))) continue;
      const double limit = bound(r, c);
      ASSERT_LE(std::abs(double{got.At(r, c)} - double{want.At(r, c)}), limit)
          << "[" << r << "," << c << "] of " << want.cols() << ": got " << got.At(r, c) << ", want "
          << want.At(r, c);
    }
  }
}

// A vector of any type on both sides.
class Vector {
 public:
  Vector(int64_t length, DType dtype, Random& random) : dtype_(dtype), length_(length) {
    const std::vector<float> values = random.Normals(length);
    bytes_.resize(static_cast<size_t>(length * SizeOf(dtype)));
    for (int64_t i = 0; i < length; ++i) {
      const float value = values[static_cast<size_t>(i)];
      if (dtype == DType::kF32) {
        std::memcpy(bytes_.data() + 4 * i, &value, 4);
      } else {
        const uint16_t half = F32ToHalf(dtype, value);
        std::memcpy(bytes_.data() + 2 * i, &half, 2);
      }
    }
    device_ = DeviceArray<uint8_t>(bytes_, SizeOf(dtype));
  }
  VectorView Host() const { return {bytes_.data(), dtype_, length_}; }
  VectorView Device() const { return {device_.data(), dtype_, length_}; }
  double At(int64_t i) const {
    if (dtype_ == DType::kF32) return double{reinterpret_cast<const float*>(bytes_.data())[i]};
    return double{HalfToF32(dtype_, reinterpret_cast<const uint16_t*>(bytes_.data())[i])};
  }

 private:
  DType dtype_;
  int64_t length_;
  std::vector<uint8_t> bytes_;
  DeviceArray<uint8_t> device_;
};

DType RandomType(Random& random) { return static_cast<DType>(random.Below(3)); }

std::unique_ptr<Backend> Reference() { return std::move(*MakeReferenceBackend()); }
std::unique_ptr<Backend> Cpu() {
  BackendOptions options;
  options.num_threads = 1;
  return std::move(*MakeCpuBackend(options));
}

using RowOps = CudaTest;

// What a LayerNorm of one row is wrong by, value by value. s = x + residual has one rounding; the
// mean kSumSteps of its terms; a distance what mean and s are; the variance what its distances are,
// and its own sum; then four roundings of the root, its inverse and two products, and one more.
class LayerNormBound {
 public:
  LayerNormBound(const std::vector<double>& s, double eps) : s_(s) {
    const auto n = static_cast<double>(s.size());
    double magnitude = 0, largest = 0;
    for (const double v : s) {
      mean_ += v / n;
      magnitude += std::abs(v) / n;
      largest = std::max(largest, std::abs(v));
    }
    double variance = 0;
    for (const double v : s) variance += (v - mean_) * (v - mean_) / n;
    distance_ = ((kSumSteps + 3) * magnitude + 2 * largest) * kUlp;
    const double of_variance = 2 * std::sqrt(variance) * distance_ + distance_ * distance_ +
                               (kSumSteps + 4) * kUlp * variance;
    inverse_ = 1 / std::sqrt(variance + eps);
    relative_ = of_variance / (2 * (variance + eps)) + 5 * kUlp;
  }
  double operator()(int64_t c, double weight, double want) const {
    const double distance = std::abs(s_[static_cast<size_t>(c)] - mean_);
    return std::abs(weight) * inverse_ * (distance_ + (distance + distance_) * relative_) +
           2 * kUlp * std::abs(want) + 1e-40;
  }

 private:
  const std::vector<double>& s_;
  double mean_ = 0, distance_ = 0, inverse_ = 0, relative_ = 0;
};

// The sum of squares is wrong by kSumSteps roundings, of which a root takes half; five more follow.
TEST_F(RowOps, RmsNormMatchesTheReference) {
  Random random(1);
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      Rows x(shape.rows, shape.cols, shape.margin, random, 5);
      const Vector weight(shape.cols, RandomType(random), random);
      const bool in_place = random.Below(2) == 0;
      Rows out(shape.rows, shape.cols, random.Below(5)), want(shape.rows, shape.cols);
      Reference()->RmsNorm(x.Host(), weight.Host(), 1e-5f, want.Host());
      Rows& got = in_place ? x : out;
      Tape tape;
      RmsNorm(&tape, x.Device(), weight.Device(), 1e-5f, got.Device());
      Play(tape);
      got.Download();
      ExpectWithin(got, want, [&](int64_t r, int64_t c) {
        return (kSumSteps / 2 + 5) * kUlp * std::abs(double{want.At(r, c)}) + 1e-40;
      });
      if (HasFatalFailure()) return;
    }
  });
}

TEST_F(RowOps, LayerNormMatchesTheReferenceWithAndWithoutResidualAndBias) {
  Random random(2);
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      Rows x(shape.rows, shape.cols, shape.margin, random, 2);
      Rows residual(shape.rows, shape.cols, random.Below(5), random);
      const Vector weight(shape.cols, RandomType(random), random);
      const Vector bias(shape.cols, RandomType(random), random);
      const bool adds = random.Below(2) == 0, shifts = random.Below(2) == 0;
      Rows out(shape.rows, shape.cols, random.Below(5)), want(shape.rows, shape.cols);
      Reference()->LayerNorm(x.Host(), adds ? residual.Host() : Activations{}, weight.Host(),
                             shifts ? bias.Host() : VectorView{}, 1e-5f, want.Host());
      Rows& got = random.Below(2) == 0 ? x : out;
      Tape tape;
      LayerNorm(&tape, x.Device(), adds ? residual.Device() : Activations{}, weight.Device(),
                shifts ? bias.Device() : VectorView{}, 1e-5f, got.Device());
      std::vector<std::vector<double>> sums;
      for (int64_t r = 0; r < shape.rows; ++r) {
        sums.emplace_back();
        for (int64_t c = 0; c < shape.cols; ++c) {
          sums.back().push_back(double{x.At(r, c)} + (adds ? double{residual.At(r, c)} : 0));
        }
      }
      std::vector<LayerNormBound> bounds;
      for (const std::vector<double>& row : sums) bounds.emplace_back(row, 1e-5);
      Play(tape);
      got.Download();
      ExpectWithin(got, want, [&](int64_t r, int64_t c) {
        return bounds[static_cast<size_t>(r)](c, weight.At(c), double{want.At(r, c)});
      });
      if (HasFatalFailure()) return;
    }
  });
}

TEST_F(RowOps, NormsOfARowDependNeitherOnItsNeighboursNorOnItsAlignment) {
  Random random(3);
  for (int i = 0; i < 60; ++i) {
    const Shape shape = RandomShape(random);
    Rows x(shape.rows, shape.cols, shape.margin, random), out(shape.rows, shape.cols, 2);
    const Vector weight(shape.cols, DType::kF32, random);
    Rows one(1, shape.cols, 0), one_out(1, shape.cols, 0), want(1, shape.cols, 0);
    std::copy_n(x.Host().Row(shape.rows - 1), shape.cols, one.Host().Row(0));
    one.Upload();
    for (const bool layer : {false, true}) {
      const auto norm = [&](Tape* tape, const Activations& from, const Activations& to) {
        if (layer) {
          LayerNorm(tape, from, {}, weight.Device(), {}, 1e-6f, to);
        } else {
          RmsNorm(tape, from, weight.Device(), 1e-6f, to);
        }
      };
      Tape tape;
      norm(&tape, x.Device(), out.Device());
      norm(&tape, one.Device(), one_out.Device());
      Play(tape);
      out.Download();
      one_out.Download();
      std::copy_n(out.Host().Row(shape.rows - 1), shape.cols, want.Host().Row(0));
      ASSERT_NO_FATAL_FAILURE(ExpectSame(one_out, want));
    }
  }
}

TEST_F(RowOps, NanAndInfinityStayInTheirRowOfANorm) {
  Random random(4);
  const int64_t cols = 700;
  Rows x(4, cols, 1, random), out(4, cols), want(4, cols);
  x.At(1, 33) = kNan;
  x.At(2, 650) = -kInf;
  x.Upload();
  const Vector weight(cols, DType::kBF16, random);
  Reference()->RmsNorm(x.Host(), weight.Host(), 1e-5f, want.Host());
  Tape tape;
  RmsNorm(&tape, x.Device(), weight.Device(), 1e-5f, out.Device());
  Play(tape);
  out.Download();
  ExpectWithin(out, want, [&](int64_t r, int64_t c) {
    return (kSumSteps / 2 + 5) * kUlp * std::abs(double{want.At(r, c)}) + 1e-40;
  });
  EXPECT_TRUE(std::isnan(out.At(1, 0)));
  EXPECT_EQ(out.At(2, 0), 0);
  EXPECT_TRUE(std::isnan(out.At(2, 650)));
}

// Values of every size, and those that overflow, underflow or are no numbers.
void AddExtremes(Rows* x, Random& random) {
  constexpr float kExtremes[] = {0.0f,  -0.0f,  kNan,   kInf,    -kInf, 1e-40f, -1e-40f,
                                 89.0f, -89.0f, 104.0f, -104.0f, 3e38f, -3e38f, 1.0f};
  for (int64_t r = 0; r < x->rows(); ++r) {
    if (random.Below(3) == 0) x->At(r, random.Below(x->cols())) = kExtremes[random.Below(14)];
  }
  x->Upload();
}

TEST_F(RowOps, SiluMulIsTheCpusBitForBit) {
  Random random(5);
  const std::unique_ptr<Backend> cpu = Cpu();
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      Rows gate(shape.rows, shape.cols, shape.margin, random, 20);
      Rows up(shape.rows, shape.cols, random.Below(5), random);
      Rows out(shape.rows, shape.cols, random.Below(5)), want(shape.rows, shape.cols);
      AddExtremes(&gate, random);
      cpu->SiluMul(gate.Host(), up.Host(), want.Host());
      Rows& got = random.Below(2) == 0 ? gate : out;
      Tape tape;
      SiluMul(&tape, gate.Device(), up.Device(), got.Device());
      Play(tape);
      got.Download();
      ASSERT_NO_FATAL_FAILURE(ExpectSame(got, want));
    }
  });
}

TEST_F(RowOps, GeluIsTheCpusBitForBitInBothForms) {
  Random random(6);
  const std::unique_ptr<Backend> cpu = Cpu();
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      Rows x(shape.rows, shape.cols, shape.margin, random, 3), want(shape.rows, shape.cols);
      AddExtremes(&x, random);
      for (int64_t r = 0; r < shape.rows; ++r) {
        std::copy_n(x.Host().Row(r), shape.cols, want.Host().Row(r));
      }
      const bool tanh_form = random.Below(2) == 0;
      cpu->Gelu(want.Host(), tanh_form);
      Tape tape;
      Gelu(&tape, x.Device(), tanh_form);
      Play(tape);
      x.Download();
      ASSERT_NO_FATAL_FAILURE(ExpectSame(x, want));
    }
  });
}

// SiLU: exp within 2 ulp, an addition, a division, a product. GELU: its tail is right within 2^-24
// and what is multiplied by it is x/2; the tanh form has an error of its argument.
TEST_F(RowOps, ActivationsMatchTheReference) {
  Random random(7);
  for (int i = 0; i < 40; ++i) {
    const Shape shape = RandomShape(random);
    Rows x(shape.rows, shape.cols, shape.margin, random, 4);
    Rows up(shape.rows, shape.cols, 0, random), out(shape.rows, shape.cols);
    Rows silu(shape.rows, shape.cols), gelu(shape.rows, shape.cols);
    const bool tanh_form = i % 2 == 0;
    Reference()->SiluMul(x.Host(), up.Host(), silu.Host());
    for (int64_t r = 0; r < shape.rows; ++r) {
      std::copy_n(x.Host().Row(r), shape.cols, gelu.Host().Row(r));
    }
    Reference()->Gelu(gelu.Host(), tanh_form);
    Rows before = Rows(shape.rows, shape.cols, shape.margin);
    for (int64_t r = 0; r < shape.rows; ++r) {
      std::copy_n(x.Host().Row(r), shape.cols, before.Host().Row(r));
    }
    Tape tape;
    SiluMul(&tape, x.Device(), up.Device(), out.Device());
    Gelu(&tape, x.Device(), tanh_form);
    Play(tape);
    out.Download();
    x.Download();
    ExpectWithin(out, silu, [&](int64_t r, int64_t c) {
      return 8 * kUlp * std::abs(double{silu.At(r, c)}) + 1e-37;
    });
    ExpectWithin(x, gelu, [&](int64_t r, int64_t c) {
      const double v = std::abs(double{before.At(r, c)});
      const double argument = 1.6 * (v + 0.045 * v * v * v);
      return tanh_form ? (5 * argument + 6) * kUlp * std::abs(double{gelu.At(r, c)}) + v * 0x1p-53
                       : 4 * kUlp * v;
    });
    if (HasFatalFailure()) return;
  }
}

TEST_F(RowOps, EmbeddingReadsRowsOfTheTableExactlyAndMayAdd) {
  Random random(8);
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      const int64_t vocab = 1 + random.Below(20);
      const bool accumulate = random.Below(2) == 0;
      Weight table;
      table.spec.format = random.Below(2) == 0 ? WeightFormat::kF16 : WeightFormat::kBf16;
      table.spec.n = vocab;
      table.spec.k = shape.cols;
      const DType dtype = table.spec.format == WeightFormat::kF16 ? DType::kF16 : DType::kBF16;
      std::vector<uint16_t> halves;
      for (int64_t v = 0; v < vocab * shape.cols; ++v) {
        halves.push_back(F32ToHalf(dtype, random.Normal()));
      }
      const DeviceArray<uint16_t> values(halves, 2);
      table.codes = values.data();
      std::vector<int32_t> ids;
      for (int64_t r = 0; r < shape.rows; ++r) {
        ids.push_back(static_cast<int32_t>(random.Below(vocab)));
      }
      const DeviceArray<int32_t> device_ids(ids, 4);
      Rows out(shape.rows, shape.cols, shape.margin, random), want(shape.rows, shape.cols);
      for (int64_t r = 0; r < shape.rows; ++r) {
        for (int64_t c = 0; c < shape.cols; ++c) {
          const int64_t at = ids[static_cast<size_t>(r)] * shape.cols + c;
          const float value = HalfToF32(dtype, halves[static_cast<size_t>(at)]);
          want.At(r, c) = accumulate ? value + out.At(r, c) : value;
        }
      }
      Tape tape;
      Embedding(&tape, {}, table, device_ids.data(), accumulate, out.Device());
      Play(tape);
      out.Download();
      ASSERT_NO_FATAL_FAILURE(ExpectSame(out, want));
    }
  });
}

TEST_F(RowOps, GatherRowsCopiesTheRowsAskedFor) {
  Random random(9);
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 200; ++i) {
      const Shape shape = RandomShape(random);
      Rows x(shape.rows, shape.cols, shape.margin, random);
      const int64_t count = 1 + random.Below(5);
      Rows out(count, shape.cols, random.Below(5)), want(count, shape.cols);
      std::vector<int32_t> rows;
      for (int64_t r = 0; r < count; ++r) {
        rows.push_back(static_cast<int32_t>(random.Below(shape.rows)));
        std::copy_n(x.Host().Row(rows.back()), shape.cols, want.Host().Row(r));
      }
      const DeviceArray<int32_t> device_rows(rows, 4);
      Tape tape;
      GatherRows(&tape, x.Device(), device_rows.data(), out.Device());
      Play(tape);
      out.Download();
      ASSERT_NO_FATAL_FAILURE(ExpectSame(out, want));
    }
  });
}

struct PoolCase {
  Pooling pooling;
  bool normalize;
  std::vector<DeviceSequence> sequences;
};

// What a pooled value may be wrong by: a mean is wrong by its additions (16 groups of rows, then
// the groups) and a division; dividing by the norm adds that of the norm, its sum and two
// roundings.
template <typename Row>
std::vector<double> PoolBounds(const PoolCase& test, const Row& row, const DeviceSequence& sequence,
                               int64_t cols) {
  const double n = sequence.num_rows;
  std::vector<double> mean(static_cast<size_t>(cols)), error(static_cast<size_t>(cols));
  double squares = 0, error_squares = 0;
  for (int64_t c = 0; c < cols; ++c) {
    double magnitude = 0;
    double& value = mean[static_cast<size_t>(c)];
    if (test.pooling == Pooling::kMean) {
      for (int64_t i = 0; i < sequence.num_rows; ++i) {
        value += row(sequence.first_row + i)[c] / n;
        magnitude += std::abs(row(sequence.first_row + i)[c]) / n;
      }
    } else {
      const bool last = test.pooling == Pooling::kLast;
      value = row(sequence.first_row + (last ? sequence.num_rows - 1 : 0))[c];
    }
    error[static_cast<size_t>(c)] = (n / 16 + 18) * kUlp * magnitude;
    squares += value * value;
    error_squares += error[static_cast<size_t>(c)] * error[static_cast<size_t>(c)];
  }
  const double norm = test.normalize && squares > 0 ? std::sqrt(squares) : 1;
  const double relative = test.normalize && squares > 0
                              ? std::sqrt(error_squares) / norm + (kSumSteps / 2 + 3) * kUlp
                              : 0;
  std::vector<double> bounds;
  for (size_t c = 0; c < mean.size(); ++c) {
    bounds.push_back((error[c] + std::abs(mean[c]) * relative) / norm * (1 + 1e-3) +
                     kUlp * std::abs(mean[c]) / norm);
  }
  return bounds;
}

void ExpectPool(const PoolCase& test, Rows& x, int64_t cols, int64_t margin) {
  const auto count = static_cast<int64_t>(test.sequences.size());
  std::vector<SequenceRows> host;
  for (const DeviceSequence& s : test.sequences) {
    host.push_back({s.first_row, s.num_rows, 0, nullptr});
  }
  Rows want(count, cols), got(count, cols, margin);
  Reference()->Pool(x.Host(), host, test.pooling, test.normalize, want.Host());
  const DeviceArray<DeviceSequence> sequences(test.sequences);
  DeviceSequences device;
  device.sequences = sequences.data();
  device.num_sequences = static_cast<int32_t>(count);
  device.num_rows = static_cast<int32_t>(x.rows());
  Tape tape;
  Pool(&tape, x.Device(), device, test.pooling, test.normalize, got.Device());
  Play(tape);
  got.Download();
  const auto row = [&](int64_t r) {
    return std::vector<double>(x.Host().Row(r), x.Host().Row(r) + x.cols());
  };
  std::vector<std::vector<double>> bounds;
  for (const DeviceSequence& s : test.sequences) bounds.push_back(PoolBounds(test, row, s, cols));
  ExpectWithin(got, want, [&](int64_t r, int64_t c) {
    return bounds[static_cast<size_t>(r)][static_cast<size_t>(c)];
  });
}

TEST_F(RowOps, PoolMatchesTheReferenceForEveryKindTruncatedAndNormalized) {
  Random random(10);
  ForMachineSeeds(3, [&] {
    for (int i = 0; i < 170; ++i) {
      PoolCase test = {static_cast<Pooling>(random.Below(3)), random.Below(2) == 0, {}};
      int32_t rows = 0;
      for (int64_t s = 1 + random.Below(3); s > 0; --s) {
        const auto length = static_cast<int32_t>(1 + random.Below(random.Below(4) == 0 ? 50 : 6));
        test.sequences.push_back({rows, length, 0, 0});
        rows += length;
      }
      const int64_t cols = 1 + random.Below(random.Below(20) == 0 ? 700 : 150);
      Rows x(rows, cols, random.Below(5), random);
      const int64_t kept = random.Below(2) == 0 ? cols : 1 + random.Below(cols);
      ASSERT_NO_FATAL_FAILURE(ExpectPool(test, x, kept, random.Below(5)));
    }
  });
}

TEST_F(RowOps, AVectorOfZerosStaysZeroWhenNormalized) {
  Rows x(3, 20);
  x.Upload();
  ExpectPool({Pooling::kMean, true, {{0, 3, 0, 0}}}, x, 20, 0);
}

TEST_F(RowOps, NoRowsAreNoLaunch) {
  Tape tape;
  const Activations none = {nullptr, 0, 8, 8};
  const VectorView weight = {nullptr, DType::kF32, 8};
  RmsNorm(&tape, none, weight, 1e-5f, none);
  SiluMul(&tape, none, none, none);
  GatherRows(&tape, none, nullptr, none);
  EXPECT_TRUE(tape.empty());
}

}  // namespace
}  // namespace nibble::cuda
