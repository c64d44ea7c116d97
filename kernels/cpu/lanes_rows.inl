// Operations on one row: norms, activations, conversions, rotary angles, and the passes over logits
// that sampling needs. Value i of a row lives in lane i % 16.
#pragma once

#include "kernels/cpu/lanes_math.inl"

namespace nibble {
namespace {

void RmsNorm(const float* x, LaneVector weight, int64_t n, float eps, float* out) {
  V16 sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const V16 v = LoadN(x + i, AtMostLanes(n - i));
    sum = Fma(v, v, sum);
  }
  const float mean = SumLanes(sum) / static_cast<float>(n);
  const V16 inverse = Set1(1.0f / __builtin_sqrtf(mean + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 v = Mul(LoadN(x + i, count), inverse);
    StoreN(out + i, Mul(v, LoadVector(weight, i, count)), count);
  }
}

// Two passes: the mean first, then the squares of the distances to it.
void LayerNorm(const float* x, const float* residual, LaneVector weight, LaneVector bias, int64_t n,
               float eps, float* out) {
  V16 sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    V16 v = LoadN(x + i, count);
    if (residual != nullptr) v = Add(v, LoadN(residual + i, count));
    StoreN(out + i, v, count);
    sum = Add(sum, v);
  }
  const V16 mean = Set1(SumLanes(sum) / static_cast<float>(n));
  V16 squares = Zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 d = Choose(FirstLanes(count), Sub(LoadN(out + i, count), mean), Zero());
    squares = Fma(d, d, squares);
  }
  const float variance = SumLanes(squares) / static_cast<float>(n);
  const V16 inverse = Set1(1.0f / __builtin_sqrtf(variance + eps));
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 v = Mul(Sub(LoadN(out + i, count), mean), inverse);
    const V16 b = bias.data == nullptr ? Zero() : LoadVector(bias, i, count);
    StoreN(out + i, Fma(v, LoadVector(weight, i, count), b), count);
  }
}

// gate / (1 + e^-gate) · up.
void SiluMul(const float* gate, const float* up, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 g = LoadN(gate + i, count);
    const V16 silu = Div(g, Add(Set1(1.0f), Exp(Negate(g))));
    StoreN(out + i, Mul(silu, LoadN(up + i, count)), count);
  }
}

// x/2 · (1 + erf(x/√2)) = max(x, 0) - |x|/2 · erfc(|x|/√2), whose last term stays what it is at 6,
// 6e-9, beyond.
inline V16 GeluExact(V16 x) {
  const V16 a = Min(Set1(6.0f), Magnitude(x));
  return Fma(Mul(Set1(-0.5f), a), NormalTails(a), Max(Zero(), x));
}

// x/2 · (1 + tanh u) = x / (1 + e^-2u), u = √(2/π)·(x + 0.044715·x³).
inline V16 GeluTanh(V16 x) {
  const V16 cubic = Fma(Mul(Mul(x, x), x), Set1(0.044715f), x);
  return Div(x, Add(Set1(1.0f), Exp(Mul(cubic, Set1(-0x1.988454p+0f)))));
}

void Gelu(float* x, int64_t n, int32_t tanh_form) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 v = LoadN(x + i, count);
    StoreN(x + i, tanh_form != 0 ? GeluTanh(v) : GeluExact(v), count);
  }
}

void Convert(const uint16_t* x, LaneType type, int64_t n, int32_t accumulate, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    V16 v = LoadVector({x, type}, i, count);
    if (accumulate != 0) v = Add(v, LoadN(out + i, count));
    StoreN(out + i, v, count);
  }
}

void StoreRow(const float* x, int64_t n, LaneType type, void* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 v = LoadN(x + i, count);
    switch (type) {
      case kLaneF16:
        StoreAsN<kLaneF16>(static_cast<uint16_t*>(out) + i, v, count);
        break;
      case kLaneBF16:
        StoreAsN<kLaneBF16>(static_cast<uint16_t*>(out) + i, v, count);
        break;
      default:
        StoreN(static_cast<float*>(out) + i, v, count);
    }
  }
}

void RopeAngles(float position, const float* inv_freq, int64_t half, float* cosines, float* sines) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = AtMostLanes(half - i);
    V16 sine, cosine;
    SinCos(Mul(Set1(position), LoadN(inv_freq + i, count)), &sine, &cosine);
    StoreN(cosines + i, cosine, count);
    StoreN(sines + i, sine, count);
  }
}

// (a, b) becomes (a·cos - b·sin, b·cos + a·sin).
void RopeRotate(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; i += kLanes) {
    const int64_t count = AtMostLanes(half - i);
    const V16 c = LoadN(cosines + i, count);
    const V16 s = LoadN(sines + i, count);
    const V16 a = LoadN(x + i, count);
    const V16 b = LoadN(x + half + i, count);
    StoreN(x + i, Fma(a, c, Negate(Mul(b, s))), count);
    StoreN(x + half + i, Fma(b, c, Mul(a, s)), count);
  }
}

void AddRow(const float* x, int64_t n, float* sum) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    StoreN(sum + i, Add(LoadN(sum + i, count), LoadN(x + i, count)), count);
  }
}

void DivideRow(float* x, int64_t n, float divisor) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    StoreN(x + i, Div(LoadN(x + i, count), Set1(divisor)), count);
  }
}

float SumSquares(const float* x, int64_t n) {
  V16 sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const V16 v = LoadN(x + i, AtMostLanes(n - i));
    sum = Fma(v, v, sum);
  }
  return SumLanes(sum);
}

float MaxValue(const float* x, int64_t n) {
  V16 max = Set1(-kInfinity);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    max = Max(Choose(FirstLanes(count), LoadN(x + i, count), max), max);
  }
  return MaxLanes(max);
}

int64_t Find(const float* x, int64_t n, float value) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const uint32_t hits = MaskBits(Equal(LoadN(x + i, count), Set1(value)));
    const uint32_t inside = hits & MaskBits(FirstLanes(count));
    if (inside != 0) return i + __builtin_ctz(inside);
  }
  return n;
}

void ExpSums(const float* x, int64_t n, float max, float factor, float* out, float* sums) {
  for (int64_t block = 0; block < n; block += kSumBlock) {
    const int64_t end = block + kSumBlock < n ? block + kSumBlock : n;
    V16 sum = Zero();
    for (int64_t i = block; i < end; i += kLanes) {
      const int64_t count = AtMostLanes(end - i);
      const V16 e = Exp(Mul(Sub(LoadN(x + i, count), Set1(max)), Set1(factor)));
      StoreN(out + i, e, count);
      sum = Add(sum, Choose(FirstLanes(count), e, Zero()));
    }
    sums[block / kSumBlock] = SumLanes(sum);
  }
}

void LaneMaxima(const float* x, int64_t n, float* out) {
  for (int64_t block = 0; block < n; block += kSumBlock) {
    const int64_t end = block + kSumBlock < n ? block + kSumBlock : n;
    V16 max = Set1(-kInfinity);
    for (int64_t i = block; i < end; i += kLanes) {
      const int64_t count = AtMostLanes(end - i);
      max = Max(Choose(FirstLanes(count), LoadN(x + i, count), max), max);
    }
    Store(out + block / kSumBlock * kLanes, max);
  }
}

int64_t Select(const float* x, int64_t n, float threshold, int32_t* indices) {
  int64_t found = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = AtMostLanes(n - i);
    const V16 v = LoadN(x + i, count);
    uint32_t hits = MaskBits(Less(Set1(threshold), v)) | MaskBits(Equal(Set1(threshold), v));
    for (hits &= MaskBits(FirstLanes(count)); hits != 0; hits &= hits - 1) {
      indices[found++] = static_cast<int32_t>(i + __builtin_ctz(hits));
    }
  }
  return found;
}

}  // namespace
}  // namespace nibble
