// Norms, activations, embedding, gathering and pooling through the backend: against the reference
// by derived bounds, bit by bit between ISA rows and thread counts.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

std::unique_ptr<Backend> Reference() { return std::move(*MakeReferenceBackend()); }

// op(backend) on the reference, on scalar within bound(want)(r, c), on all others bit by bit.
template <typename Op, typename Bound>
void ExpectOp(Op op, Bound bound) {
  const std::unique_ptr<Backend> reference = Reference();
  const Matrix want = op(*reference);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const Matrix first = op(*backends[0]);
  ExpectWithin(
      first, want, [&](int64_t r, int64_t c) { return bound(want, r, c); }, "scalar");
  for (const auto& backend : backends) ExpectSameBits(op(*backend), first, NameOf(*backend));
}

VectorView ViewOf(const std::vector<float>& values) {
  return {values.data(), DType::kF32, static_cast<int64_t>(values.size())};
}

struct Size {
  int64_t rows, cols;
};
const Size kSizes[] = {{1, 1}, {1, 64}, {3, 172}, {7, 576}, {100, 40}, {2, 4097}, {33, 384}};

// Σx² has a chain of cols/16 additions and 4 folds; its relative error halves under the root. Then
// four roundings.
TEST(RmsNorm, MatchesTheReference) {
  for (const Size& size : kSizes) {
    Random random(1);
    const Matrix x(size.rows, size.cols, random, 5);
    const std::vector<float> weight = random.Normals(size.cols);
    const double steps = static_cast<double>(size.cols) / 16 + 5;
    ExpectOp(
        [&](Backend& backend) {
          Matrix out(size.rows, size.cols);
          backend.RmsNorm(x.View(), ViewOf(weight), 1e-5f, out.View());
          return out;
        },
        [&](const Matrix& want, int64_t r, int64_t c) {
          return (steps / 2 + 5) * kUlp * std::abs(double{want.At(r, c)}) + 1e-40;
        });
  }
}

TEST(RmsNorm, OfZerosIsZeroAndMayBeInPlace) {
  for (const auto& backend : EveryCpu()) {
    Matrix x(2, 40);
    const std::vector<float> weight(40, 3.0f);
    backend->RmsNorm(x.View(), ViewOf(weight), 1e-6f, x.View());
    ExpectSameBits(x, Matrix(2, 40), NameOf(*backend));
  }
}

TEST(RmsNorm, ReadsWeightsOfEveryType) {
  Random random(3);
  const Matrix x(3, 100, random);
  std::vector<uint16_t> halves;
  std::vector<float> wide;
  for (int i = 0; i < 100; ++i) halves.push_back(F32ToBf16(random.Normal()));
  for (const uint16_t half : halves) wide.push_back(Bf16ToF32(half));
  for (const auto& backend : EveryCpu()) {
    Matrix from_half(3, 100), from_wide(3, 100);
    backend->RmsNorm(x.View(), {halves.data(), DType::kBF16, 100}, 1e-5f, from_half.View());
    backend->RmsNorm(x.View(), ViewOf(wide), 1e-5f, from_wide.View());
    ExpectSameBits(from_half, from_wide, NameOf(*backend));
  }
}

// Mean and variance: chains of cols/16 additions over values of at most the row's largest; what the
// mean is wrong by, every difference is. Row magnitudes stand for all of it.
TEST(LayerNorm, MatchesTheReferenceWithAndWithoutResidualAndBias) {
  for (const Size& size : kSizes) {
    Random random(2);
    const Matrix x(size.rows, size.cols, random, 2);
    const Matrix residual(size.rows, size.cols, random);
    const std::vector<float> weight = random.Normals(size.cols);
    const std::vector<float> bias = random.Normals(size.cols);
    const double steps = static_cast<double>(size.cols) / 16 + 8;
    for (const bool full : {false, true}) {
      ExpectOp(
          [&](Backend& backend) {
            Matrix out(size.rows, size.cols);
            backend.LayerNorm(x.View(), full ? residual.View() : Activations{}, ViewOf(weight),
                              full ? ViewOf(bias) : VectorView{}, 1e-5f, out.View());
            return out;
          },
          [&](const Matrix& want, int64_t r, int64_t c) {
            // |normalized| <= 8 at these sizes; an error of the mean counts once per unit of it.
            const double scale = 8 * std::abs(double{weight[static_cast<size_t>(c)]});
            return 2 * steps * kUlp * (scale + std::abs(double{want.At(r, c)})) +
                   (size.cols == 1 ? 1e-3 : 0);  // one value: its variance is all rounding
          });
    }
  }
}

TEST(LayerNorm, InPlaceEqualsOutOfPlace) {
  Random random(4);
  const Matrix x(5, 77, random), residual(5, 77, random);
  const std::vector<float> weight = random.Normals(77), bias = random.Normals(77);
  for (const auto& backend : EveryCpu()) {
    Matrix out(5, 77), in_place = x;
    backend->LayerNorm(x.View(), residual.View(), ViewOf(weight), ViewOf(bias), 1e-5f, out.View());
    backend->LayerNorm(in_place.View(), residual.View(), ViewOf(weight), ViewOf(bias), 1e-5f,
                       in_place.View());
    ExpectSameBits(in_place, out, NameOf(*backend));
  }
}

// exp within 2 ulp, an addition, a division, a product.
TEST(SiluMul, MatchesTheReferenceInPlaceToo) {
  for (const Size& size : kSizes) {
    Random random(5);
    const Matrix gate(size.rows, size.cols, random, 20), up(size.rows, size.cols, random);
    ExpectOp(
        [&](Backend& backend) {
          Matrix out = gate;
          backend.SiluMul(out.View(), up.View(), out.View());
          return out;
        },
        [](const Matrix& want, int64_t r, int64_t c) {
          return 8 * kUlp * std::abs(double{want.At(r, c)}) + 1e-37;
        });
  }
}

// The bounds of lanes_test.cc, for the rows of a matrix.
TEST(Gelu, MatchesTheReferenceInBothForms) {
  Random random(6);
  const Matrix x(9, 130, random, 3);
  for (const bool tanh_form : {false, true}) {
    ExpectOp(
        [&](Backend& backend) {
          Matrix out = x;
          backend.Gelu(out.View(), tanh_form);
          return out;
        },
        [&](const Matrix& want, int64_t r, int64_t c) {
          const double v = std::abs(double{x.At(r, c)});
          const double argument = 1.6 * (v + 0.045 * v * v * v);
          // The oracle's 1 + tanh cancels: it is itself wrong by |x| · 2^-53.
          return tanh_form
                     ? (5 * argument + 6) * kUlp * std::abs(double{want.At(r, c)}) + v * 0x1p-53
                     : 4 * kUlp * v;
        });
  }
}

TEST(Embedding, ReadsRowsOfThePackedTableExactly) {
  Random random(7);
  const int64_t vocab = 83, width = 700;
  const std::vector<int32_t> ids = {0, 82, 16, 15, 82, 47, 79, 80};
  for (const WeightFormat format : {WeightFormat::kF16, WeightFormat::kBf16}) {
    const std::vector<uint16_t> halves = ToHalves(format, random.Normals(vocab * width));
    const Matrix before(8, width, random);
    for (const auto& backend : EveryCpu()) {
      const PackedMatrix table(*backend, format, vocab, width, halves);
      Matrix want(8, width), sum(8, width), got(8, width), accumulated = before;
      for (int64_t r = 0; r < 8; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          const uint16_t half =
              halves[static_cast<size_t>(ids[static_cast<size_t>(r)] * width + c)];
          want.At(r, c) = format == WeightFormat::kF16 ? F16ToF32(half) : Bf16ToF32(half);
          sum.At(r, c) = before.At(r, c) + want.At(r, c);
        }
      }
      backend->Embedding(table.weight(), ids, false, got.View());
      backend->Embedding(table.weight(), ids, true, accumulated.View());
      ExpectSameBits(got, want, NameOf(*backend));
      ExpectSameBits(accumulated, sum, NameOf(*backend));
    }
  }
}

TEST(GatherRows, CopiesTheRowsAskedFor) {
  Random random(8);
  const Matrix x(10, 33, random);
  const std::vector<int32_t> rows = {9, 0, 3, 3};
  for (const auto& backend : EveryCpu()) {
    Matrix got(4, 33), want(4, 33);
    for (int64_t r = 0; r < 4; ++r) {
      std::copy_n(x.View().Row(rows[static_cast<size_t>(r)]), 33, want.View().Row(r));
    }
    backend->GatherRows(x.View(), rows, got.View());
    ExpectSameBits(got, want, NameOf(*backend));
  }
}

// The mean: one addition a row and a division, of values of at most 5; the norm: a chain of cols/16
// and a root.
TEST(Pool, MatchesTheReferenceForEveryKindTruncatedAndNormalized) {
  Random random(9);
  const Matrix x(60, 90, random);
  const SequenceRows sequences[] = {{0, 1, 0, nullptr}, {1, 40, 0, nullptr}, {41, 19, 0, nullptr}};
  for (const Pooling pooling : {Pooling::kMean, Pooling::kCls, Pooling::kLast}) {
    for (const bool normalize : {false, true}) {
      for (const int64_t cols : {90, 32, 7}) {
        ExpectOp(
            [&](Backend& backend) {
              Matrix out(3, cols);
              backend.Pool(x.View(), sequences, pooling, normalize, out.View());
              return out;
            },
            [](const Matrix&, int64_t, int64_t) { return 50 * kUlp * 5; });
      }
    }
  }
}

TEST(Pool, AZeroVectorStaysZero) {
  const Matrix x(3, 20);
  const SequenceRows sequence = {0, 3, 0, nullptr};
  for (const auto& backend : EveryCpu()) {
    Matrix out(1, 20);
    backend->Pool(x.View(), {&sequence, 1}, Pooling::kMean, true, out.View());
    ExpectSameBits(out, Matrix(1, 20), NameOf(*backend));
  }
}

TEST(ShapeChecksDeathTest, WrongShapesAbortWithWhatWasWanted) {
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  Matrix x(2, 8), out(2, 9);
  const std::vector<float> weight(7, 1.0f);
  EXPECT_DEATH(cpu->RmsNorm(x.View(), ViewOf(weight), 1e-5f, x.View()),
               "RmsNorm: weight's length is 7, want 8");
  EXPECT_DEATH(cpu->SiluMul(x.View(), x.View(), out.View()), "SiluMul: out is 9, want 8");
  const int32_t row = 2;
  Matrix one(1, 8);
  EXPECT_DEATH(cpu->GatherRows(x.View(), {&row, 1}, one.View()),
               "GatherRows: a row is 2, want <= 1");
}

}  // namespace
}  // namespace nibble
