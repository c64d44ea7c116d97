// CUDA's own names in plain C++: keywords, vector types, indices, warp and block functions.
// Included through cuda_machine.h. Knows no instruction that needs inline PTX on a card.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#include <bit>
#include <cstring>

#include "tests/support/cuda_emulator/emulator.h"

// CUDA's names are reserved ones.
// NOLINTBEGIN(bugprone-reserved-identifier)

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// A constant table stands in the program's own memory.
#define __constant__

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline constexpr int warpSize = 32;

inline void __syncthreads(
    nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  nibble::cuda::emulator::MeetBlock({"__syncthreads", where});
}
inline void __syncwarp(unsigned mask = ~0u, nibble::cuda::emulator::Where where =
                                                nibble::cuda::emulator::Where::current()) {
  nibble::cuda::emulator::MeetWarp({"__syncwarp", where}, mask, nullptr, nullptr);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace nibble::cuda::emulator {

template <typename T>
T ShuffleValue(const Point& point, unsigned mask, T value, Shuffle kind, unsigned argument,
               int width) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  ShuffleFrame frame = {kind, argument, static_cast<unsigned>(width), 0, ~uint64_t{0}};
  std::memcpy(&frame.value, &value, sizeof(T));
  MeetWarp(point, mask, &frame, &ShuffleLanes);
  T result;
  std::memcpy(&result, &frame.result, sizeof(T));
  return result;
}

inline unsigned Vote(const Point& point, unsigned mask, bool predicate) {
  VoteFrame frame = {predicate, 0};
  MeetWarp(point, mask, &frame, &VoteLanes);
  return frame.ballot;
}

}  // namespace nibble::cuda::emulator

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::ShuffleValue({"__shfl_sync", where}, mask, value,
                                              nibble::cuda::emulator::Shuffle::kIndex,
                                              static_cast<unsigned>(lane), width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::ShuffleValue({"__shfl_xor_sync", where}, mask, value,
                                              nibble::cuda::emulator::Shuffle::kXor,
                                              static_cast<unsigned>(lanes), width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::ShuffleValue({"__shfl_down_sync", where}, mask, value,
                                              nibble::cuda::emulator::Shuffle::kDown, lanes, width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::ShuffleValue({"__shfl_up_sync", where}, mask, value,
                                              nibble::cuda::emulator::Shuffle::kUp, lanes, width);
}
inline unsigned __ballot_sync(
    unsigned mask, int predicate,
    nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::Vote({"__ballot_sync", where}, mask, predicate != 0);
}
inline int __any_sync(
    unsigned mask, int predicate,
    nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::Vote({"__any_sync", where}, mask, predicate != 0) != 0;
}
inline int __all_sync(
    unsigned mask, int predicate,
    nibble::cuda::emulator::Where where = nibble::cuda::emulator::Where::current()) {
  return nibble::cuda::emulator::Vote({"__all_sync", where}, mask, predicate == 0) == 0;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  uint64_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    result |= (bytes >> (8 * (selector >> (4 * i) & 7u)) & 0xff) << (8 * i);
  }
  return static_cast<unsigned>(result);
}
template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

// One thread of one block runs at a time, so plain sums are atomic.
inline int atomicAdd(int* at, int value) {
  const int old = *at;
  *at = static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
  return old;
}
inline unsigned atomicAdd(unsigned* at, unsigned value) {
  const unsigned old = *at;
  *at = old + value;
  return old;
}
inline int atomicMax(int* at, int value) {
  const int old = *at;
  if (value > old) *at = value;
  return old;
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned old = *at;
  if (value > old) *at = value;
  return old;
}

// NOLINTEND(bugprone-reserved-identifier)
