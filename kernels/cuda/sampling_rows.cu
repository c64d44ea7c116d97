// The passes over whole rows of logits that spread over the machine: edits and maxima, then sums of
// exponentials. Knows neither top-k nor draws.
#include "cuda_machine.h"
#include "kernels/cuda/polynomials.h"
#include "kernels/cuda/sampling_call.h"

namespace nibble::cuda {
namespace {

constexpr uint32_t kThreads = 256;
constexpr int64_t kPartsOfSlice = kSliceTokens / kPartTokens;
constexpr int64_t kSumsOfSlice = kSliceTokens / kSumTokens;
static_assert(kPartTokens == kFour * kWarp);
static_assert(kSumTokens == kFour * kThreads);

// --- edits and maxima ---

__device__ __forceinline__ float Penalized(const DevicePlan& plan, int32_t output_count,
                                           float logit) {
  logit = logit > 0 ? logit / plan.repetition_penalty : logit * plan.repetition_penalty;
  logit -= plan.frequency_penalty * static_cast<float>(output_count);
  if (output_count > 0) logit -= plan.presence_penalty;
  return logit;
}

// values: [kSliceTokens] of tokens [begin, end), all threads past a barrier. Each list is applied
// in whole before the next.
__device__ void EditSlice(const SamplingCall& call, const DevicePlan& plan, int32_t begin,
                          int32_t end, float* values) {
  // A token may have several biases: all threads read all of them, and each keeps to its tokens.
  for (int32_t i = 0; i < plan.num_bias; ++i) {
    const TokenBias bias = call.biases[plan.first_bias + i];
    const bool inside = bias.token >= begin && bias.token < end;
    if (inside && static_cast<uint32_t>(bias.token - begin) % kThreads == threadIdx.x) {
      values[bias.token - begin] += bias.bias;
    }
  }
  __syncthreads();
  // Counts are of distinct tokens.
  const int32_t num_counts = Penalizes(plan) ? plan.num_counts : 0;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < num_counts; i += kThreads) {
    const TokenCount count = call.counts[plan.first_count + i];
    if (count.token < begin || count.token >= end) continue;
    float* const value = values + (count.token - begin);
    *value = Penalized(plan, count.output_count, *value);
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < plan.num_banned; i += kThreads) {
    const int32_t token = call.banned[plan.first_banned + i];
    if (token >= begin && token < end) values[token - begin] = -INFINITY;
  }
  __syncthreads();
}

// The slice of a row with its edits, in `values` and in the scratch row.
__device__ void MakeEditedSlice(const SamplingCall& call, const DevicePlan& plan, int64_t index,
                                int64_t first, float* values) {
  const SamplingRow raw = RawRow(call, plan);
  const SamplingRow picked = PickedRow(call, plan, index);
  const int64_t count = picked.count;
  for (int64_t c = kFour * threadIdx.x; c < kSliceTokens; c += kFour * kThreads) {
    StoreFour(values, c, kSliceTokens, true,
              LoadFour(raw.logits, first + c, raw.count, raw.aligned != 0));
  }
  __syncthreads();
  const int64_t end = first + kSliceTokens < count ? first + kSliceTokens : count;
  EditSlice(call, plan, static_cast<int32_t>(first), static_cast<int32_t>(end), values);
  float* const row = call.scratch.rows + index * call.scratch.row_stride;
  for (int64_t c = kFour * threadIdx.x; c < kSliceTokens; c += kFour * kThreads) {
    StoreFour(row, first + c, count, true, LoadFour(values, c, kSliceTokens, true));
  }
}

// Maxima of the slice's parts and of itself; `slice` holds a copy that begins at token `first`, or
// is null.
__device__ void StoreMaxima(const SamplingCall& call, const SamplingRow& row, View view,
                            const float* slice, float* shared) {
  constexpr int64_t kWarps = kThreads / kWarp;
  constexpr int kPartsOfWarp = kPartsOfSlice / kWarps;
  const SamplingScratch& scratch = call.scratch;
  const int64_t first = kSliceTokens * blockIdx.x;
  const int64_t warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  Four x[kPartsOfWarp];  // all on their way before the first is looked at
  for (int i = 0; i < kPartsOfWarp; ++i) {
    const int64_t c = kPartTokens * (warp + i * kWarps) + kFour * lane;
    x[i] = slice == nullptr ? LoadFour(row.logits, first + c, row.count, row.aligned != 0)
                            : LoadFour(slice, c, kSliceTokens, true);
  }
  for (int i = 0; i < kPartsOfWarp; ++i) {
    const int64_t p = warp + i * kWarps;
    const int64_t token = first + kPartTokens * p + kFour * lane;
    float largest = -INFINITY;
    for (int j = 0; j < 4; ++j) {
      if (token + j < row.count) largest = fmaxf(largest, x[i].v[j]);
    }
    largest = WarpMax(largest);
    if (lane != 0) continue;
    shared[p] = largest;
    const int64_t part = kPartsOfSlice * blockIdx.x + p;
    if (part < scratch.num_parts) {
      scratch.maxima[view][blockIdx.y * scratch.num_parts + part] = largest;
    }
  }
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  const float largest = WarpMax(lane < kPartsOfSlice ? shared[lane] : -INFINITY);
  if (lane == 0) scratch.slices[view][blockIdx.y * scratch.num_slices + blockIdx.x] = largest;
}

// One block for a slice of one plan's row: [slices, plans].
__global__ void __launch_bounds__(kThreads) PrepareKernel(SamplingCall call) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  float* const values = reinterpret_cast<float*>(DynamicShared());  // [kSliceTokens]
  float* const maxima = values + kSliceTokens;                      // [views][kPartsOfSlice]
  const DevicePlan plan = call.plans[blockIdx.y];
  const int64_t first = kSliceTokens * blockIdx.x;
  if (Picks(plan)) {
    const bool edited = Edits(plan);
    if (edited) MakeEditedSlice(call, plan, blockIdx.y, first, values);
    StoreMaxima(call, PickedRow(call, plan, blockIdx.y), kPicked, edited ? values : nullptr,
                maxima);
  }
  if (Reports(plan)) {
    StoreMaxima(call, RawRow(call, plan), kRaw, nullptr, maxima + kPartsOfSlice);
  }
}

// --- sums of exponentials ---

// Room for 1024 values of which one warp later reads two rows of 16 at once, from other banks.
constexpr int64_t kValuesStride = kSumTokens + 16;

// e^((x - largest)·factor) of this slice's tokens, summed by 1024 as the CPU sums them: 16 lanes,
// each adding every 16th value, then folded. values: [kSumsOfSlice][kValuesStride].
__device__ void SumSlice(const SamplingRow& row, float largest, float factor, float* values,
                         float* sums) {
  const int64_t first = kSliceTokens * blockIdx.x + kFour * threadIdx.x;
  Four x[kSumsOfSlice];
  for (int s = 0; s < kSumsOfSlice; ++s) {
    x[s] = LoadFour(row.logits, first + s * kSumTokens, row.count, row.aligned != 0);
  }
  for (int s = 0; s < kSumsOfSlice; ++s) {
    for (int i = 0; i < 4; ++i) {
      float& value = x[s].v[i];
      const bool possible = first + s * kSumTokens + i < row.count && value == value;
      value = possible ? Exp((value - largest) * factor) : 0.0f;
    }
    StoreFour(values + s * kValuesStride, kFour * threadIdx.x, kSumTokens, true, x[s]);
  }
  __syncthreads();
  if (threadIdx.x >= kWarp) return;
  const float* const mine = values + threadIdx.x / 16 * kValuesStride + threadIdx.x % 16;
  float sum = 0;
  for (int k = 0; k < kSumTokens; k += 16) sum += mine[k];
  for (unsigned half = 8; half > 0; half /= 2) sum += __shfl_down_sync(~0u, sum, half, 16);
  const int64_t block = kSumsOfSlice * blockIdx.x + threadIdx.x / 16;
  if (threadIdx.x % 16 == 0 && block * kSumTokens < row.count) sums[block] = sum;
}

// One block for a slice of one plan's row: [slices, plans].
__global__ void __launch_bounds__(kThreads) SumKernel(SamplingCall call) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  float* const values = reinterpret_cast<float*>(DynamicShared());
  const SamplingScratch& scratch = call.scratch;
  const DevicePlan plan = call.plans[blockIdx.y];
  const SamplingRow picked = PickedRow(call, plan, blockIdx.y);
  if (Picks(plan) && plan.temperature != 0 && !KeepsTopK(plan, picked.count)) {
    SumSlice(picked, LargestOf(scratch, kPicked, blockIdx.y), FactorOf(plan), values,
             scratch.sums[kPicked] + blockIdx.y * scratch.num_sums);
  }
  if (Reports(plan)) {
    SumSlice(RawRow(call, plan), LargestOf(scratch, kRaw, blockIdx.y), 1.0f,
             values + kSumsOfSlice * kValuesStride,
             scratch.sums[kRaw] + blockIdx.y * scratch.num_sums);
  }
}

Dim3 GridFor(const SamplingCall& call, int64_t num_plans) {
  return {static_cast<uint32_t>(call.scratch.num_slices), static_cast<uint32_t>(num_plans)};
}

}  // namespace

void LaunchPrepare(Tape* tape, const SamplingCall& call, int64_t num_plans) {
  constexpr uint32_t kBytes = (kSliceTokens + kNumViews * kPartsOfSlice) * sizeof(float);
  Launch(tape, &PrepareKernel, GridFor(call, num_plans), {kThreads}, {kBytes, true}, call);
}

void LaunchSums(Tape* tape, const SamplingCall& call, int64_t num_plans) {
  constexpr uint32_t kBytes = kNumViews * kSumsOfSlice * kValuesStride * sizeof(float);
  Launch(tape, &SumKernel, GridFor(call, num_plans), {kThreads}, {kBytes, true}, call);
}

}  // namespace nibble::cuda
