// See dequantize.h. The loops have fixed lengths and no branches, so that compilers vectorize them.
#include "engine/loader/dequantize.h"

#include <bit>
#include <cstring>

#include "engine/check.h"
#include "kernels/half.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr int kBlock = 32;        // values of a plain block
constexpr int kSuperBlock = 256;  // values of a K block

template <typename T>
T Load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

float LoadHalf(const uint8_t* bytes) { return F16ToF32(Load<uint16_t>(bytes)); }

void F32(const uint8_t* __restrict in, int64_t count, float* __restrict out) {
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
}

void F16(const uint8_t* __restrict in, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = LoadHalf(in + 2 * i);
}

void BF16(const uint8_t* __restrict in, int64_t count, float* __restrict out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Bf16ToF32(Load<uint16_t>(in + 2 * i));
}

// out[i] = scale·(q − offset), q the nibbles of 16 bytes.
void Nibbles(const uint8_t* __restrict in, float scale, int offset, float* __restrict out) {
  for (int i = 0; i < kBlock / 2; ++i) {
    out[i] = scale * static_cast<float>((in[i] & 15) - offset);
    out[kBlock / 2 + i] = scale * static_cast<float>((in[i] >> 4) - offset);
  }
}

// The 5-bit codes of 32 values.
void FiveBits(const uint8_t* __restrict nibbles, uint32_t fifth, int* __restrict codes) {
  for (int i = 0; i < kBlock / 2; ++i) {
    codes[i] = (nibbles[i] & 15) | static_cast<int>(((fifth >> i) & 1) << 4);
    codes[kBlock / 2 + i] =
        (nibbles[i] >> 4) | static_cast<int>(((fifth >> (kBlock / 2 + i)) & 1) << 4);
  }
}

void Q4_0(const uint8_t* __restrict in, float* __restrict out) {
  Nibbles(in + 2, LoadHalf(in), 8, out);
}

void Q4_1(const uint8_t* __restrict in, float* __restrict out) {
  const float d = LoadHalf(in);
  const float m = LoadHalf(in + 2);
  Nibbles(in + 4, d, 0, out);
  for (int i = 0; i < kBlock; ++i) out[i] += m;
}

void Q5_0(const uint8_t* __restrict in, float* __restrict out) {
  const float d = LoadHalf(in);
  int codes[kBlock];
  FiveBits(in + 6, Load<uint32_t>(in + 2), codes);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i] - 16);
}

void Q5_1(const uint8_t* __restrict in, float* __restrict out) {
  const float d = LoadHalf(in);
  const float m = LoadHalf(in + 2);
  int codes[kBlock];
  FiveBits(in + 8, Load<uint32_t>(in + 4), codes);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(codes[i]) + m;
}

void Q8_0(const uint8_t* __restrict in, float* __restrict out) {
  const float d = LoadHalf(in);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[2 + i]));
}

// The eight scales d·s and minima m·t of a Q4_K or Q5_K block.
struct SubScales {
  float scale[8];
  float min[8];
};

SubScales LoadSubScales(const uint8_t* in) {
  const float d = LoadHalf(in);
  const float m = LoadHalf(in + 2);
  const uint8_t* a = in + 4;
  const uint8_t* b = a + 4;
  const uint8_t* c = b + 4;
  SubScales out;
  for (int j = 0; j < 4; ++j) {
    out.scale[j] = d * static_cast<float>(a[j] & 63);
    out.scale[4 + j] = d * static_cast<float>((c[j] & 15) | (a[j] >> 6) << 4);
    out.min[j] = m * static_cast<float>(b[j] & 63);
    out.min[4 + j] = m * static_cast<float>((c[j] >> 4) | (b[j] >> 6) << 4);
  }
  return out;
}

void Q4_K(const uint8_t* __restrict in, float* __restrict out) {
  const SubScales sub = LoadSubScales(in);
  const uint8_t* nibbles = in + 16;
  for (int g = 0; g < 8; g += 2, nibbles += 32, out += 64) {
    for (int i = 0; i < 32; ++i) {
      out[i] = sub.scale[g] * static_cast<float>(nibbles[i] & 15) - sub.min[g];
      out[32 + i] = sub.scale[g + 1] * static_cast<float>(nibbles[i] >> 4) - sub.min[g + 1];
    }
  }
}

void Q5_K(const uint8_t* __restrict in, float* __restrict out) {
  const SubScales sub = LoadSubScales(in);
  const uint8_t* fifth = in + 16;
  const uint8_t* nibbles = in + 48;
  for (int g = 0; g < 8; g += 2, nibbles += 32, out += 64) {
    for (int i = 0; i < 32; ++i) {
      const int low = (nibbles[i] & 15) | ((fifth[i] >> g) & 1) << 4;
      const int high = (nibbles[i] >> 4) | ((fifth[i] >> (g + 1)) & 1) << 4;
      out[i] = sub.scale[g] * static_cast<float>(low) - sub.min[g];
      out[32 + i] = sub.scale[g + 1] * static_cast<float>(high) - sub.min[g + 1];
    }
  }
}

// Each run of 128 values takes 64 bytes of low nibbles, 32 of upper bit pairs, 8 scales. Its four
// quarters of 32 use, by index i: low[i] & 15, low[32+i] & 15, low[i] >> 4, low[32+i] >> 4, with
// the bit pairs 0-1, 2-3, 4-5, 6-7 of high[i].
void Q6_K(const uint8_t* __restrict in, float* __restrict out) {
  const float d = LoadHalf(in + 208);
  const uint8_t* low = in;
  const uint8_t* high = in + 128;
  const uint8_t* scales = in + 192;
  for (int run = 0; run < 2; ++run, low += 64, high += 32, scales += 8) {
    for (int quarter = 0; quarter < 4; ++quarter, out += 32) {
      const uint8_t* nibbles = low + 32 * (quarter & 1);
      const int shift = quarter < 2 ? 0 : 4;
      for (int half = 0; half < 2; ++half) {
        const float scale = d * static_cast<float>(static_cast<int8_t>(scales[2 * quarter + half]));
        for (int i = 16 * half; i < 16 * half + 16; ++i) {
          const int q = ((nibbles[i] >> shift) & 15) | ((high[i] >> (2 * quarter)) & 3) << 4;
          out[i] = scale * static_cast<float>(q - 32);
        }
      }
    }
  }
}

template <int kValues, int kBytes, typename Block>
void EachBlock(const uint8_t* in, int64_t count, float* out, Block block) {
  for (int64_t i = 0; i < count; i += kValues, in += kBytes, out += kValues) block(in, out);
}

}  // namespace

void Dequantize(TensorType type, const uint8_t* blocks, int64_t count, float* out) {
  switch (type) {
    case TensorType::kF32:
      return F32(blocks, count, out);
    case TensorType::kF16:
      return F16(blocks, count, out);
    case TensorType::kBF16:
      return BF16(blocks, count, out);
    case TensorType::kQ4_0:
      return EachBlock<kBlock, 18>(blocks, count, out, Q4_0);
    case TensorType::kQ4_1:
      return EachBlock<kBlock, 20>(blocks, count, out, Q4_1);
    case TensorType::kQ5_0:
      return EachBlock<kBlock, 22>(blocks, count, out, Q5_0);
    case TensorType::kQ5_1:
      return EachBlock<kBlock, 24>(blocks, count, out, Q5_1);
    case TensorType::kQ8_0:
      return EachBlock<kBlock, 34>(blocks, count, out, Q8_0);
    case TensorType::kQ4_K:
      return EachBlock<kSuperBlock, 144>(blocks, count, out, Q4_K);
    case TensorType::kQ5_K:
      return EachBlock<kSuperBlock, 176>(blocks, count, out, Q5_K);
    case TensorType::kQ6_K:
      return EachBlock<kSuperBlock, 210>(blocks, count, out, Q6_K);
    case TensorType::kNF4:
    case TensorType::kFP4:
    case TensorType::kINT8:
      return Check(false, "Dequantize: a type whose blocks stand alone");
  }
}

}  // namespace nibble
