// Exact products. Where groups lie in rows the groups' sums are independent: threads make them side
// by side, then one thread for each output adds them in order. Where groups straddle rows a sum is
// one chain over k.
#include "kernels/cuda/four_bit_general.h"
#include "kernels/cuda/four_bit_out.h"
#include "kernels/cuda/four_bit_values.inl"

namespace nibble::cuda {
namespace {

constexpr int kTokens = 4;  // rows of x at a time
constexpr int kThreads = 256;
constexpr int kGroups = 32;  // of a row at a time: 8 threads for each, which take rows r and r + 8
constexpr int kHalfUnitK = 32;  // a group is some halves of units

struct GeneralX {
  const float* data;
  int64_t rows;
  int64_t stride;
  int64_t aligned;  // 1: four values from a multiple of four can be loaded at once
};

// The part that panel `index` of all parts' panels belongs to.
struct PanelPlace {
  int part;
  int64_t panel;
};
__device__ __forceinline__ PanelPlace FindPanel(const FourBitParts& parts, int64_t index) {
  int part = 0;
  for (;; ++part) {
    const int64_t panels = NumPanels(parts.parts[part].weight.n);
    if (index < panels) return {part, index};
    index -= panels;
  }
}

// Row `first + i` of x, or the last.
__device__ __forceinline__ const float* RowOf(const GeneralX& x, int64_t m) {
  return x.data + (m < x.rows ? m : x.rows - 1) * x.stride;
}

__device__ __forceinline__ float4 LoadX(const GeneralX& x, const float* from) {
  if (x.aligned != 0) return *reinterpret_cast<const float4*>(from);
  return make_float4(from[0], from[1], from[2], from[3]);
}

// sums[r][m] = Σ_k x[m,k] · code over group `group` of rows row and row + 8 of a panel.
__device__ __forceinline__ void SumGroup(const FourBitView& w, const float* lines,
                                         const uint8_t* panel, const GeneralX& x, int64_t first_m,
                                         int64_t group, uint32_t row, float (&sums)[2][kTokens]) {
  const uint32_t lane4 = threadIdx.x % 32 * 4;
  const int64_t halves = w.group / kHalfUnitK;
  for (int64_t q = group * halves; q < (group + 1) * halves; ++q) {
    const uint8_t* const codes = panel + q / 2 * kUnitBytes + row * 64 + q % 2 * 8;
    for (int t = 0; t < 4; ++t) {
      const uint2 words = *reinterpret_cast<const uint2*>(codes + t * 16);
#pragma unroll
      for (int four = 0; four < 2; ++four) {
        float values[2][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          values[0][i] = ValueOf(lines, words.x, 4 * four + i, lane4);
          values[1][i] = ValueOf(lines, words.y, 4 * four + i, lane4);
        }
#pragma unroll
        for (int m = 0; m < kTokens; ++m) {
          const int64_t k = q * kHalfUnitK + 8 * t + 4 * four;
          const float4 xs = LoadX(x, RowOf(x, first_m + m) + k);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            sums[r][m] = fmaf(values[r][0], xs.x, sums[r][m]);
            sums[r][m] = fmaf(values[r][1], xs.y, sums[r][m]);
            sums[r][m] = fmaf(values[r][2], xs.z, sums[r][m]);
            sums[r][m] = fmaf(values[r][3], xs.w, sums[r][m]);
          }
        }
      }
    }
  }
}

// Shared memory of a block: sums of kGroups groups for 16 rows and kTokens rows of x, the scales of
// these groups, the codebook.
constexpr int kSums = kGroups * 16 * kTokens;
constexpr int kScales = kGroups * 16;
constexpr uint32_t kRowGroupsBytes = (kSums + kScales) * 4 + kCodebookBytes;

// blockIdx.x: the panel; blockIdx.y: kTokens rows of x.
__global__ void __launch_bounds__(kThreads) RowGroups(GeneralX x, FourBitParts parts) {
  const PanelPlace place = FindPanel(parts, blockIdx.x);
  const FourBitPart& part = parts.parts[place.part];
  const FourBitView& w = part.weight;
  float* const sums = reinterpret_cast<float*>(DynamicShared());
  float* const scales = sums + kSums;
  float* const lines = scales + kScales;
  FillCodebook(lines, w.codebook);
  LetNextKernelStart();
  __syncthreads();
  WaitForPreviousKernel();
  const int64_t groups = w.k / w.group, first_m = int64_t{blockIdx.y} * kTokens;
  const uint8_t* const panel = w.codes + place.panel * NumUnits(w.k) * kUnitBytes;
  const float offset = OffsetOf(w);
  const int mine = static_cast<int>(threadIdx.x / 8);
  const uint32_t row = threadIdx.x % 8;
  float sum = 0;  // of output row threadIdx.x / kTokens, row of x threadIdx.x % kTokens
  for (int64_t first = 0; first < groups; first += kGroups) {
    if (first + mine < groups) {
      float of_group[2][kTokens] = {};
      SumGroup(w, lines, panel, x, first_m, first + mine, row, of_group);
#pragma unroll
      for (int i = 0; i < 2 * kTokens; ++i) {
        const int r = static_cast<int>(row) + 8 * (i / kTokens);
        sums[(mine * 16 + r) * kTokens + i % kTokens] = of_group[i / kTokens][i % kTokens];
      }
    }
    for (int i = static_cast<int>(threadIdx.x); i < kScales; i += kThreads) {
      const int64_t n = place.panel * kPanelRows + i % 16;
      if (first + i / 16 < groups && n < w.n) {
        scales[i] = ScaleInRow(w, groups, n, first + i / 16, offset);
      }
    }
    __syncthreads();
    const int64_t count = groups - first < kGroups ? groups - first : kGroups;
    for (int g = 0; g < count && threadIdx.x < 16 * kTokens; ++g) {
      const uint32_t at = static_cast<uint32_t>(g) * 16 * kTokens + threadIdx.x;
      sum = fmaf(sums[at], scales[at / kTokens], sum);
    }
    __syncthreads();
  }
  const int64_t n = place.panel * kPanelRows + threadIdx.x / kTokens;
  const int64_t m = first_m + threadIdx.x % kTokens;
  if (threadIdx.x < 16 * kTokens && n < w.n && m < x.rows)
    StoreSum(part, m, n, sum, BiasOf(part, n));
}

constexpr int kChainThreads = 32;

// Lane l: row l % 16 of a panel, the first or second kTokens of the block's rows of x.
__global__ void __launch_bounds__(kChainThreads) Chains(GeneralX x, FourBitParts parts) {
  const PanelPlace place = FindPanel(parts, blockIdx.x);
  const FourBitPart& part = parts.parts[place.part];
  const FourBitView& w = part.weight;
  float* const lines = reinterpret_cast<float*>(DynamicShared());
  FillCodebook(lines, w.codebook);
  LetNextKernelStart();
  __syncthreads();
  WaitForPreviousKernel();
  const uint32_t row = threadIdx.x % 16, lane4 = threadIdx.x * 4;
  const int64_t n = place.panel * kPanelRows + row;
  const int64_t first_m = int64_t{blockIdx.y} * (2 * kTokens) + threadIdx.x / 16 * kTokens;
  if (n >= w.n) return;
  const uint8_t* const codes =
      w.codes + place.panel * NumUnits(w.k) * kUnitBytes + row % 8 * 64 + row / 8 * 4;
  const int shift = GroupShift(w);
  const float offset = OffsetOf(w);
  float sums[kTokens] = {}, scale = 0;
  int64_t change = 0;  // the k at which the next group begins
  for (int64_t first = 0; first < w.k; first += 8) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(codes + first / kUnitK * kUnitBytes +
                                                             first % kHalfUnitK / 8 * 16 +
                                                             first % kUnitK / kHalfUnitK * 8);
    for (int i = 0; i < 8 && first + i < w.k; ++i) {
      const int64_t k = first + i;
      if (k == change) {
        const int64_t number = (n * w.k + k) >> shift;
        scale = ScaleAt(w, number, number, offset);
        change = ((number + 1) << shift) - n * w.k;
      }
      const float value = ValueOf(lines, word, i, lane4) * scale;
#pragma unroll
      for (int m = 0; m < kTokens; ++m) {
        sums[m] = fmaf(value, RowOf(x, first_m + m)[k], sums[m]);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kTokens; ++m) {
    if (first_m + m < x.rows) StoreSum(part, first_m + m, n, sums[m], BiasOf(part, n));
  }
}

}  // namespace

void FourBitGeneral(Tape* tape, const Activations& x, const FourBitParts& parts) {
  int64_t panels = 0;
  for (int64_t i = 0; i < parts.num_parts; ++i) panels += NumPanels(parts.parts[i].weight.n);
  const int64_t aligned =
      reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride % 4 == 0 ? 1 : 0;
  const GeneralX rows = {x.data, x.rows, x.stride, aligned};
  if (parts.parts[0].weight.straddles != 0) {
    const Dim3 grid = {static_cast<uint32_t>(panels), CeilDiv(x.rows, 2 * kTokens)};
    Launch(tape, Chains, grid, {kChainThreads}, {kCodebookBytes, true}, rows, parts);
  } else {
    const Dim3 grid = {static_cast<uint32_t>(panels), CeilDiv(x.rows, kTokens)};
    Launch(tape, RowGroups, grid, {kThreads}, {kRowGroupsBytes, true}, rows, parts);
  }
}

}  // namespace nibble::cuda
