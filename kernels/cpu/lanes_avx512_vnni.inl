// The lanes' primitives in AVX-512 with AVX512_VNNI. Included by the ISA rows that are built on it.
#pragma once

#include "kernels/cpu/lanes_avx512.inl"

namespace nibble {
namespace {

// sum + unsigned byte · signed byte, four of each lane. Not the intrinsic, around which GCC 12
// copies every sum of a large block, at half the speed.
inline I16 DotUnsigned(I16 sum, I16 a, I16 b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(a.v), "v"(b.v));
  return sum;
}

}  // namespace
}  // namespace nibble

#include "kernels/cpu/lanes_bytes_by_vnni.inl"
