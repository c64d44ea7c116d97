// Which tokens of a row are kept: the one search that top-k, top-p and the draw have in common, by
// one block. Included by .cu files after cuda_machine.h. Knows no plan.
//
// A token's key is 54 bits: what it is ordered by (a logit, its exponential, or nothing), then
// 2^22 - 1 - token, so that of equals the lower token is the larger key. All sums are of whole
// numbers, hence the order in which threads come to them changes nothing.
//
// The passes over tokens are real functions: inlined wherever they are called they would be more
// code than an instruction cache holds.
#pragma once

#include "cuda_machine.h"
#include "kernels/cuda/polynomials.h"
#include "kernels/cuda/row_access.h"
#include "kernels/cuda/sampling_scratch.h"

namespace nibble::cuda {

inline constexpr int kTokenBits = 22;
inline constexpr int32_t kLastToken = (1 << kTokenBits) - 1;
inline constexpr int kDigitBits = 11;
inline constexpr int32_t kNumBins = 1 << kDigitBits;

enum class Order { kLogit, kExponential, kToken };

// The most tokens of a row: a block's running sums, one for 1024 tokens, take the histogram's
// place.

// Shared memory of one block; the list of tokens follows it.
struct SelectShared {
  uint32_t low[kNumBins];  // a histogram of weights, 64 bits in two halves
  uint32_t high[kNumBins];
  uint64_t partial[512 + 512 / kWarp];  // sums of each thread's bins
  uint64_t warp_sums[kWarp];
  uint64_t above;      // weight of the keys above the chosen digit
  uint64_t here;       // weight of the chosen digit
  int32_t digit;       // or -1: not reached
  int32_t num_listed;  // may exceed the list's room
  int32_t answer;      // what one warp found, for all
  int32_t unused;
};
__device__ __forceinline__ SelectShared& Shared() {
  return *reinterpret_cast<SelectShared*>(DynamicShared());
}

// The tokens that may still be kept. The same in all threads of a block.
struct Crowd {
  SamplingRow row;
  const float* maxima;         // of the row's parts, or null
  float largest;               // a token's exponential is e^((logit - largest)·factor)
  float factor;                // 0: exponentials do not matter
  uint64_t least_logit;        // keys by logit below it are out
  uint64_t least_exponential;  // and keys by exponential
  int32_t room;                // of the list
  int32_t listed;              // >= 0: the list holds every token that may be kept

  __device__ __forceinline__ float* list_logits() const {
    return reinterpret_cast<float*>(&Shared() + 1);
  }
  __device__ __forceinline__ int32_t* list_tokens() const {
    return reinterpret_cast<int32_t*>(list_logits()) + room;
  }
};

__device__ __forceinline__ uint64_t KeyOf(uint32_t order, int32_t token) {
  return static_cast<uint64_t>(order) << kTokenBits | static_cast<uint32_t>(kLastToken - token);
}
// The least key of those that order alike.
__device__ __forceinline__ uint64_t LeastKey(uint32_t order) {
  return static_cast<uint64_t>(order) << kTokenBits;
}
__device__ __forceinline__ int32_t TokenOf(uint64_t key) {
  return kLastToken - static_cast<int32_t>(key & static_cast<uint32_t>(kLastToken));
}
// Logits by size as unsigned numbers; -0 is 0.
__device__ __forceinline__ uint32_t OrderOfLogit(float logit) {
  const uint32_t bits = BitsOf(logit + 0.0f);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
// A value in [0, 1] as a whole number of 2^-40, what is below that left out, as on the CPU.
__device__ __forceinline__ uint64_t MassOf(float value) {
  const uint32_t bits = BitsOf(value);
  const uint64_t digits = (bits & 0x7fffffu) | 0x800000u;
  const int32_t shift = static_cast<int32_t>(bits >> 23) - 127 - 23 + 40;
  return shift >= 0 ? digits << shift : shift > -24 ? digits >> -shift : 0;
}
__device__ __forceinline__ float ExponentialOf(const Crowd& crowd, float logit) {
  return Exp((logit - crowd.largest) * crowd.factor);
}

// visit(logit, exponential, token) if the token is kept so far.
template <typename Visit>
__device__ __forceinline__ void VisitIfKept(const Crowd& crowd, float logit, int32_t token,
                                            const Visit& visit) {
  if (!(logit == logit)) return;
  if (KeyOf(OrderOfLogit(logit), token) < crowd.least_logit) return;
  const float exponential = crowd.factor != 0 ? ExponentialOf(crowd, logit) : 0.0f;
  if (KeyOf(BitsOf(exponential), token) < crowd.least_exponential) return;
  visit(logit, exponential, token);
}

// Whether a part may hold tokens that are kept. Exp is not quite monotone: a few ulp are forgiven.
__device__ __forceinline__ bool PartMatters(const Crowd& crowd, int64_t part) {
  if (crowd.maxima == nullptr) return true;
  const float largest = crowd.maxima[part];
  if (KeyOf(OrderOfLogit(largest), 0) < crowd.least_logit) return false;
  if (crowd.factor == 0) return true;
  const float exponential = ExponentialOf(crowd, largest) * 1.0001f;
  return KeyOf(BitsOf(exponential), 0) >= crowd.least_exponential;
}

// A warp takes a part at a time, four tokens a lane; the next one is on its way meanwhile.
template <typename Visit>
__device__ __forceinline__ void VisitRow(const Crowd& crowd, const Visit& visit) {
  const int64_t warps = blockDim.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t parts = (crowd.row.count + kPartTokens - 1) / kPartTokens;
  const auto load = [&](int64_t c) {
    return LoadFour(crowd.row.logits, c, crowd.row.count, crowd.row.aligned != 0);
  };
  for (int64_t first = threadIdx.x / kWarp; first < parts; first += kWarp * warps) {
    const int64_t mine = first + lane * warps;
    unsigned left = __ballot_sync(~0u, mine < parts && PartMatters(crowd, mine));
    const auto next = [&] {  // this lane's tokens of the lowest part in `left`
      return (first + (__ffs(static_cast<int>(left)) - 1) * warps) * kPartTokens + kFour * lane;
    };
    if (left == 0) continue;
    Four coming = load(next());
    while (left != 0) {
      const int64_t c = next();
      const Four x = coming;
      left &= left - 1;
      if (left != 0) coming = load(next());
      for (int i = 0; i < 4; ++i) {
        if (c + i < crowd.row.count) VisitIfKept(crowd, x.v[i], static_cast<int32_t>(c + i), visit);
      }
    }
  }
}

template <typename Visit>
__device__ __forceinline__ void VisitKept(const Crowd& crowd, const Visit& visit) {
  if (crowd.listed < 0) {
    VisitRow(crowd, visit);
    return;
  }
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < crowd.listed;
       i += static_cast<int32_t>(blockDim.x)) {
    VisitIfKept(crowd, crowd.list_logits()[i], crowd.list_tokens()[i], visit);
  }
}

// --- sums of a block ---

__device__ __forceinline__ uint64_t BlockSum(uint64_t value) {
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
  if (threadIdx.x % kWarp == 0) Shared().warp_sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  uint64_t sum = 0;
  for (uint32_t warp = 0; warp < blockDim.x / kWarp; ++warp) sum += Shared().warp_sums[warp];
  __syncthreads();
  return sum;
}

__device__ __forceinline__ void AddToBin(uint32_t bin, uint64_t weight) {
  const uint32_t low = static_cast<uint32_t>(weight);
  const uint32_t old = atomicAdd(&Shared().low[bin], low);
  const uint32_t high = static_cast<uint32_t>(weight >> 32) + (old + low < old ? 1u : 0u);
  if (high != 0) atomicAdd(&Shared().high[bin], high);
}

// The mass of the tokens kept so far. Meets the block.
__device__ __attribute__((noinline)) uint64_t MassOfKept(Crowd crowd) {
  uint64_t mass = 0;
  VisitKept(crowd, [&](float, float exponential, int32_t) { mass += MassOf(exponential); });
  return BlockSum(mass);
}

// Lists the tokens of the row that are kept so far, as many as there is room for: shared num_listed
// counts them all. Returns their mass. Meets the block.
__device__ __attribute__((noinline)) uint64_t ListRow(Crowd crowd) {
  if (threadIdx.x == 0) Shared().num_listed = 0;
  __syncthreads();
  uint64_t mass = 0;
  VisitRow(crowd, [&](float logit, float exponential, int32_t token) {
    mass += MassOf(exponential);
    const int32_t at = atomicAdd(&Shared().num_listed, 1);
    if (at >= crowd.room) return;
    crowd.list_logits()[at] = logit;
    crowd.list_tokens()[at] = token;
  });
  return BlockSum(mass);
}

// From now on the list is looked at, if it holds all that are kept. Returns their mass. Meets the
// block.
__device__ __forceinline__ uint64_t ListKept(Crowd* crowd) {
  const uint64_t mass = ListRow(*crowd);
  const int32_t listed = Shared().num_listed;
  crowd->listed = listed <= crowd->room ? listed : -1;
  __syncthreads();
  return mass;
}

// --- the search ---

__device__ __forceinline__ uint64_t WeightOfBin(int32_t bin) {
  return static_cast<uint64_t>(Shared().high[bin]) << 32 | Shared().low[bin];
}

// The sum of the values of this lane and those before it.
template <typename T>
__device__ __forceinline__ T SumOfLanes(T value) {
  for (unsigned lanes = 1; lanes < kWarp; lanes *= 2) {
    const T other = __shfl_up_sync(~0u, value, lanes);
    if (threadIdx.x % kWarp >= lanes) value += other;
  }
  return value;
}

// Of weights that lanes hold, the first lane where their running sum reaches `wanted`, or 32; adds
// to *above what the lanes before it hold.
__device__ __forceinline__ uint32_t LaneThatReaches(uint64_t weight, uint64_t wanted,
                                                    uint64_t* above) {
  const uint64_t sum = SumOfLanes(weight);
  const unsigned reached = __ballot_sync(~0u, *above + sum >= wanted);
  if (reached == 0) return kWarp;
  const int lane = __ffs(static_cast<int>(reached)) - 1;
  *above += __shfl_sync(~0u, sum - weight, lane);
  return static_cast<uint32_t>(lane);
}

// The bin, counted from the highest, where the running sum reaches `wanted`: into shared digit,
// above and here. Meets the block. Threads hold consecutive bins, lanes of the first warp
// consecutive threads.
__device__ __forceinline__ void FindDigit(uint64_t above, uint64_t wanted) {
  SelectShared& shared = Shared();
  const int32_t bins = kNumBins / static_cast<int32_t>(blockDim.x);
  const uint32_t threads = blockDim.x / kWarp;  // of a lane
  const auto at = [](uint32_t thread) { return thread + thread / kWarp; };
  uint64_t weight = 0;
  for (int32_t i = 0; i < bins; ++i) {
    weight += WeightOfBin(kNumBins - 1 - (static_cast<int32_t>(threadIdx.x) * bins + i));
  }
  shared.partial[at(threadIdx.x)] = weight;
  __syncthreads();
  if (threadIdx.x < kWarp) {
    weight = 0;
    for (uint32_t i = 0; i < threads; ++i) weight += shared.partial[at(threadIdx.x * threads + i)];
    const uint32_t lane = LaneThatReaches(weight, wanted, &above);
    if (lane < kWarp) {
      weight = threadIdx.x < threads ? shared.partial[at(lane * threads + threadIdx.x)] : 0;
      const uint32_t thread = lane * threads + LaneThatReaches(weight, wanted, &above);
      int32_t bin = kNumBins - 1 - static_cast<int32_t>(thread) * bins;
      while (above + WeightOfBin(bin) < wanted) above += WeightOfBin(bin--);
      if (threadIdx.x == 0) {
        shared.digit = bin;
        shared.above = above;
        shared.here = WeightOfBin(bin);
      }
    } else if (threadIdx.x == 0) {
      shared.digit = -1;
    }
  }
  __syncthreads();
}

// The largest key such that the kept tokens with this key or more weigh at least `wanted` (> 0)
// together; 0 if all together do not. A token weighs 1, or its mass. Meets the block.
__device__ __attribute__((noinline)) uint64_t Reach(Crowd crowd, Order order, bool by_mass,
                                                    uint64_t wanted) {
  uint64_t prefix = 0, above = 0;
  for (int shift = order == Order::kToken ? kDigitBits : 4 * kDigitBits; shift >= 0;
       shift -= kDigitBits) {
    for (uint32_t bin = threadIdx.x; bin < kNumBins; bin += blockDim.x) {
      Shared().low[bin] = 0;
      Shared().high[bin] = 0;
    }
    __syncthreads();
    VisitKept(crowd, [&](float logit, float exponential, int32_t token) {
      const uint32_t ordered = order == Order::kLogit         ? OrderOfLogit(logit)
                               : order == Order::kExponential ? BitsOf(exponential)
                                                              : 0;
      const uint64_t key = KeyOf(ordered, token);
      if (key >> (shift + kDigitBits) != prefix) return;
      AddToBin(static_cast<uint32_t>(key >> shift) % kNumBins, by_mass ? MassOf(exponential) : 1);
    });
    __syncthreads();
    FindDigit(above, wanted);
    if (Shared().digit < 0) return 0;
    prefix = prefix << kDigitBits | static_cast<uint32_t>(Shared().digit);
    above = Shared().above;
    const uint64_t here = Shared().here;
    if (order == Order::kToken) continue;                // which token it is, is wanted
    if (above + here == wanted) return prefix << shift;  // all of the digit's tokens
    // One token alone: no ties to be told apart.
    const bool single = order == Order::kExponential && shift == kTokenBits &&
                        here == MassOf(FloatOf(static_cast<uint32_t>(prefix)));
    if (single) return prefix << shift;
  }
  return prefix;
}

}  // namespace nibble::cuda
