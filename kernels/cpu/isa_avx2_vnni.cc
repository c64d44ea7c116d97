// The AVX2 row with AVX-VNNI. Compiled for that ISA alone, so it includes nothing that could leave
// a shared inline function behind.
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/lanes_avx2.inl"

namespace nibble {
namespace {

// sum + unsigned byte · signed byte, four of each lane. Not the intrinsic, around which GCC 12
// copies every sum of a large block.
inline I16 DotUnsigned(I16 sum, I16 a, I16 b) {
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.lo) : "x"(a.lo), "x"(b.lo));
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.hi) : "x"(a.hi), "x"(b.hi));
  return sum;
}

}  // namespace
}  // namespace nibble

#include "kernels/cpu/lanes_bf16_by_fma.inl"
#include "kernels/cpu/lanes_bytes_by_vnni.inl"
#include "kernels/cpu/lanes_table.inl"

namespace nibble {
constinit const IsaTable kAvx2VnniTable = MakeIsaTable("avx2_vnni");
}  // namespace nibble
