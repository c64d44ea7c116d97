// kernels/cpu/isa_amx.cc again, with other primitives under the same source.
#include "tests/kernels/cpu/amx_twin.h"

#include "kernels/cpu/lanes_any_cpu.inl"
#include "kernels/cpu/lanes_bf16_by_fma.inl"

namespace nibble {
namespace {

// 16 numbers as bytes.
inline void StoreBytes(int8_t* p, I16 a) {
  for (int64_t i = 0; i < kLanes; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}
// sum + unsigned byte · signed byte, four of each lane, as VNNI does.
inline I16 DotUnsigned(I16 sum, I16 a, I16 b) {
  return Each<I16>([&](int64_t i) {
    int32_t dot = 0;
    for (int j = 0; j < 4; ++j) {
      dot += static_cast<int32_t>(a.v[i] >> (8 * j) & 255u) * SignedByte(b.v[i], j);
    }
    return sum.v[i] + static_cast<uint32_t>(dot);
  });
}

}  // namespace
}  // namespace nibble

#include "kernels/cpu/lanes_bytes_by_vnni.inl"
#include "tests/kernels/cpu/tiles_twin.inl"
// What builds on them.
#include "kernels/cpu/lanes_amx.inl"

namespace nibble {
constinit const IsaTable kAmxTwinTable = MakeAmxTable("amx twin");
}  // namespace nibble
