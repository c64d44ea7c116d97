// The scalar row, for any x86-64. The same operations in the same order as the other rows, fused
// multiply-add included (by the C library where the CPU has none).
#include "kernels/cpu/lanes_any_cpu.inl"
#include "kernels/cpu/lanes_bf16_by_fma.inl"
#include "kernels/cpu/lanes_bytes_by_pairs.inl"
#include "kernels/cpu/lanes_table.inl"

namespace nibble {
constinit const IsaTable kScalarTable = MakeIsaTable("scalar");
}  // namespace nibble
