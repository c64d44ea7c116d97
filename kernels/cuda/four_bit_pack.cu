// Byte permutations between the checkpoint's order and packed panels. Knows no value of a code.
#include "cuda_machine.h"
#include "kernels/cuda/four_bit_pack.h"

namespace nibble::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kWordCodes = 8;

struct PackShape {
  int64_t n;
  int64_t k;
  int64_t first_row;
  int64_t rows;  // of the slice that exist
  int64_t zero;  // the code of zero
};

// The codes of a slice's flat elements [i, i + count), count <= 8, as the checkpoint's bytes would
// be if i were even; code 0 beyond.
__device__ __forceinline__ uint32_t GatherCodes(const uint8_t* codes, int64_t i, int64_t count) {
  uint32_t word = 0;
  for (int64_t j = 0; j < count; ++j) {
    const uint32_t byte = codes[(i + j) / 2];
    const uint32_t code = (i + j) % 2 == 0 ? byte >> 4 : byte & 15u;
    word |= code << (8 * (j / 2) + (j % 2 == 0 ? 4 : 0));
  }
  return word;
}

// The word of row `row` of the slice that begins at k.
__device__ __forceinline__ uint32_t WordAt(const PackShape& shape, const uint8_t* staged,
                                           int64_t row, int64_t k) {
  if (row >= shape.rows || k >= shape.k) return 0;
  const int64_t flat = row * shape.k + k;
  if (shape.k % kWordCodes == 0) return *reinterpret_cast<const uint32_t*>(staged + flat / 2);
  const int64_t left = shape.k - k;
  return GatherCodes(staged, flat, left < kWordCodes ? left : kWordCodes);
}

// A thread makes the 16 bytes of one lane of one unit; blockIdx.x is the panel.
__global__ void PackCodes(PackShape shape, const uint8_t* staged, uint4* codes) {
  const int64_t lanes = NumUnits(shape.k) * 32, panel = blockIdx.x;
  const int64_t i = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (i >= lanes) return;
  const int64_t row = panel * kPanelRows + i % 32 / 4;
  const int64_t k = i / 32 * kUnitK + i % 4 * kWordCodes;
  codes[panel * lanes + i] =
      make_uint4(WordAt(shape, staged, row, k), WordAt(shape, staged, row + 8, k),
                 WordAt(shape, staged, row, k + 32), WordAt(shape, staged, row + 8, k + 32));
}

// The code of element (row, k) of the slice's panels.
__device__ __forceinline__ uint32_t PackedCode(const uint8_t* codes, int64_t units, int64_t row,
                                               int64_t k) {
  const int64_t unit = row / kPanelRows * units + k / kUnitK;
  const int64_t lane = row % 8 * 4 + k % 32 / kWordCodes;
  const int64_t word = k % kUnitK / 32 * 2 + row % kPanelRows / 8;
  const uint32_t byte = codes[unit * kUnitBytes + lane * 16 + word * 4 + k % kWordCodes / 2];
  return k % 2 == 0 ? byte >> 4 : byte & 15u;
}

// A thread makes one byte of the checkpoint's.
__global__ void UnpackCodes(PackShape shape, const uint8_t* codes, uint8_t* staged, int64_t bytes) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= bytes) return;
  const int64_t units = NumUnits(shape.k), end = shape.rows * shape.k;
  uint32_t pair[2];
  for (int64_t j = 0; j < 2; ++j) {
    const int64_t flat = 2 * i + j;
    pair[j] = flat < end ? PackedCode(codes, units, flat / shape.k, flat % shape.k)
                         : static_cast<uint32_t>(shape.zero);
  }
  staged[i] = static_cast<uint8_t>(pair[0] << 4 | pair[1]);
}

// packed[panel][group][16 rows] from staged[row][group]; zeros for rows past N.
template <typename T>
__global__ void PackScales(PackShape shape, int64_t groups, const T* staged, T* packed) {
  const int64_t panel = blockIdx.x, i = int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (i >= groups * kPanelRows) return;
  const int64_t row = panel * kPanelRows + i % kPanelRows, group = i / kPanelRows;
  packed[panel * groups * kPanelRows + i] = row < shape.rows ? staged[row * groups + group] : T{0};
}

template <typename T>
__global__ void UnpackScales(int64_t groups, const T* packed, T* staged, int64_t count) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const int64_t row = i / groups, group = i % groups;
  staged[i] = packed[(row / kPanelRows * groups + group) * kPanelRows + row % kPanelRows];
}

PackShape ShapeOf(const WeightSpec& spec, int64_t first, int64_t count) {
  const int64_t first_row = first * kPanelRows, end = (first + count) * kPanelRows;
  return {spec.n, spec.k, first_row, (end < spec.n ? end : spec.n) - first_row,
          spec.format == WeightFormat::kNf4 ? 7 : 0};
}

template <typename T>
void LaunchScales(Tape* tape, const Weight& weight, int64_t first, int64_t count, T* staged,
                  bool pack) {
  const int64_t groups = weight.spec.k / weight.spec.group_size;
  const PackShape shape = ShapeOf(weight.spec, first, count);
  T* const packed = static_cast<T*>(weight.scales) + first * kPanelRows * groups;
  if (pack) {
    const Dim3 grid = {static_cast<uint32_t>(count), CeilDiv(groups * kPanelRows, kThreads)};
    Launch(tape, PackScales<T>, grid, {kThreads}, {}, shape, groups, staged, packed);
  } else {
    const int64_t values = shape.rows * groups;
    Launch(tape, UnpackScales<T>, {CeilDiv(values, kThreads)}, {kThreads}, {}, groups, packed,
           staged, values);
  }
}

void LaunchScales(Tape* tape, const Weight& weight, int64_t first, int64_t count, void* staged,
                  bool pack) {
  if (weight.spec.double_quant) {
    LaunchScales(tape, weight, first, count, static_cast<uint8_t*>(staged), pack);
  } else {
    LaunchScales(tape, weight, first, count, static_cast<uint32_t*>(staged), pack);
  }
}

}  // namespace

PackedSize FourBitPackedBytes(const WeightSpec& spec) {
  const int64_t rows = NumPanels(spec.n) * kPanelRows;
  const int64_t groups = (spec.n * spec.k + spec.group_size - 1) / spec.group_size;
  const int64_t stored = GroupsInRows(spec) ? rows * (spec.k / spec.group_size) : groups;
  PackedSize size;
  size.codes = NumPanels(spec.n) * NumUnits(spec.k) * kUnitBytes;
  size.scales = stored * (spec.double_quant ? 1 : 4);
  if (spec.double_quant) size.nested = (groups + 255) / 256 * 4 + 4;
  if (spec.own_tables) size.tables = (16 + (spec.double_quant ? 256 : 0)) * 4;
  return size;
}

FourBitView ViewOf(const Weight& weight, const DeviceTables& tables) {
  const WeightSpec& spec = weight.spec;
  const float* const own = static_cast<const float*>(weight.tables);
  FourBitView view = {};
  view.codes = static_cast<const uint8_t*>(weight.codes);
  view.codebook = spec.format == WeightFormat::kNf4 ? tables.nf4 : tables.fp4;
  if (spec.own_tables) view.codebook = own;
  if (spec.double_quant) {
    view.absmax_codes = static_cast<const uint8_t*>(weight.scales);
    view.nested = static_cast<const float*>(weight.nested);
    view.map = spec.own_tables ? own + 16 : tables.dynamic_map;
  } else {
    view.absmax = static_cast<const float*>(weight.scales);
  }
  view.n = spec.n;
  view.k = spec.k;
  view.group = spec.group_size;
  view.straddles = GroupsInRows(spec) ? 0 : 1;
  return view;
}

void PackFourBitCodes(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                      const void* staged) {
  const int64_t units = NumUnits(weight.spec.k);
  uint4* const codes = static_cast<uint4*>(weight.codes) + first * units * 32;
  const Dim3 grid = {static_cast<uint32_t>(count), CeilDiv(units * 32, kThreads)};
  Launch(tape, PackCodes, grid, {kThreads}, {}, ShapeOf(weight.spec, first, count),
         static_cast<const uint8_t*>(staged), codes);
}

void UnpackFourBitCodes(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                        void* staged) {
  const uint8_t* const codes =
      static_cast<const uint8_t*>(weight.codes) + first * NumUnits(weight.spec.k) * kUnitBytes;
  const int64_t bytes = CodesOfPanels(weight.spec, first, count).bytes;
  Launch(tape, UnpackCodes, {CeilDiv(bytes, kThreads)}, {kThreads}, {},
         ShapeOf(weight.spec, first, count), codes, static_cast<uint8_t*>(staged), bytes);
}

void PackFourBitScales(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                       const void* staged) {
  LaunchScales(tape, weight, first, count, const_cast<void*>(staged), true);
}

void UnpackFourBitScales(Tape* tape, const Weight& weight, int64_t first, int64_t count,
                         void* staged) {
  LaunchScales(tape, weight, first, count, staged, false);
}

}  // namespace nibble::cuda
