// The tables. Every bound below is reasoned, not measured: no GPU was at hand. On Hopper wgmma is
// worth its set-up once about half a tile of 64 rows is filled, and the fused product pays until
// decoding beside cuBLAS costs less than wgmma loses to cuBLAS' own tiles; elsewhere mma.sync
// reaches cuBLAS' rate near 64 rows and keeps within reach of it until decoding is a few percent.
// Small matrices stay fused longer, because a launch per piece costs more than it saves.
#include "kernels/cuda/matmul_table.h"

#include <iterator>

#include "kernels/cuda/four_bit_layout.h"

namespace nibble::cuda {
namespace {

constexpr int64_t kSmall = int64_t{4} << 20;  // bitsandbytes 0.50's own bound of small weights

// By name first; then any GPU, the highest capability first. From 100 on there is no wgmma, and the
// compute_80 kernels run.
constexpr MatMulTable kTables[] = {
    // gpu, compute, small, stream, staged, hopper, general, 16-bit, INT8
    {"NVIDIA H200", 90, kSmall, {8, 8}, {32, 32}, {1024, 512}, {16, 16}, {8, 8}, {8, 8}},
    {"NVIDIA H100", 90, kSmall, {8, 8}, {32, 32}, {1024, 512}, {16, 16}, {8, 8}, {8, 8}},
    {"NVIDIA A100", 80, kSmall, {8, 8}, {256, 128}, {0, 0}, {16, 16}, {8, 8}, {8, 8}},
    {"", 100, kSmall, {8, 8}, {256, 128}, {0, 0}, {16, 16}, {8, 8}, {8, 8}},
    {"", 90, kSmall, {8, 8}, {32, 32}, {1024, 512}, {16, 16}, {8, 8}, {8, 8}},
    {"", 89, kSmall, {8, 8}, {512, 256}, {0, 0}, {16, 16}, {8, 8}, {8, 8}},
    {"", 0, kSmall, {8, 8}, {256, 128}, {0, 0}, {16, 16}, {8, 8}, {8, 8}},
};

int SizeClass(const MatMulTable& table, int64_t n, int64_t k) {
  return n * k < table.small_weights ? 0 : 1;
}

}  // namespace

const char* Name(MatMulPath path) {
  constexpr const char* kNames[kNumMatMulPaths] = {"stream", "staged", "hopper", "unpack",
                                                   "general"};
  return kNames[static_cast<int>(path)];
}

std::span<const MatMulTable> MatMulTables() { return kTables; }

const MatMulTable& TableFor(std::string_view gpu, int compute_capability) {
  for (const MatMulTable& table : kTables) {
    const std::string_view name = table.gpu;
    if (!name.empty() && gpu.substr(0, name.size()) == name) return table;
  }
  for (const MatMulTable& table : kTables) {
    if (*table.gpu == '\0' && compute_capability >= table.compute) return table;
  }
  return kTables[std::size(kTables) - 1];
}

MatMulPath ChoosePath(const MatMulTable& table, int64_t rows, int64_t n, int64_t k, bool fits,
                      bool batch_invariant) {
  if (batch_invariant) return fits ? MatMulPath::kStaged : MatMulPath::kGeneral;
  const int size = SizeClass(table, n, k);
  if (!fits) return rows <= table.general_rows[size] ? MatMulPath::kGeneral : MatMulPath::kUnpack;
  if (rows <= table.stream_rows[size]) return MatMulPath::kStream;
  if (rows <= table.staged_rows[size]) return MatMulPath::kStaged;
  if (rows <= table.hopper_rows[size]) return MatMulPath::kHopper;
  return MatMulPath::kUnpack;
}

bool TakesOwnKernel(const MatMulTable& table, WeightFormat format, int64_t rows, int64_t n,
                    int64_t k, bool batch_invariant) {
  const int size = SizeClass(table, n, k);
  if (format == WeightFormat::kInt8) return rows <= table.int8_rows[size];
  return batch_invariant || rows <= table.sixteen_bit_rows[size];
}

int64_t PieceRows(int64_t rows, int64_t n, int64_t room, int num_processors) {
  // The tile that cuBLAS likes best for large products, on Ampere as on Hopper.
  constexpr int64_t kTileM = 128, kTileN = 256;
  const auto waves = [&](int64_t piece) {
    const int64_t tiles = (rows + kTileM - 1) / kTileM * ((piece + kTileN - 1) / kTileN);
    return (tiles + num_processors - 1) / num_processors;
  };
  const auto all_waves = [&](int64_t piece) { return n / piece * waves(piece) + waves(n % piece); };
  // Whole panels, where there is room for one.
  const int64_t most = n <= room ? n : room < kPanelRows ? room : room / kPanelRows * kPanelRows;
  int64_t best = most;
  for (int64_t piece = most / kTileN * kTileN; piece > 0; piece -= kTileN) {
    if (all_waves(piece) < all_waves(best)) best = piece;
  }
  return best;
}

}  // namespace nibble::cuda
