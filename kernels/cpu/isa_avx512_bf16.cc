// The AVX-512 row with AVX512_BF16 and AVX512_VNNI. Compiled for that ISA alone, so it includes
// nothing that could leave a shared inline function behind.
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/lanes_avx512_bf16.inl"
#include "kernels/cpu/lanes_avx512_vnni.inl"
#include "kernels/cpu/lanes_table.inl"

namespace nibble {
constinit const IsaTable kAvx512Bf16Table = MakeIsaTable("avx512_bf16");
}  // namespace nibble
