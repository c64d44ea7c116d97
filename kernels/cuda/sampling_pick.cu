// One block for one plan: the token, by what is known of its row's parts, and the logprobs. The
// same token as kernels/cpu picks from the same logits, by the same arithmetic.
#include "cuda_machine.h"
#include "kernels/cuda/sampling_call.h"
#include "kernels/cuda/sampling_select.h"

namespace nibble::cuda {
namespace {

constexpr int32_t kNoToken = -1;
constexpr uint32_t kMaxThreads = 512;
constexpr int64_t kMaxRoom = 8192;  // of the list of tokens that may be kept

// What a block's functions know, the same in all threads.
struct Block {
  const SamplingCall* call;
  const DevicePlan* plan;
  int64_t index;  // of the plan in its group
  Crowd crowd;    // of the view that Look was told
};

// [sums + 1] running sums; in the histogram's place.
__device__ __forceinline__ double* Masses() { return reinterpret_cast<double*>(Shared().low); }
static_assert((kMaxVocab / kSumTokens + 1) * sizeof(double) <= offsetof(SelectShared, warp_sums));

// --- what a block sees of its row ---

__device__ __forceinline__ void Look(Block* block, const SamplingRow& row, View view) {
  const SamplingScratch& scratch = block->call->scratch;
  Crowd& crowd = block->crowd;
  crowd.row = row;
  crowd.maxima = scratch.maxima[view] + block->index * scratch.num_parts;
  crowd.largest = LargestOf(scratch, view, block->index);
  crowd.factor = 0;
  crowd.least_logit = 0;
  crowd.least_exponential = 0;
  crowd.listed = -1;
}

// What thread 0 or warp 0 found, for all threads.
__device__ __forceinline__ int32_t Share(int32_t answer) {
  if (threadIdx.x == 0) Shared().answer = answer;
  __syncthreads();
  answer = Shared().answer;
  __syncthreads();
  return answer;
}

// The first i of [0, count) for which holds(i), or count; by one warp.
template <typename Holds>
__device__ __forceinline__ int64_t FirstOf(int64_t count, const Holds& holds) {
  for (int64_t first = 0; first < count; first += kWarp) {
    const int64_t i = first + threadIdx.x % kWarp;
    const unsigned found = __ballot_sync(~0u, i < count && holds(i));
    if (found != 0) return first + __ffs(static_cast<int>(found)) - 1;
  }
  return count;
}

// The lowest token with the largest logit; by one warp.
__device__ int32_t FirstLargest(const Block& block) {
  const SamplingScratch& scratch = block.call->scratch;
  const SamplingRow& row = block.crowd.row;
  const float largest = block.crowd.largest;
  const float* const slices = scratch.slices[kPicked] + block.index * scratch.num_slices;
  const int64_t slice =
      FirstOf(scratch.num_slices, [&](int64_t i) { return slices[i] == largest; });
  constexpr int64_t kParts = kSliceTokens / kPartTokens;
  const int64_t first_part = slice * kParts;
  const int64_t part = first_part + FirstOf(scratch.num_parts - first_part, [&](int64_t i) {
                         return block.crowd.maxima[first_part + i] == largest;
                       });
  const int64_t mine = part * kPartTokens + kFour * (threadIdx.x % kWarp);
  const Four x = LoadFour(row.logits, mine, row.count, row.aligned != 0);
  int32_t token = kNoToken;
  for (int i = 3; i >= 0; --i) {
    if (mine + i < row.count && x.v[i] == largest) token = static_cast<int32_t>(mine + i);
  }
  const unsigned found = __ballot_sync(~0u, token >= 0);
  return __shfl_sync(~0u, token, __ffs(static_cast<int>(found)) - 1);
}

// Every logit is impossible: the lowest token that is not banned; by one warp.
__device__ int32_t FirstAllowed(const Block& block) {
  const DevicePlan& plan = *block.plan;
  const int32_t* const banned = block.call->banned + plan.first_banned;
  const int64_t token = FirstOf(block.crowd.row.count, [&](int64_t i) {
    for (int32_t b = 0; b < plan.num_banned; ++b) {
      if (banned[b] == i) return false;
    }
    return true;
  });
  return token < block.crowd.row.count ? static_cast<int32_t>(token) : kNoToken;
}

// --- draws ---

// Philox4x32-10 of kernels/sampling.h: the first word's upper 24 bits.
__device__ uint32_t UniformBits(const DevicePlan& plan) {
  uint32_t c[4] = {plan.index, plan.position, 0, 0};
  uint32_t key[2] = {static_cast<uint32_t>(plan.seed), static_cast<uint32_t>(plan.seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * c[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * c[2];
    c[0] = static_cast<uint32_t>(b >> 32) ^ c[1] ^ key[0];
    c[1] = static_cast<uint32_t>(b);
    c[2] = static_cast<uint32_t>(a >> 32) ^ c[3] ^ key[1];
    c[3] = static_cast<uint32_t>(a);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c[0] >> 8;
}

// Running sums of a view's sums in double, one after the other; returns the total. Meets the block.
__device__ double AddSums(const Block& block, View view) {
  const SamplingScratch& scratch = block.call->scratch;
  const float* const sums = scratch.sums[view] + block.index * scratch.num_sums;
  const int64_t count = (block.crowd.row.count + kSumTokens - 1) / kSumTokens;
  double* const masses = Masses();
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    masses[i + 1] = static_cast<double>(sums[i]);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    double total = 0;
    masses[0] = 0;
    for (int64_t first = 1; first <= count; first += 8) {
      double next[8];  // read before any is written, so that only additions wait for each other
      for (int i = 0; i < 8; ++i) next[i] = first + i <= count ? masses[first + i] : 0.0;
      for (int i = 0; i < 8; ++i) {
        total += next[i];
        if (first + i <= count) masses[first + i] = total;
      }
    }
  }
  __syncthreads();
  return masses[count];
}

// Exponentials of one sum in shared memory, padded so that lanes may hold 32 in a row each.
__device__ __forceinline__ int32_t PaddedAt(int32_t i) { return i + i / 32; }
constexpr int64_t kPaddedFloats = kSumTokens + kSumTokens / 32;

// The CPU walks a sum's tokens, adding their exponentials to `mass` one by one in double, until it
// passes the target. This is the index where it stops, or -1 if roundings leave that open; by one
// warp. Sums of any order are within 2^-42 of the CPU's: each adds at most 1024 values, with an
// error of 2^-53 of the result each time.
__device__ int32_t IndexThatSurelyPasses(const float* exponentials, double mass, double target) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x % kWarp);
  double own = 0;
  for (int32_t i = 0; i < 32; ++i) {
    own += static_cast<double>(exponentials[PaddedAt(32 * lane + i)]);
  }
  const double after = mass + SumOfLanes(own);  // of this lane's tokens
  const double slack = 0x1p-42 * __shfl_sync(~0u, after, 31);
  const unsigned lanes = __ballot_sync(~0u, after > target - slack);
  if (lanes == 0) return -1;
  const int32_t passing = __ffs(static_cast<int>(lanes)) - 1;
  const double before = passing == 0 ? mass : __shfl_sync(~0u, after, passing - 1);
  const float one = exponentials[PaddedAt(32 * passing + lane)];
  const double until = before + SumOfLanes(static_cast<double>(one));
  const unsigned perhaps = __ballot_sync(~0u, until > target - slack);
  const unsigned surely = __ballot_sync(~0u, until > target + slack);
  if (perhaps != surely || perhaps == 0) return -1;
  return 32 * passing + __ffs(static_cast<int>(perhaps)) - 1;
}

// The walk itself; by one thread.
__device__ int32_t Walk(const float* exponentials, double mass, double target) {
  int32_t last = -1;  // the last possible one, should rounding leave the target unreached
  for (int32_t i = 0; i < kSumTokens; ++i) {
    const float exponential = exponentials[PaddedAt(i)];
    if (exponential == 0) continue;
    mass += static_cast<double>(exponential);
    last = i;
    if (mass > target) break;
  }
  return last;
}

// Everything is kept: whole sums are walked first, then the tokens of one. Meets the block.
__device__ int32_t DrawOfAll(const Block& block) {
  const Crowd& crowd = block.crowd;
  const int64_t count = crowd.row.count;
  const int64_t num_sums = (count + kSumTokens - 1) / kSumTokens;
  const double u = static_cast<double>(UniformBits(*block.plan)) * 0x1p-24;
  const double target = u * Masses()[num_sums];
  const int64_t chosen =
      FirstOf(num_sums - 1, [&](int64_t i) { return !(Masses()[i + 1] <= target); });
  const int64_t first = chosen * kSumTokens;
  float* const exponentials = crowd.list_logits();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < kSumTokens;
       i += static_cast<int32_t>(blockDim.x)) {
    const float logit = first + i < count ? crowd.row.logits[first + i] : -INFINITY;
    exponentials[PaddedAt(i)] = logit == logit ? ExponentialOf(crowd, logit) : 0.0f;
  }
  __syncthreads();
  int32_t index = 0;
  if (threadIdx.x < kWarp) {
    index = IndexThatSurelyPasses(exponentials, Masses()[chosen], target);
    if (index < 0 && threadIdx.x == 0) index = Walk(exponentials, Masses()[chosen], target);
  }
  return Share(index < 0 ? 0 : static_cast<int32_t>(first) + index);
}

// Keeps the k most likely by logit; ties: the lowest token. A NaN is never kept. Every one of the k
// largest reaches the k-th largest of the maxima of whole parts, so few parts are looked at. Meets
// the block.
__device__ void KeepTopK(Crowd* crowd, int32_t k) {
  const int32_t whole_parts = crowd->row.count / static_cast<int32_t>(kPartTokens);
  if (k <= whole_parts) {
    Crowd parts = *crowd;
    parts.row = {crowd->maxima, whole_parts, 0};
    parts.maxima = nullptr;
    const uint64_t kth = Reach(parts, Order::kLogit, false, static_cast<uint64_t>(k));
    crowd->least_logit = LeastKey(static_cast<uint32_t>(kth >> kTokenBits));
  }
  ListKept(crowd);
  const uint64_t least = Reach(*crowd, Order::kLogit, false, static_cast<uint64_t>(k));
  if (least > crowd->least_logit) crowd->least_logit = least;
}

// Lists the tokens that hold everything top-p and min-p can keep: all that reach a threshold,
// lowered until their mass suffices; without top-p, all that reach min-p. Meets the block.
__device__ void ListLikely(const DevicePlan& plan, double total, Crowd* crowd) {
  const double wanted = static_cast<double>(plan.top_p) * total;
  const float min_p = plan.min_p > 0 ? plan.min_p : 0.0f;
  for (float threshold = 0x1p-4f;; threshold *= 0x1p-4f) {
    const bool all = threshold < 0x1p-40f || plan.top_p >= 1.0f;
    const float from = all ? 0.0f : threshold;
    const float lowest = from > min_p ? from : min_p;
    crowd->least_exponential = LeastKey(BitsOf(lowest));
    const uint64_t mass = ListKept(crowd);
    if (all || lowest > threshold || static_cast<double>(mass) * 0x1p-40 >= wanted) return;
  }
}

// Top-p of `total`, then min-p, then the draw: by ascending token until the mass passes u of the
// whole. Meets the block.
__device__ int32_t DrawOfKept(const DevicePlan& plan, double total, Crowd* crowd) {
  if (plan.top_p < 1.0f) {
    const uint64_t wanted = static_cast<uint64_t>(static_cast<double>(plan.top_p) * total * 0x1p40);
    const uint64_t least = Reach(*crowd, Order::kExponential, true, wanted > 0 ? wanted : 1);
    if (least > crowd->least_exponential) crowd->least_exponential = least;
  }
  const uint64_t least_p = plan.min_p > 0 ? LeastKey(BitsOf(plan.min_p)) : 0;
  if (least_p > crowd->least_exponential) crowd->least_exponential = least_p;
  const uint64_t mass = MassOfKept(*crowd);
  const uint64_t u = UniformBits(plan);
  const uint64_t target = (mass >> 24) * u + ((mass & 0xffffffu) * u >> 24);  // mass·u / 2^24
  return TokenOf(Reach(*crowd, Order::kToken, true, target + 1));
}

// --- one plan ---

__device__ int32_t Pick(Block* block) {
  const DevicePlan& plan = *block->plan;
  Crowd& crowd = block->crowd;
  Look(block, PickedRow(*block->call, plan, block->index), kPicked);
  if (crowd.largest == -INFINITY || crowd.largest == INFINITY || plan.temperature == 0) {
    int32_t token = kNoToken;
    if (threadIdx.x < kWarp) {
      token = crowd.largest == -INFINITY ? FirstAllowed(*block) : FirstLargest(*block);
    }
    return Share(token);
  }
  double total = 0;
  if (KeepsTopK(plan, crowd.row.count)) {
    KeepTopK(&crowd, plan.top_k);
    crowd.factor = FactorOf(plan);
    total = static_cast<double>(MassOfKept(crowd)) * 0x1p-40;
  } else {
    crowd.factor = FactorOf(plan);
    total = AddSums(*block, kPicked);
    if (plan.top_p >= 1.0f && plan.min_p <= 0) return DrawOfAll(*block);
    __syncthreads();  // the running sums stand where the histogram comes
    ListLikely(plan, total, &crowd);
  }
  return DrawOfKept(plan, total, &crowd);
}

// ln(x), x > 0 and normal, as kernels/cpu/sampling.cc computes it.
__device__ double Log(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof(bits));
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  bits = (bits & ((uint64_t{1} << 52) - 1)) | uint64_t{1023} << 52;
  double m;
  memcpy(&m, &bits, sizeof(m));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1);
  double sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * (s * s) + 1.0 / i;
  return 2 * s * sum + static_cast<double>(exponent) * 0.6931471805599453;
}

__device__ __forceinline__ float LogprobOf(float logit, double log_total) {
  return logit == logit ? static_cast<float>(static_cast<double>(logit) - log_total) : -INFINITY;
}

// The most likely tokens by rank; token -1 where there are none. Meets the block.
__device__ void ReportTop(Block* block, double log_total) {
  const DevicePlan& plan = *block->plan;
  Crowd& crowd = block->crowd;
  TokenLogprob* const tops = block->call->tops + plan.first_top;
  crowd.row.count = LimitOf(plan, block->call->vocab);
  const int32_t k = plan.num_logprobs < crowd.row.count ? plan.num_logprobs : crowd.row.count;
  __syncthreads();  // the running sums stand where the histogram comes
  KeepTopK(&crowd, k);
  if (crowd.listed < 0) ListKept(&crowd);  // there is room for k
  const auto key = [&](int32_t i) {
    return KeyOf(OrderOfLogit(crowd.list_logits()[i]), crowd.list_tokens()[i]);
  };
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < plan.num_logprobs;
       i += static_cast<int32_t>(blockDim.x)) {
    tops[i] = {kNoToken, 0};
  }
  __syncthreads();
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < crowd.listed;
       i += static_cast<int32_t>(blockDim.x)) {
    if (key(i) < crowd.least_logit) continue;
    int32_t rank = 0;
    for (int32_t j = 0; j < crowd.listed; ++j) rank += key(j) > key(i) ? 1 : 0;
    tops[rank] = {crowd.list_tokens()[i], LogprobOf(crowd.list_logits()[i], log_total)};
  }
}

// log softmax of the raw row over the whole vocabulary. Meets the block.
__device__ float Report(Block* block, int32_t token) {
  Look(block, RawRow(*block->call, *block->plan), kRaw);
  const double total = AddSums(*block, kRaw);
  const double log_total = static_cast<double>(block->crowd.largest) + Log(total);
  const float logprob =
      token >= 0 ? LogprobOf(block->crowd.row.logits[token], log_total) : -INFINITY;
  if (block->plan->num_logprobs > 0) ReportTop(block, log_total);
  return logprob;
}

__global__ void __launch_bounds__(kMaxThreads, 1)
    PickKernel(const __grid_constant__ SamplingCall call, int32_t room) {
  WaitForPreviousKernel();
  LetNextKernelStart();
  Block block;
  block.call = &call;
  block.index = blockIdx.x;
  block.plan = call.plans + block.index;
  block.crowd.room = room;
  const int32_t token = Picks(*block.plan) ? Pick(&block) : block.plan->forced_token;
  __syncthreads();
  const float logprob = Reports(*block.plan) ? Report(&block, token) : 0.0f;
  if (threadIdx.x == 0) call.sampled[block.index] = {token, logprob};
}

}  // namespace

void LaunchPick(Tape* tape, const SamplingCall& call, int64_t num_plans, bool greedy,
                int32_t max_top) {
  const int64_t vocab = call.vocab;
  const uint32_t threads = greedy || vocab <= 4096 ? 128 : kMaxThreads;
  // A sixteenth of the vocabulary holds all that real distributions keep; more is looked up in the
  // row itself, pass by pass.
  int64_t room = greedy ? 0 : vocab / 16 < kMaxRoom ? vocab / 16 : kMaxRoom;
  if (room < max_top) room = max_top < vocab ? max_top : vocab;
  // DrawOfAll has the exponentials of one sum in the list's place.
  const int64_t list_floats = 2 * room > kPaddedFloats ? 2 * room : kPaddedFloats;
  const int64_t bytes = static_cast<int64_t>(sizeof(SelectShared)) + 4 * list_floats;
  Launch(tape, &PickKernel, {static_cast<uint32_t>(num_plans)}, {threads},
         {static_cast<uint32_t>(bytes), true}, call, room);
}

}  // namespace nibble::cuda
