// The lanes' primitives in plain C++: 16 lanes are 16 numbers. Included by the ISA rows that are
// built on it, the twins of the tests among them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/isa_table.h"
#include "kernels/half.h"

namespace nibble {
namespace {

struct V16 {
  float v[kLanes];
};
struct I16 {
  uint32_t v[kLanes];
};
struct M16 {
  bool v[kLanes];
};
struct Codebook {
  const float* table;
};

// Register blocks of a product, panels × rows: kPanelsOfOne × 1, kPanelsOfFew × 2 and 3,
// kPanelsOfMany × 4 … kMaxRows, rows of weights decoded before (0: never). And of attention:
// queries, pages, vectors of values.
constexpr int kPanelsOfOne = 1;
constexpr int kPanelsOfFew = 1;
constexpr int kPanelsOfMany = 1;
constexpr int kMaxRows = 2;
constexpr int kDecodedBlock = 0;
constexpr int kQueryBlock = 2;
constexpr int kPageBlock = 2;
constexpr int kVectorBlock = 2;
// INT8 products: kInt8PanelsOfFew × 1 … 3, kInt8PanelsOfMany × 4 … kInt8MaxRows.
constexpr int kInt8PanelsOfFew = 1;
constexpr int kInt8PanelsOfMany = 1;
constexpr int kInt8MaxRows = 2;
// 4 bits in the int8 mode: kBytePanelsOfOne × 1, kBytePanelsOfFew × 2 and 3, kBytePanelsOfMany × 4
// … kByteMaxRows.
constexpr int kBytePanelsOfOne = 1;
constexpr int kBytePanelsOfFew = 1;
constexpr int kBytePanelsOfMany = 1;
constexpr int kByteMaxRows = 2;

// One lane at a time.
template <typename R = V16, typename F>
inline R Each(F f) {
  R r;
  for (int64_t i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}

inline V16 Set1(float x) {
  return Each([&](int64_t) { return x; });
}
inline V16 Load(const float* p) {
  return Each([&](int64_t i) { return p[i]; });
}
inline void Store(float* p, V16 a) {
  for (int64_t i = 0; i < kLanes; ++i) p[i] = a.v[i];
}
inline V16 Add(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] + b.v[i]; });
}
inline V16 Sub(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] - b.v[i]; });
}
inline V16 Mul(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] * b.v[i]; });
}
inline V16 Div(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] / b.v[i]; });
}
inline V16 Fma(V16 a, V16 b, V16 c) {
  return Each([&](int64_t i) { return __builtin_fmaf(a.v[i], b.v[i], c.v[i]); });
}
inline V16 Sqrt(V16 a) {
  return Each([&](int64_t i) { return __builtin_sqrtf(a.v[i]); });
}
// A NaN on either side gives b.
inline V16 Max(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline V16 Min(V16 a, V16 b) {
  return Each([&](int64_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}

inline float FirstLane(V16 a) { return a.v[0]; }
// Lane i + kHalf in lane i, for i < kHalf.
template <int kHalf>
inline V16 UpperLanes(V16 a) {
  return Each([&](int64_t i) { return a.v[(i + kHalf) % kLanes]; });
}

inline I16 Bits(V16 a) {
  return Each<I16>([&](int64_t i) { return __builtin_bit_cast(uint32_t, a.v[i]); });
}
inline V16 FromBits(I16 a) {
  return Each([&](int64_t i) { return __builtin_bit_cast(float, a.v[i]); });
}
inline I16 SetI(int32_t x) {
  return Each<I16>([&](int64_t) { return static_cast<uint32_t>(x); });
}
inline I16 LoadI(const void* p) {
  I16 r;
  __builtin_memcpy(r.v, p, sizeof(r.v));
  return r;
}
inline void StoreI(void* p, I16 a) { __builtin_memcpy(p, a.v, sizeof(a.v)); }
inline I16 AddI(I16 a, I16 b) {
  return Each<I16>([&](int64_t i) { return a.v[i] + b.v[i]; });
}
inline I16 SubI(I16 a, I16 b) {
  return Each<I16>([&](int64_t i) { return a.v[i] - b.v[i]; });
}
inline I16 AndI(I16 a, I16 b) {
  return Each<I16>([&](int64_t i) { return a.v[i] & b.v[i]; });
}
inline I16 XorI(I16 a, I16 b) {
  return Each<I16>([&](int64_t i) { return a.v[i] ^ b.v[i]; });
}
template <int kBits>
inline I16 ShiftLeft(I16 a) {
  return Each<I16>([&](int64_t i) { return a.v[i] << kBits; });
}
template <int kBits>
inline I16 ShiftRight(I16 a) {
  return Each<I16>([&](int64_t i) { return a.v[i] >> kBits; });
}
template <int kBits>
inline I16 ShiftRightSigned(I16 a) {
  return Each<I16>(
      [&](int64_t i) { return static_cast<uint32_t>(static_cast<int32_t>(a.v[i]) >> kBits); });
}

inline M16 FirstLanes(int64_t n) {
  return Each<M16>([&](int64_t i) { return i < n; });
}
inline M16 Less(V16 a, V16 b) {
  return Each<M16>([&](int64_t i) { return a.v[i] < b.v[i]; });
}
inline M16 Equal(V16 a, V16 b) {
  return Each<M16>([&](int64_t i) { return a.v[i] == b.v[i]; });
}
inline M16 NonZero(I16 a) {
  return Each<M16>([&](int64_t i) { return a.v[i] != 0; });
}
inline uint32_t MaskBits(M16 a) {
  uint32_t bits = 0;
  for (int64_t i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(a.v[i]) << i;
  return bits;
}
inline V16 Choose(M16 mask, V16 yes, V16 no) {
  return Each([&](int64_t i) { return mask.v[i] ? yes.v[i] : no.v[i]; });
}

// The first n lanes (0 <= n <= 16), the others zero; memory beyond them is not touched.
inline V16 LoadN(const float* p, int64_t n) {
  return Each([&](int64_t i) { return i < n ? p[i] : 0.0f; });
}
inline void StoreN(float* p, V16 a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}

template <LaneType kType>
inline float ValueAs(const void* p, int64_t i) {
  if constexpr (kType == kLaneF32) {
    return static_cast<const float*>(p)[i];
  } else {
    const uint16_t half = static_cast<const uint16_t*>(p)[i];
    return kType == kLaneF16 ? F16ToF32(half) : Bf16ToF32(half);
  }
}
template <LaneType kType>
inline V16 LoadAs(const void* p) {
  return Each([&](int64_t i) { return ValueAs<kType>(p, i); });
}
template <LaneType kType>
inline V16 LoadAsN(const void* p, int64_t n) {
  return Each([&](int64_t i) { return i < n ? ValueAs<kType>(p, i) : 0.0f; });
}
template <LaneType kType>
inline void StoreAsN(void* p, V16 a, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if constexpr (kType == kLaneF32) {
      static_cast<float*>(p)[i] = a.v[i];
    } else {
      static_cast<uint16_t*>(p)[i] = kType == kLaneF16 ? F32ToF16(a.v[i]) : F32ToBf16(a.v[i]);
    }
  }
}

inline V16 RoundToF16(V16 a) {
  return Each([&](int64_t i) { return F16ToF32(F32ToF16(a.v[i])); });
}

// A lane as two signed 16-bit numbers, low and high.
inline int32_t LowHalf(uint32_t lane) { return static_cast<int16_t>(lane & 0xffffu); }
inline int32_t HighHalf(uint32_t lane) { return static_cast<int16_t>(lane >> 16); }
inline uint32_t PairOf(int32_t low, int32_t high) {
  return (static_cast<uint32_t>(low) & 0xffffu) | static_cast<uint32_t>(high) << 16;
}
inline int32_t SignedByte(uint32_t lane, int index) {
  return static_cast<int8_t>(lane >> (8 * index) & 0xffu);
}
// Bytes 0 and 2 of each lane, and bytes 1 and 3, sign-extended.
inline I16 EvenBytes(I16 a) {
  return Each<I16>([&](int64_t i) { return PairOf(SignedByte(a.v[i], 0), SignedByte(a.v[i], 2)); });
}
inline I16 OddBytes(I16 a) {
  return Each<I16>([&](int64_t i) { return PairOf(SignedByte(a.v[i], 1), SignedByte(a.v[i], 3)); });
}
// The pair p[0], p[1] in every lane.
inline I16 SetPair(const int16_t* p) {
  return Each<I16>([&](int64_t) { return PairOf(p[0], p[1]); });
}
// low·low + high·high of each lane.
inline I16 DotPairs(I16 a, I16 b) {
  return Each<I16>([&](int64_t i) {
    return static_cast<uint32_t>(LowHalf(a.v[i]) * LowHalf(b.v[i]) +
                                 HighHalf(a.v[i]) * HighHalf(b.v[i]));
  });
}
// 16 numbers of 16 bits, the middle two of every four exchanged.
inline void StoreQuads(int16_t* p, I16 a) {
  for (int64_t i = 0; i < kLanes; i += 4) {
    for (int64_t j = 0; j < 4; ++j) {
      const int64_t from = j == 1 ? 2 : j == 2 ? 1 : j;
      p[i + j] = static_cast<int16_t>(a.v[i + from]);
    }
  }
}
inline V16 ToFloat(I16 a) {
  return Each([&](int64_t i) { return static_cast<float>(static_cast<int32_t>(a.v[i])); });
}

// 16 numbers as bytes, of every 8 first those of even place, then those of odd place.
inline void StoreEvenThenOddBytes(int8_t* p, I16 a) {
  for (int64_t i = 0; i < kLanes; ++i) {
    p[i / 8 * 8 + i % 2 * 4 + i % 8 / 2] = static_cast<int8_t>(a.v[i]);
  }
}

// 16 bytes, and a look-up in them by four nibbles in the bytes of a lane.
struct ByteTable {
  int8_t bytes[kLanes];
};
inline ByteTable LoadByteTable(const int8_t* bytes) {
  ByteTable table;
  __builtin_memcpy(table.bytes, bytes, sizeof(table.bytes));
  return table;
}
inline I16 LookupBytes(const ByteTable& table, I16 nibbles) {
  return Each<I16>([&](int64_t i) {
    uint32_t bytes = 0;
    for (int j = 0; j < 4; ++j) {
      const int8_t byte = table.bytes[nibbles.v[i] >> (8 * j) & 15u];
      bytes |= static_cast<uint32_t>(static_cast<uint8_t>(byte)) << (8 * j);
    }
    return bytes;
  });
}
// Four signed bytes in every lane; sum + byte · byte, four of each lane, none of them -128.
struct SignedBytes {
  uint32_t bytes;
};
inline SignedBytes SetSignedBytes(const int8_t* p) {
  SignedBytes r;
  __builtin_memcpy(&r.bytes, p, sizeof(r.bytes));
  return r;
}
inline I16 DotSigned(I16 sum, I16 a, SignedBytes b) {
  return Each<I16>([&](int64_t i) {
    int32_t dot = 0;
    for (int j = 0; j < 4; ++j) dot += SignedByte(a.v[i], j) * SignedByte(b.bytes, j);
    return sum.v[i] + static_cast<uint32_t>(dot);
  });
}

inline Codebook LoadCodebook(const float* table) { return {table}; }
// table[low 4 bits of each lane].
inline V16 Lookup(Codebook table, I16 code) {
  return Each([&](int64_t i) { return table.table[code.v[i] & 15u]; });
}
inline void Prefetch(const void*) {}

}  // namespace
}  // namespace nibble

#include "kernels/cpu/lanes_scales_by_loads.inl"
