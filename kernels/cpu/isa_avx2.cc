// The AVX2 row (AVX2, FMA, F16C). Compiled for that ISA alone, so it includes nothing that could
// leave a shared inline function behind.
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/lanes_avx2.inl"
#include "kernels/cpu/lanes_bf16_by_fma.inl"
#include "kernels/cpu/lanes_bytes_by_pairs.inl"
#include "kernels/cpu/lanes_table.inl"

namespace nibble {
constinit const IsaTable kAvx2Table = MakeIsaTable("avx2");
}  // namespace nibble
