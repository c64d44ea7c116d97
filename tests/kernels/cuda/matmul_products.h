// Products of every format as MatMul() takes them: host parts, their device twins, and the scratch
// memory that they need, no more.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/matmul.h"
#include "tests/kernels/cuda/matmul_testing.h"

namespace nibble::cuda {

inline constexpr int64_t kAll = int64_t{1} << 40;

// Tables that leave one way open.
inline MatMulTable Only(MatMulPath path) {
  MatMulTable table = {"test", 0, kAll, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}};
  switch (path) {
    case MatMulPath::kStream:
      table.stream_rows[0] = kMaxStreamRows;
      table.sixteen_bit_rows[0] = table.int8_rows[0] = kAll;
      [[fallthrough]];
    case MatMulPath::kStaged:
      table.staged_rows[0] = kAll;
      break;
    case MatMulPath::kHopper:
      table.hopper_rows[0] = kAll;
      break;
    case MatMulPath::kUnpack:
      break;
    case MatMulPath::kGeneral:
      table.general_rows[0] = kAll;
  }
  return table;
}

// A part as the checkpoint has it, on the host.
struct HostPart {
  std::optional<FourBitMatrix> four_bit;
  std::optional<Int8Matrix> int8;
  WeightFormat format = WeightFormat::kNf4;
  std::vector<uint16_t> values;  // 16 bits
  int64_t n = 0, k = 0;
  float threshold = 2;
  bool accumulate = false;

  DeviceWeight OnDevice() const {
    if (four_bit) return DeviceWeight(*four_bit);
    if (int8) return DeviceWeight(*int8, threshold);
    return DeviceWeight(format, n, k, values);
  }
  std::unique_ptr<PackedMatrix> On(Backend& backend) const {
    if (four_bit) return std::make_unique<PackedMatrix>(backend, *four_bit);
    if (int8) return std::make_unique<PackedMatrix>(backend, *int8, threshold);
    return std::make_unique<PackedMatrix>(backend, format, n, k, values);
  }
  std::vector<float> Values() const {
    std::vector<float> wide(static_cast<size_t>(n * k));
    if (four_bit) DequantizeFourBit(*four_bit, 0, wide);
    for (size_t i = 0; i < values.size(); ++i) {
      wide[i] = format == WeightFormat::kF16 ? F16ToF32(values[i]) : Bf16ToF32(values[i]);
    }
    return wide;
  }
};

struct FourBitShape {
  int64_t n, k;
  int32_t group = 64;
  WeightFormat format = WeightFormat::kNf4;
  bool double_quant = false, own_tables = false;
};

inline HostPart RandomFourBit(const FourBitShape& shape, Random& random, float scale = 0.1f) {
  absl::StatusOr<FourBitMatrix> matrix = QuantizeFourBit(
      random.Normals(shape.n * shape.k, scale), shape.n, shape.k,
      {.format = shape.format, .group_size = shape.group, .double_quant = shape.double_quant});
  EXPECT_TRUE(matrix.ok()) << matrix.status();
  if (shape.own_tables) {
    for (float& level : matrix->codebook) level *= 1.25f;
    if (shape.double_quant) {
      for (float& level : matrix->nested_map) level *= 0.75f;
    }
  }
  HostPart part;
  part.four_bit = *std::move(matrix);
  part.format = shape.format;
  part.n = shape.n;
  part.k = shape.k;
  return part;
}

inline HostPart RandomPart(WeightFormat format, int64_t n, int64_t k, Random& random) {
  if (IsFourBit(format)) return RandomFourBit({n, k, 64, format}, random);
  HostPart part;
  part.format = format;
  part.n = n;
  part.k = k;
  if (format != WeightFormat::kInt8) {
    part.values = ToHalves(format, random.Normals(n * k, 0.1f));
    return part;
  }
  part.int8 = MakeInt8Matrix(n, k);
  EXPECT_TRUE(QuantizeInt8(0, random.Normals(n * k, 0.1f), &*part.int8).ok());
  return part;
}

// The last `bytes` of memory that all tests share, since most of it is of one size: what a product
// takes beyond them is still seen.
inline char* Scratch(int64_t bytes) {
  constexpr int64_t kMost = int64_t{80} << 20;
  static const auto* const memory = new DeviceArray<char>(DeviceScratch(kMost));
  EXPECT_LE(bytes, kMost);
  return memory->data() + (kMost - bytes);
}

// Parts on the device with all that a product needs, scratch memory of exactly the size asked for.
class Products {
 public:
  Products(const MatMulTable& table, bool exact, bool batch_invariant, std::vector<HostPart> parts,
           int64_t max_rows, Random& random, bool has_bias = true)
      : table_(table), parts_(std::move(parts)) {
    BackendLimits limits = {.max_rows = max_rows, .max_k = parts_[0].k, .int8 = false};
    for (const HostPart& part : parts_) {
      limits.int8 |= part.int8.has_value();
      weights_.push_back(part.OnDevice());
      biases_.push_back(has_bias ? RandomBias(part.n, random) : DeviceBias());
      old_.emplace_back(max_rows, part.n, random);
    }
    const DeviceTraits& traits = GetTestDevice().traits;
    const int64_t bytes = MatMulScratchBytes(traits, limits, exact);
    setup_ = {&traits, tables_.View(), &table_, exact, batch_invariant, Scratch(bytes), bytes};
    Tape zeroes;
    zeroes.AddFill(setup_.scratch, 0, kMatMulZeroedBytes);
    Play(zeroes);
  }
  const HostPart& part(size_t i) const { return parts_[i]; }
  const DeviceBias& bias(size_t i) const { return biases_[i]; }
  const Matrix& old(size_t i) const { return old_[i]; }
  size_t size() const { return parts_.size(); }

  // Rows [first, first + count) of all, against the old values of the same rows.
  std::vector<Matrix> Run(const Matrix& all, int64_t first, int64_t count) {
    const DeviceMatrix x(RowsOf(all, first, count), 4);
    std::vector<DeviceMatrix> outs;
    std::vector<MatMulPart> parts;
    for (size_t i = 0; i < size(); ++i) {
      outs.emplace_back(RowsOf(old_[i], first, count), 4);
      parts.push_back(
          {&weights_[i].weight(), biases_[i].View(), outs[i].View(), parts_[i].accumulate});
    }
    Tape tape;
    MatMul(&tape, setup_, x.View(), parts);
    Play(tape);
    std::vector<uint32_t> counters(kMatMulZeroedBytes / 4);
    CopyNow(counters.data(), setup_.scratch, kMatMulZeroedBytes);
    EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), std::ssize(counters));
    std::vector<Matrix> got;
    for (const DeviceMatrix& out : outs) got.push_back(out.Get());
    return got;
  }
  std::vector<Matrix> Run(const Matrix& x) { return Run(x, 0, x.rows()); }
  void Lend(int64_t scratch_bytes) { setup_.scratch_bytes = scratch_bytes; }
  // How much a tape holds for these rows; not played.
  size_t EntriesFor(const Matrix& x) const {
    const DeviceMatrix there(x, 4);
    std::vector<MatMulPart> parts;
    for (size_t i = 0; i < size(); ++i) {
      parts.push_back({&weights_[i].weight(), biases_[i].View(), old_[i].View(), false});
    }
    Tape tape;
    MatMul(&tape, setup_, there.View(), parts);
    return tape.num_entries();
  }

  std::vector<Matrix> OnBackend(Backend& backend, const Matrix& x) const {
    const LentScratch scratch(backend, {.max_rows = x.rows(), .max_k = x.cols()});
    std::vector<Matrix> outs;
    for (size_t i = 0; i < size(); ++i) {
      outs.push_back(RowsOf(old_[i], 0, x.rows()));
      const std::unique_ptr<PackedMatrix> packed = parts_[i].On(backend);
      const MatMulPart part = {&packed->weight(), biases_[i].HostView(), outs[i].View(),
                               parts_[i].accumulate};
      backend.MatMul(x.View(), {&part, 1});
    }
    return outs;
  }

 private:
  MatMulTable table_;
  std::vector<HostPart> parts_;
  DeviceFormatTables tables_;
  std::vector<DeviceWeight> weights_;
  std::vector<DeviceBias> biases_;
  std::vector<Matrix> old_;
  MatMulSetup setup_;
};

}  // namespace nibble::cuda
