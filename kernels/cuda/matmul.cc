// Chooses and appends; computes nothing. Neighbouring parts that one launch can take go together,
// and rows of x are put into a form once for all neighbouring parts that want it.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/finish.h"
#include "kernels/cuda/four_bit_general.h"
#include "kernels/cuda/four_bit_hopper.h"
#include "kernels/cuda/four_bit_pack.h"
#include "kernels/cuda/four_bit_row_scales.h"
#include "kernels/cuda/four_bit_staged.h"
#include "kernels/cuda/four_bit_stream.h"
#include "kernels/cuda/four_bit_unpack.h"
#include "kernels/cuda/int8_matmul.h"
#include "kernels/cuda/prepare.h"
#include "kernels/cuda/prepare_tiles.h"
#include "kernels/cuda/sixteen_bit.h"

namespace nibble::cuda {
namespace {

// --- scratch memory ---

// scratch := counters  kMatMulZeroedBytes; behind them, and on into sums, the partial sums of
//                      products whose blocks split K
//            sums      what cuBLAS or an INT8 product leaves before it is scaled
//            weights   a piece of a 4-bit matrix in 16 bits, behind it one fp32 for each row
//            rows      rows of x as one kind of product takes them
// Sums and weights are bounded whatever the model; rows grow with the model's limits.
struct Places {
  int64_t sums;  // each begins here, in bytes from the scratch memory's begin
  int64_t weights;
  int64_t rows;
};

constexpr int64_t kSumsBytes = int64_t{32} << 20;  // 1024 rows of 8192 sums
// A piece of weights should stay in L2 until cuBLAS has read it, beside what else passes through.
constexpr int64_t kMaxPieceBytes = int64_t{24} << 20;
constexpr int64_t kMinPieceBytes = int64_t{4} << 20;

int64_t PieceBytes(const DeviceTraits& traits) {
  return std::clamp(traits.l2_bytes / 2 / 256 * 256, kMinPieceBytes, kMaxPieceBytes);
}

Places PlaceScratch(const DeviceTraits& traits, bool exact) {
  const int64_t split =
      std::max(kSplitBytes, RoundUp(HopperSplitBytes(traits.num_processors), 256));
  Places places = {kMatMulZeroedBytes, kMatMulZeroedBytes + kSumsBytes, 0};
  places.weights = std::max(places.weights, split);
  places.rows = places.weights + (exact ? 0 : PieceBytes(traits));
  return places;
}

// 16-bit rows of x, fp16 or bf16: values, then the scales.
int64_t NarrowRowsBytes(int64_t rows, int64_t k) {
  return RoundUp(rows * PreparedStride(k) * 2, 256) + rows * 4;
}

// --- which way ---

// What is done with a part: a 4-bit path, or a way of the other formats.
enum class Way {
  kStream,
  kStaged,
  kHopper,
  kUnpack,
  kGeneral,
  kSixteenBitExact,
  kSixteenBitMma,
  kSixteenBitGemm,
  kInt8
};

// n: features of all parts of the format, since they share launches.
Way WayOf(const MatMulSetup& setup, const WeightSpec& spec, int64_t rows, int64_t n) {
  const MatMulTable& table = *setup.table;
  if (spec.format == WeightFormat::kInt8) return Way::kInt8;
  if (IsFourBit(spec.format)) {
    if (setup.exact) return Way::kGeneral;
    return static_cast<Way>(
        ChoosePath(table, rows, n, spec.k, FitsUnits(spec), setup.batch_invariant));
  }
  if (setup.exact) return Way::kSixteenBitExact;
  if (!TakesOwnKernel(table, spec.format, rows, n, spec.k, setup.batch_invariant)) {
    return Way::kSixteenBitGemm;
  }
  return FitsSixteenBitMma(spec.k) ? Way::kSixteenBitMma : Way::kSixteenBitExact;
}

// Parts of one way that one launch can take.
bool GoTogether(const Weight& a, const Weight& b, const DeviceTables& tables) {
  if (IsFourBit(a.spec.format) && IsFourBit(b.spec.format)) {
    return a.spec.group_size == b.spec.group_size && a.spec.double_quant == b.spec.double_quant &&
           ViewOf(a, tables).codebook == ViewOf(b, tables).codebook;
  }
  return a.spec.format == b.spec.format;
}

const void* BiasFrom(const VectorView& bias, int64_t n) {
  if (bias.data == nullptr) return nullptr;
  return static_cast<const char*>(bias.data) + n * SizeOf(bias.dtype);
}

DenseParts DensePartsOf(std::span<const MatMulPart> parts) {
  DenseParts dense = {};
  for (const MatMulPart& part : parts) {
    dense.parts[dense.num_parts++] = {part.weight->codes,
                                      static_cast<const float*>(part.weight->scales),
                                      part.bias.data,
                                      part.out.data,
                                      part.out.stride,
                                      part.weight->spec.n,
                                      static_cast<int32_t>(part.bias.dtype),
                                      part.accumulate ? 1 : 0};
  }
  return dense;
}

FourBitParts FourBitPartsOf(std::span<const MatMulPart> parts, const DeviceTables& tables) {
  FourBitParts four_bit = {};
  for (const MatMulPart& part : parts) {
    four_bit.parts[four_bit.num_parts++] = {ViewOf(*part.weight, tables),
                                            part.out.data,
                                            part.out.stride,
                                            part.bias.data,
                                            static_cast<int32_t>(part.bias.dtype),
                                            part.accumulate ? 1 : 0};
  }
  return four_bit;
}

// --- doing it ---

class Product {
 public:
  Product(Tape* tape, const MatMulSetup& setup, const Activations& x)
      : tape_(tape), setup_(setup), x_(x), places_(PlaceScratch(*setup.traits, setup.exact)) {}

  // Parts that go together.
  void Append(Way way, std::span<const MatMulPart> parts);

 private:
  // Rows and features whose sums have room in scratch memory.
  struct Slab {
    int64_t first_m, rows, first_n, n;
  };
  template <typename F>
  void ForEachSlab(int64_t n, F f) const;

  void AppendFourBit(Way way, std::span<const MatMulPart> parts);
  void AppendSixteenBit(Way way, std::span<const MatMulPart> parts);
  void Unpack(const MatMulPart& part);
  void Bf16Gemm(const MatMulPart& part);
  void HalfGemm(const MatMulPart& part, int64_t first_n, int64_t n, const uint16_t* weights,
                int64_t weight_stride, const float* column_scales);
  void Int8(const MatMulPart& part);

  // Rows of x in each form; put there unless they are what was put there last.
  enum class Form { kNone, kHalf, kBf16, kTiles, kInt8 };
  char* RowsPlace(int64_t bytes) const;
  PreparedRows HalfRows();
  const uint16_t* Bf16Rows();
  TiledRows Tiles();
  Int8Rows EightBitRows(float threshold);

  Tape* const tape_;
  const MatMulSetup& setup_;
  const Activations x_;
  const Places places_;
  Form form_ = Form::kNone;
  TiledRows tiles_ = {};
};

char* Product::RowsPlace(int64_t bytes) const {
  if (places_.rows + bytes > setup_.scratch_bytes) {
    std::fprintf(stderr, "cuda: a product needs %lld bytes of scratch memory, got %lld\n",
                 static_cast<long long>(places_.rows + bytes),
                 static_cast<long long>(setup_.scratch_bytes));
    std::abort();
  }
  return setup_.scratch + places_.rows;
}

PreparedRows Product::HalfRows() {
  const int64_t stride = PreparedStride(x_.cols);
  char* const place = RowsPlace(NarrowRowsBytes(x_.rows, x_.cols));
  const PreparedRows rows = {reinterpret_cast<uint16_t*>(place),
                             reinterpret_cast<float*>(place + RoundUp(x_.rows * stride * 2, 256)),
                             x_.rows, x_.cols, stride};
  if (form_ != Form::kHalf) PrepareHalf(tape_, x_, rows);
  form_ = Form::kHalf;
  return rows;
}

const uint16_t* Product::Bf16Rows() {
  auto* const rows = reinterpret_cast<uint16_t*>(RowsPlace(NarrowRowsBytes(x_.rows, x_.cols)));
  if (form_ != Form::kBf16) PrepareBf16(tape_, x_, rows, PreparedStride(x_.cols));
  form_ = Form::kBf16;
  return rows;
}

TiledRows Product::Tiles() {
  char* const place = RowsPlace(TiledRowsBytes(x_.rows, x_.cols));
  if (form_ != Form::kTiles) tiles_ = PrepareTiles(tape_, x_, place);
  form_ = Form::kTiles;
  return tiles_;
}

Int8Rows Product::EightBitRows(float threshold) {
  char* const place = RowsPlace(Int8RowsBytes(x_.rows, x_.cols));
  const Int8Rows rows = PlaceInt8Rows(place, x_.rows, x_.cols);
  if (form_ != Form::kInt8) PrepareInt8(tape_, x_, threshold, rows);
  form_ = Form::kInt8;
  return rows;
}

template <typename F>
void Product::ForEachSlab(int64_t n, F f) const {
  constexpr int64_t kRows = 1024, kFeatures = 128;
  const int64_t rows = std::min(x_.rows, kRows);
  const int64_t features = kSumsBytes / 4 / rows / kFeatures * kFeatures;
  for (int64_t first_n = 0; first_n < n; first_n += features) {
    for (int64_t first_m = 0; first_m < x_.rows; first_m += rows) {
      f(Slab{first_m, std::min(rows, x_.rows - first_m), first_n, std::min(features, n - first_n)});
    }
  }
}

void Product::Append(Way way, std::span<const MatMulPart> parts) {
  if (way <= Way::kGeneral) return AppendFourBit(way, parts);
  if (way < Way::kInt8) return AppendSixteenBit(way, parts);
  for (const MatMulPart& part : parts) Int8(part);
}

void Product::AppendFourBit(Way way, std::span<const MatMulPart> parts) {
  const int processors = setup_.traits->num_processors;
  const FourBitParts four_bit = FourBitPartsOf(parts, setup_.tables);
  switch (way) {
    case Way::kStream:
      return FourBitStream(tape_, processors, HalfRows(), four_bit, setup_.scratch);
    case Way::kStaged:
      return FourBitStaged(tape_, processors, HalfRows(), four_bit, setup_.batch_invariant,
                           setup_.scratch);
    case Way::kHopper:
      return FourBitHopper(tape_, processors, Tiles(), four_bit, setup_.scratch);
    case Way::kUnpack:
      for (const MatMulPart& part : parts) Unpack(part);
      return;
    default:
      return FourBitGeneral(tape_, x_, four_bit);
  }
}

void Product::AppendSixteenBit(Way way, std::span<const MatMulPart> parts) {
  const WeightFormat format = parts[0].weight->spec.format;
  const DenseParts dense = DensePartsOf(parts);
  const int processors = setup_.traits->num_processors;
  if (way == Way::kSixteenBitExact) return SixteenBitExact(tape_, format, x_, dense);
  if (way == Way::kSixteenBitMma) {
    return format == WeightFormat::kBf16 ? Bf16Mma(tape_, processors, x_, dense)
                                         : HalfMma(tape_, processors, HalfRows(), dense);
  }
  for (const MatMulPart& part : parts) {
    const WeightSpec& spec = part.weight->spec;
    if (format == WeightFormat::kBf16) {
      Bf16Gemm(part);
    } else {
      HalfGemm(part, 0, spec.n, static_cast<const uint16_t*>(part.weight->codes), spec.k, nullptr);
    }
  }
}

void Product::Unpack(const MatMulPart& part) {
  const FourBitView view = ViewOf(*part.weight, setup_.tables);
  const int64_t stride = RoundUp(view.k, 64);
  auto* const weights = reinterpret_cast<uint16_t*>(setup_.scratch + places_.weights);
  const int64_t room = (places_.rows - places_.weights) / (2 * stride + 4);
  const int64_t rows = PieceRows(x_.rows, view.n, room, setup_.traits->num_processors);
  auto* const scales = reinterpret_cast<float*>(weights + rows * stride);
  for (int64_t first = 0; first < view.n; first += rows) {
    const int64_t count = std::min(rows, view.n - first);
    FourBitRowScales(tape_, view, first, count, scales);
    UnpackFourBit(tape_, view, first, count, DType::kF16, weights, stride, scales);
    HalfGemm(part, first, count, weights, stride, scales);
  }
}

// Features [first_n, first_n + n) of a product with fp16 weights, whose first one's row is
// `weights`. Sums go to out itself unless the old value is still needed.
void Product::HalfGemm(const MatMulPart& part, int64_t first_n, int64_t n, const uint16_t* weights,
                       int64_t weight_stride, const float* column_scales) {
  const PreparedRows x = HalfRows();
  const auto append = [&](const Slab& slab, float* sums, int64_t sums_stride) {
    const int64_t feature = first_n + slab.first_n;
    tape_->AddGemm({GemmCall::Type::kHalf, 0, slab.rows, slab.n, x.k,
                    x.values + slab.first_m * x.stride, x.stride,
                    weights + slab.first_n * weight_stride, weight_stride, sums, sums_stride});
    FinishSums(tape_, {sums, sums_stride, part.out.Row(slab.first_m) + feature, part.out.stride,
                       slab.rows, slab.n, x.scales + slab.first_m,
                       column_scales == nullptr ? nullptr : column_scales + slab.first_n,
                       BiasFrom(part.bias, feature), static_cast<int32_t>(part.bias.dtype),
                       part.accumulate ? 1 : 0});
  };
  if (!part.accumulate) {
    return append({0, x.rows, 0, n}, part.out.data + first_n, part.out.stride);
  }
  auto* const sums = reinterpret_cast<float*>(setup_.scratch + places_.sums);
  ForEachSlab(n, [&](const Slab& slab) { append(slab, sums, slab.n); });
}

// bf16 rows have no scale, so cuBLAS adds to the old value itself and only a bias is left to add.
void Product::Bf16Gemm(const MatMulPart& part) {
  const WeightSpec& spec = part.weight->spec;
  tape_->AddGemm({GemmCall::Type::kBf16, part.accumulate ? 1u : 0u, x_.rows, spec.n, spec.k,
                  Bf16Rows(), PreparedStride(spec.k), part.weight->codes, spec.k, part.out.data,
                  part.out.stride});
  if (!part.bias) return;
  FinishSums(tape_,
             {part.out.data, part.out.stride, part.out.data, part.out.stride, x_.rows, spec.n,
              nullptr, nullptr, part.bias.data, static_cast<int32_t>(part.bias.dtype), 0});
}

void Product::Int8(const MatMulPart& part) {
  const WeightSpec& spec = part.weight->spec;
  const Int8Rows rows = EightBitRows(spec.outlier_threshold);
  // cuBLAS takes whole words only.
  const bool own = spec.n % 4 != 0 || TakesOwnKernel(*setup_.table, spec.format, x_.rows, spec.n,
                                                     spec.k, setup_.batch_invariant);
  auto* const sums = reinterpret_cast<int32_t*>(setup_.scratch + places_.sums);
  ForEachSlab(spec.n, [&](const Slab& slab) {
    const Int8Rows some = rows.Some(slab.first_m, slab.rows);
    const int8_t* const codes =
        static_cast<const int8_t*>(part.weight->codes) + slab.first_n * rows.stride;
    if (own) {
      Int8Sums(tape_, some, codes, slab.n, sums, slab.n);
    } else {
      tape_->AddGemm({GemmCall::Type::kInt8, 0, slab.rows, slab.n, rows.stride, some.codes,
                      rows.stride, codes, rows.stride, sums, slab.n});
    }
    const DensePart dense = {codes,
                             static_cast<const float*>(part.weight->scales) + slab.first_n,
                             BiasFrom(part.bias, slab.first_n),
                             part.out.Row(slab.first_m) + slab.first_n,
                             part.out.stride,
                             slab.n,
                             static_cast<int32_t>(part.bias.dtype),
                             part.accumulate ? 1 : 0};
    FinishInt8(tape_, x_.Rows(slab.first_m, slab.rows), some, dense, sums, slab.n);
  });
}

}  // namespace

int64_t MatMulScratchBytes(const DeviceTraits& traits, const BackendLimits& limits, bool exact) {
  if (exact && !limits.int8) return kMatMulZeroedBytes;
  int64_t rows = 0;
  if (limits.int8) rows = Int8RowsBytes(limits.max_rows, limits.max_k);
  if (!exact) {
    rows = std::max({rows, NarrowRowsBytes(limits.max_rows, limits.max_k),
                     TiledRowsBytes(limits.max_rows, limits.max_k)});
  }
  return RoundUp(PlaceScratch(traits, exact).rows + rows, 256);
}

void MatMul(Tape* tape, const MatMulSetup& setup, const Activations& x,
            std::span<const MatMulPart> parts) {
  int64_t features[kNumWeightFormats] = {};
  for (const MatMulPart& part : parts) {
    features[static_cast<int>(part.weight->spec.format)] += part.weight->spec.n;
  }
  const auto way_of = [&](const MatMulPart& part) {
    const WeightSpec& spec = part.weight->spec;
    return WayOf(setup, spec, x.rows, features[static_cast<int>(spec.format)]);
  };
  Product product(tape, setup, x);
  while (!parts.empty()) {
    const Way way = way_of(parts[0]);
    size_t count = 1;
    while (count < std::min<size_t>(parts.size(), kMaxParts) && way_of(parts[count]) == way &&
           GoTogether(*parts[0].weight, *parts[count].weight, setup.tables)) {
      ++count;
    }
    product.Append(way, parts.first(count));
    parts = parts.subspan(count);
  }
}

}  // namespace nibble::cuda
