// Which kernel multiplies which shape: one table per GPU model, shipped with the program. A table
// is made by `cuda_bench --table` on that GPU and written here by hand; nothing is measured at
// load.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/weight.h"

namespace nibble::cuda {

// The ways of a 4-bit product in the tensor cores' mode.
enum class MatMulPath : uint8_t {
  kStream,   // weights from memory straight to registers, mma.sync; up to 8 rows
  kStaged,   // the same with rows of x staged through shared memory; tiles of 16, 32, 64 rows
  kHopper,   // wgmma with weights decoded into its registers (sm_90a)
  kUnpack,   // decode a piece that fits L2 to 16 bits, cuBLAS, next piece
  kGeneral,  // any shape: groups that straddle rows; exact fp32 arithmetic
};
inline constexpr int kNumMatMulPaths = 5;
const char* Name(MatMulPath path);

// Pairs are by the size of the matrix: fewer than small_weights values, or not.
struct MatMulTable {
  const char* gpu;  // what DeviceTraits::name begins with; "" for any
  int compute;      // 80, 89, 90: at least this capability
  int64_t small_weights;
  // The most rows for which each path of a 4-bit product is taken, looked at in this order. Rows
  // beyond every bound go to kUnpack. No more than kMaxStreamRows of them stream.
  int64_t stream_rows[2];
  int64_t staged_rows[2];
  int64_t hopper_rows[2];
  int64_t general_rows[2];  // of a matrix whose groups straddle rows
  // The most rows that our own kernels multiply with 16-bit and INT8 weights; cuBLAS beyond.
  int64_t sixteen_bit_rows[2];
  int64_t int8_rows[2];
};
inline constexpr int64_t kMaxStreamRows = 8;

// Every table that is shipped.
std::span<const MatMulTable> MatMulTables();

// The table of the GPU's name, else of its capability.
const MatMulTable& TableFor(std::string_view gpu, int compute_capability);

// The one place that chooses. `fits`: groups do not straddle rows and are 32 or a multiple of 64.
// With batch_invariant the answer is the same for any number of rows.
MatMulPath ChoosePath(const MatMulTable& table, int64_t rows, int64_t n, int64_t k, bool fits,
                      bool batch_invariant);
// Whether our own kernel multiplies with 16-bit or INT8 weights. Always with batch_invariant and
// 16 bits: what cuBLAS adds in which order changes with the number of rows. Integers have no order.
bool TakesOwnKernel(const MatMulTable& table, WeightFormat format, int64_t rows, int64_t n,
                    int64_t k, bool batch_invariant);

// How many of the n weight rows kUnpack decodes at a time, at most `room`: such that cuBLAS' tiles
// of the pieces leave few multiprocessors idle.
int64_t PieceRows(int64_t rows, int64_t n, int64_t room, int num_processors);

}  // namespace nibble::cuda
