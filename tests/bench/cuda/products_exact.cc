// Whether products are right, beside how fast they are: dequantization to the last bit (G7), the
// error of a fused product against fp64 (G8), rows that do not depend on their neighbours (G9), and
// packing's speed (G10).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/four_bit_pack.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"
#include "tests/bench/cuda/products.h"

namespace nibble::bench {
namespace {

std::vector<float> NormalValues(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// A real quantized matrix, on the host and packed on the device.
struct Quantized {
  FourBitMatrix matrix;
  Copies packed;  // one copy
};

Quantized Quantize(Machine* machine, const Shape& shape, const FourBitForm& form) {
  Quantized made;
  const std::vector<float> values = NormalValues(shape.n * shape.k, 1);
  made.matrix = *QuantizeFourBit(values, shape.n, shape.k, form);
  WeightSpec spec;
  spec.format = form.format;
  spec.n = shape.n;
  spec.k = shape.k;
  spec.group_size = form.group_size;
  spec.double_quant = form.double_quant;
  Weight weight = machine->RandomWeight(spec);
  machine->Finish();
  absl::Status status = machine->backend().PackFourBit(made.matrix, &weight);
  if (status.ok()) status = machine->backend().Finish();
  if (!status.ok()) std::fprintf(stderr, "cuda_bench: %s\n", status.ToString().c_str());
  made.packed = {{weight}, machine->backend().PackedBytes(spec).Total()};
  return made;
}

std::vector<float> Result(Machine* machine, const Contender& product, const float* out,
                          int64_t count) {
  const absl::Status status = machine->RunOnce(product);
  if (!status.ok()) std::fprintf(stderr, "cuda_bench: %s\n", status.ToString().c_str());
  std::vector<float> values(static_cast<size_t>(count));
  machine->Download(values.data(), out, count * 4);
  return values;
}

// G7: the matrix times unit vectors is the matrix; in compute=fp32 each value has one rounding, as
// bitsandbytes'.
int64_t Mismatches(Machine* machine, const Shape& shape, const FourBitForm& form) {
  const size_t mark = machine->Mark();
  const Products products(machine, shape.k, shape.k);
  const Quantized made = Quantize(machine, shape, form);
  std::vector<float> unit(static_cast<size_t>(shape.k * shape.k), 0.0f);
  for (int64_t i = 0; i < shape.k; ++i) unit[static_cast<size_t>(i * shape.k + i)] = 1;
  const Activations x = {machine->Make<float>(shape.k * shape.k), shape.k, shape.k, shape.k};
  machine->Upload(x.data, unit.data(), shape.k * shape.k * 4);
  float* const out = machine->Make<float>(shape.k * shape.n);
  const std::vector<float> got =
      Result(machine, products.OursExact(made.packed, x, out), out, shape.k * shape.n);
  std::vector<float> want(static_cast<size_t>(shape.n * shape.k));
  DequantizeFourBit(made.matrix, 0, want);
  int64_t wrong = 0;
  for (int64_t n = 0; n < shape.n; ++n) {
    for (int64_t k = 0; k < shape.k; ++k) {
      const float a = got[static_cast<size_t>(k * shape.n + n)];
      wrong += a == want[static_cast<size_t>(n * shape.k + k)] ? 0 : 1;
    }
  }
  machine->Rewind(mark);
  return wrong;
}

void CountMismatches(Machine* machine, Figures* figures) {
  const std::vector<Shape> shapes = machine->effort().rehearsal
                                        ? std::vector<Shape>{{24, 64}}
                                        : std::vector<Shape>{{4096, 4096}, {4001, 4096}};
  int64_t wrong = 0, all = 0;
  for (const WeightFormat format : {WeightFormat::kNf4, WeightFormat::kFp4}) {
    for (const int32_t group : {32, 64, 128, 4096}) {
      for (const Shape& shape : shapes) {
        const bool nested = group == 64 || group == 128;
        wrong += Mismatches(machine, shape, {format, group, nested, false});
        all += shape.n * shape.k;
      }
    }
  }
  figures->Write(Line("figure", "G7")
                     .Add("value", static_cast<double>(wrong))
                     .Add("of_values", static_cast<double>(all)));
}

// bitsandbytes' own dequantize_4bit on the same GPU, in bf16, against the host's.
void ComparePeer(Machine* machine, const BitsAndBytes& peer, Figures* figures) {
  const size_t mark = machine->Mark();
  const int64_t n = 4096, k = 4096;
  const FourBitMatrix matrix =
      *QuantizeFourBit(NormalValues(n * k, 3), n, k, {WeightFormat::kNf4, 64, false, false});
  uint8_t* const codes = machine->Make<uint8_t>(n * k / 2);
  float* const absmax = machine->Make<float>(n * k / 64);
  uint16_t* const out = machine->Make<uint16_t>(n * k);
  machine->Upload(codes, matrix.codes.data(), n * k / 2);
  machine->Upload(absmax, matrix.absmax.data(), n * k / 64 * 4);
  peer.Dequantize({codes, absmax, n, k}, out, machine->stream());
  std::vector<uint16_t> got(static_cast<size_t>(n * k));
  machine->Download(got.data(), out, n * k * 2);
  std::vector<float> want(got.size());
  DequantizeFourBit(matrix, 0, want);
  int64_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i) wrong += got[i] == F32ToBf16(want[i]) ? 0 : 1;
  figures->Write(Line("figure", "G7 bitsandbytes on this GPU")
                     .Add("value", static_cast<double>(wrong))
                     .Add("of_values", static_cast<double>(n * k)));
  machine->Rewind(mark);
}

double RootMeanSquare(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// The matrix rounded to bf16, row-major: what dequantize-then-multiply reads.
Copies Bf16Copy(Machine* machine, const FourBitMatrix& matrix) {
  std::vector<float> values(static_cast<size_t>(matrix.NumValues()));
  DequantizeFourBit(matrix, 0, values);
  std::vector<uint16_t> halves(values.size());
  for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToBf16(values[i]);
  Weight weight;
  weight.spec.format = WeightFormat::kBf16;
  weight.spec.n = matrix.n;
  weight.spec.k = matrix.k;
  weight.codes = machine->Make<uint16_t>(matrix.NumValues());
  machine->Upload(weight.codes, halves.data(), matrix.NumValues() * 2);
  return {{weight}, matrix.NumValues() * 2};
}

// out[m,n] - Σ_k x·w in fp64, over all m and some n.
std::vector<double> Errors(const std::vector<float>& got, const FourBitMatrix& matrix,
                           const std::vector<float>& x, int64_t rows) {
  std::vector<double> errors;
  std::vector<float> weights(static_cast<size_t>(matrix.k));
  for (int64_t n = 0; n < matrix.n; n += std::max<int64_t>(1, matrix.n / 128)) {
    DequantizeFourBit(matrix, n * matrix.k, weights);
    for (int64_t m = 0; m < rows; ++m) {
      double sum = 0;
      for (size_t k = 0; k < weights.size(); ++k) {
        sum += static_cast<double>(x[static_cast<size_t>(m * matrix.k) + k]) * weights[k];
      }
      errors.push_back(got[static_cast<size_t>(m * matrix.n + n)] - sum);
    }
  }
  return errors;
}

// G8 for every path by its number of rows; activations are bf16 values, so both sides read the
// same.
void MeasureErrors(Machine* machine, Figures* figures) {
  const bool rehearsal = machine->effort().rehearsal;
  const Shape shape = rehearsal ? Shape{48, 128} : Shape{4096, 4096};
  const Quantized made = Quantize(machine, shape, {});
  const Copies bf16 = Bf16Copy(machine, made.matrix);
  double worst = 0;
  for (const int64_t rows :
       rehearsal ? std::vector<int64_t>{1, 17} : std::vector<int64_t>{1, 16, 64, 512}) {
    const size_t mark = machine->Mark();
    const Products products(machine, rows, shape.k);
    std::vector<float> values = NormalValues(rows * shape.k, 2);
    for (float& value : values) value = Bf16ToF32(F32ToBf16(value));
    const Activations x = {machine->Make<float>(rows * shape.k), rows, shape.k, shape.k};
    machine->Upload(x.data, values.data(), rows * shape.k * 4);
    float* const out = machine->Make<float>(rows * shape.n);
    const int64_t count = rows * shape.n;
    const auto error = [&](const Contender& product) {
      return RootMeanSquare(
          Errors(Result(machine, product, out, count), made.matrix, values, rows));
    };
    const double ours = error(products.Ours("", made.packed, x, out));
    const double theirs = error(products.Cublas(bf16, products.AsBf16(x), rows, out));
    worst = std::max(worst, ours / theirs);
    figures->Write(Line("row", "error")
                       .Add("m", static_cast<double>(rows))
                       .Add("rms_fused", ours)
                       .Add("rms_dequantized_bf16", theirs));
    machine->Rewind(mark);
  }
  figures->Write(Line("figure", "G8").Add("value", worst));
}

// G9: rows of a batch of 64 and the same rows alone, batch-invariant; and what that costs.
void MeasureInvariance(Machine* machine, Figures* figures) {
  const size_t mark = machine->Mark();
  const bool rehearsal = machine->effort().rehearsal;
  const Shape shape = rehearsal ? Shape{48, 128} : Shape{14336, 4096};
  const int64_t rows = rehearsal ? 18 : 64;
  const Products products(machine, rows, shape.k);
  WeightSpec spec;
  spec.n = shape.n;
  spec.k = shape.k;
  const Copies weights = machine->RandomCopies(spec);
  const Activations x = machine->RandomRows(rows, shape.k);
  float* const out = machine->Make<float>(rows * shape.n);
  const auto invariant = [&](const Activations& some) {
    return products.Ours("invariant", weights, some, out, nullptr, true);
  };
  const std::vector<float> crowd = Result(machine, invariant(x), out, rows * shape.n);
  int64_t different = 0;
  for (const int64_t row : {int64_t{0}, rows / 2, rows - 1}) {
    const std::vector<float> alone = Result(machine, invariant(x.Rows(row, 1)), out, shape.n);
    for (size_t n = 0; n < alone.size(); ++n) {
      const float other = crowd[static_cast<size_t>(row * shape.n) + n];
      different += std::bit_cast<uint32_t>(alone[n]) == std::bit_cast<uint32_t>(other) ? 0 : 1;
    }
  }
  figures->Write(Line("figure", "G9").Add("value", static_cast<double>(different)));
  for (const int64_t some : {int64_t{1}, rows}) {
    const std::vector<Contender> both = {invariant(x.Rows(0, some)),
                                         products.Ours("", weights, x.Rows(0, some), out)};
    const absl::StatusOr<std::vector<Timing>> timings = machine->Race(both);
    const std::string name = absl::StrCat("G9 time M=", some);
    if (!timings.ok()) return figures->Missing(name, timings.status().ToString());
    const Ratio ratio = PairedRatio((*timings)[0], (*timings)[1]);
    figures->Write(Line("figure", name)
                       .Add("value", ratio.median)
                       .Add("min", ratio.min)
                       .Add("max", ratio.max));
  }
  machine->Rewind(mark);
}

// G10: a whole matrix from the checkpoint's bytes in device memory to the packed form.
void MeasurePacking(Machine* machine, double copy_bandwidth, Figures* figures) {
  const size_t mark = machine->Mark();
  WeightSpec spec;
  spec.n = machine->effort().rehearsal ? 48 : 28672;
  spec.k = machine->effort().rehearsal ? 128 : 8192;
  const Copies weights = machine->RandomCopies(spec);
  const PackedSize size = machine->backend().PackedBytes(spec);
  const int64_t panels = cuda::NumPanels(spec.n);
  char* const codes = machine->Allocate(size.codes);
  char* const scales = machine->Allocate(size.scales);
  machine->Fill(codes, size.codes, Machine::Content::kBytes);
  machine->Fill(scales, size.scales, Machine::Content::kBytes);
  const Contender pack = {"pack", [&](int turn, cuda::Stream* stream) {
                            cuda::Tape tape;
                            cuda::PackFourBitCodes(&tape, weights.At(turn), 0, panels, codes);
                            cuda::PackFourBitScales(&tape, weights.At(turn), 0, panels, scales);
                            return tape.Play(stream);
                          }};
  const absl::StatusOr<std::vector<Timing>> timing = machine->Race({&pack, 1});
  machine->Rewind(mark);
  if (!timing.ok()) return figures->Missing("G10", timing.status().ToString());
  const double copy_us = 2 * static_cast<double>(size.codes + size.scales) / copy_bandwidth * 1e6;
  figures->Write(Line("figure", "G10")
                     .Add("value", (*timing)[0].median_us / copy_us)
                     .Add("min", (*timing)[0].min_us / copy_us)
                     .Add("max", (*timing)[0].max_us / copy_us));
}

}  // namespace

void MeasureExactness(Machine* machine, const BitsAndBytes* peer, double copy_bandwidth,
                      Figures* figures) {
  CountMismatches(machine, figures);
  if (peer != nullptr) ComparePeer(machine, *peer, figures);
  const size_t mark = machine->Mark();
  MeasureErrors(machine, figures);
  machine->Rewind(mark);
  MeasureInvariance(machine, figures);
  MeasurePacking(machine, copy_bandwidth, figures);
  figures->Missing("G11", "Nibble quantizes on the CPU");
}

}  // namespace nibble::bench
