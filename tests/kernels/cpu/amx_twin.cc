// kernels/cpu/isa_amx.cc again, with other primitives under the same source.
#include "tests/kernels/cpu/amx_twin.h"

#include "kernels/cpu/lanes_any_cpu.inl"
#include "kernels/cpu/lanes_bf16_by_fma.inl"
#include "kernels/cpu/lanes_bytes_by_pairs.inl"
#include "tests/kernels/cpu/tiles_twin.inl"
// What builds on them.
#include "kernels/cpu/lanes_amx.inl"

namespace nibble {
constinit const IsaTable kAmxTwinTable = MakeAmxTable("amx twin");
}  // namespace nibble
