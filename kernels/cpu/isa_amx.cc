// The row for CPUs with AMX (tiles of bf16 and of bytes): AVX-512, AVX512_VNNI and
// AVX512_BF16 but for the products that tiles do. Compiled for that ISA alone, so it includes
// nothing that could leave a shared inline function behind.
#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/lanes_avx512_bf16.inl"
#include "kernels/cpu/lanes_avx512_vnni.inl"
#include "kernels/cpu/tiles_amx.inl"
// What builds on them.
#include "kernels/cpu/lanes_amx.inl"

namespace nibble {
constinit const IsaTable kAmxTable = MakeAmxTable("amx");
}  // namespace nibble
