// What the instructions of a whole warp compute, lane by lane, as the PTX ISA lays fragments out.
#include <cstring>

#include "kernels/half.h"
#include "tests/support/cuda_emulator/block.h"
#include "tests/support/cuda_emulator/half_table.h"

namespace nibble::cuda::emulator {
namespace {

constexpr int kLanes = 32;
constexpr uint64_t kUndefined = ~uint64_t{0};

// The lane that a lane reads; itself where the instruction says so.
unsigned SourceLane(const ShuffleFrame& frame, unsigned lane) {
  const unsigned segment = lane & ~(frame.width - 1);
  const unsigned inside = lane & (frame.width - 1);
  switch (frame.kind) {
    case Shuffle::kIndex:
      return segment + (frame.argument & (frame.width - 1));
    case Shuffle::kXor:
      return (lane ^ frame.argument) < segment + frame.width ? lane ^ frame.argument : lane;
    case Shuffle::kDown:
      return inside + frame.argument < frame.width ? lane + frame.argument : lane;
    case Shuffle::kUp:
      return inside >= frame.argument ? lane - frame.argument : lane;
  }
  return lane;
}

void LoadRows(void* const* frames, bool transposed) {
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t values[8][8];
    for (unsigned row = 0; row < 8; ++row) {
      const auto* const frame = static_cast<const MatrixFrame*>(frames[8 * matrix + row]);
      std::memcpy(values[row], SharedAt("LoadMatrix4", frame->row, 16, 16), 16);
    }
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      const unsigned row = lane / 4;
      const unsigned column = lane % 4 * 2;
      const uint16_t first = transposed ? values[column][row] : values[row][column];
      const uint16_t second = transposed ? values[column + 1][row] : values[row][column + 1];
      static_cast<MatrixFrame*>(frames[lane])->r[matrix] =
          static_cast<uint32_t>(second) << 16 | first;
    }
  }
}

// sums[n] += a·b, rounded after each k; a and b by k.
__attribute__((target_clones("avx2", "default"))) void AddRows(const float (&a)[16][16],
                                                               const float (&b)[16][8],
                                                               float (&d)[16][8]) {
  for (unsigned row = 0; row < 16; ++row) {
    float sums[8];
    for (unsigned n = 0; n < 8; ++n) sums[n] = d[row][n];
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned n = 0; n < 8; ++n) sums[n] += a[k][row] * b[k][n];
    }
    for (unsigned n = 0; n < 8; ++n) d[row][n] = sums[n];
  }
}

// d[16,8] += a[16,16]·b[16,8]; every product is exact, sums round to fp32 along k.
template <typename ToFloat>
void Multiply(void* const* frames, const ToFloat& to_float) {
  // a[k][row], b[k][column]
  float a[16][16];
  float b[16][8];
  float d[16][8];
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const auto& frame = *static_cast<const MmaFrame*>(frames[lane]);
    const unsigned g = lane / 4;
    const unsigned t = lane % 4 * 2;
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = g + i % 2 * 8;
      const unsigned k = t + i / 2 * 8;
      a[k][row] = to_float(static_cast<uint16_t>(frame.a[i]));
      a[k + 1][row] = to_float(static_cast<uint16_t>(frame.a[i] >> 16));
      d[g + i / 2 * 8][t + i % 2] = frame.d[i];
    }
    for (unsigned i = 0; i < 2; ++i) {
      b[t + i * 8][g] = to_float(static_cast<uint16_t>(frame.b[i]));
      b[t + i * 8 + 1][g] = to_float(static_cast<uint16_t>(frame.b[i] >> 16));
    }
  }
  AddRows(a, b, d);
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    float* const out = static_cast<const MmaFrame*>(frames[lane])->d;
    for (unsigned i = 0; i < 4; ++i) out[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

}  // namespace

void ShuffleLanes(void* const* frames) {
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    auto* const frame = static_cast<ShuffleFrame*>(frames[lane]);
    if (frame == nullptr) continue;
    if (frame->width == 0 || frame->width > 32 || (frame->width & (frame->width - 1)) != 0) {
      Die("a shuffle of width %u", frame->width);
    }
    const auto* const source =
        static_cast<const ShuffleFrame*>(frames[SourceLane(*frame, lane) % kLanes]);
    frame->result = source == nullptr ? kUndefined : source->value;
  }
}

void VoteLanes(void* const* frames) {
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    const auto* const frame = static_cast<const VoteFrame*>(frames[lane]);
    if (frame != nullptr && frame->predicate) ballot |= 1u << lane;
  }
  for (unsigned lane = 0; lane < kLanes; ++lane) {
    if (frames[lane] != nullptr) static_cast<VoteFrame*>(frames[lane])->ballot = ballot;
  }
}

void LoadMatrices(void* const* frames) { LoadRows(frames, false); }
void LoadMatricesTransposed(void* const* frames) { LoadRows(frames, true); }

void MultiplyHalf(void* const* frames) {
  Multiply(frames, [](uint16_t half) { return Widen(half); });
}
void MultiplyBf16(void* const* frames) {
  Multiply(frames, [](uint16_t half) { return Bf16ToF32(half); });
}

}  // namespace nibble::cuda::emulator
