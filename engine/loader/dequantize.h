// GGUF's block formats, back to fp32. The only place that knows the inside of a block.
//
// A block holds 32 values, or 256 ("K", in sub-blocks with scales of their own). f16 is
// little-endian IEEE half, q a value's integer code. Where codes take half a byte, the low nibbles
// are the first half of their run of values, the high nibbles the second half.
//
//   Q4_0 := d:f16  nibbles:16                    d·(q − 8)
//   Q4_1 := d:f16  m:f16  nibbles:16             d·q + m
//   Q5_0 := d:f16  fifth:u32  nibbles:16         d·(q − 16); bit i of fifth is bit 4 of value i
//   Q5_1 := d:f16  m:f16  fifth:u32  nibbles:16  d·q + m
//   Q8_0 := d:f16  q:i8 × 32                     d·q
//   Q4_K := d:f16  m:f16  scales:12  nibbles:128
//                    (d·s)·q − (m·t), s and t 6-bit per 32 values; nibbles in runs of 64 values
//   Q5_K := d:f16  m:f16  scales:12  fifth:32  nibbles:128
//                    as Q4_K; bit g of fifth[i] is bit 4 of value 32·g + i
//   Q6_K := low:128  high:64  scale:i8 × 16  d:f16
//                    (d·scale)·(q − 32), a scale per 16 values; runs of 128 values, see the code
//   scales (Q4_K, Q5_K) := a:4  b:4  c:4
//                    s[j] = a[j] & 63,  s[4+j] = (c[j] & 15) | (a[j] >> 6) << 4
//                    t[j] = b[j] & 63,  t[4+j] = (c[j] >> 4) | (b[j] >> 6) << 4
//
// Every product and every sum above is rounded to fp32 by itself, in that order, as ggml's own
// Python package does, so results equal its bit for bit. Source: ggml-org/ggml, ggml-quants.c.
#pragma once

#include <cstdint>

#include "engine/loader/checkpoint.h"

namespace nibble {

// Writes count values, a whole number of blocks (1 value for F32, F16 and BF16).
void Dequantize(TensorType type, const uint8_t* blocks, int64_t count, float* out);

}  // namespace nibble
