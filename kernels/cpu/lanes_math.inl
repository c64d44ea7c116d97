// Functions of 16 lanes: sums in one fixed order, exp, erfc, sine and cosine by polynomials of our
// own, so that no row and no C library changes a bit. Included by each isa_*.cc after its V16.
#pragma once

namespace nibble {
namespace {

constexpr float kInfinity = __builtin_huge_valf();
// Adding and subtracting 1.5 · 2^23 rounds to the nearest integer, ties to even, for |x| < 2^22.
constexpr float kRounder = 12582912.0f;

inline V16 Zero() { return Set1(0.0f); }
inline V16 Magnitude(V16 a) { return FromBits(AndI(Bits(a), SetI(INT32_MAX))); }
inline V16 Negate(V16 a) { return FromBits(XorI(Bits(a), SetI(INT32_MIN))); }

// ((l0+l8)+(l4+l12)) + … : halves are folded until one lane is left.
inline float SumLanes(V16 a) {
  a = Add(a, UpperLanes<8>(a));
  a = Add(a, UpperLanes<4>(a));
  a = Add(a, UpperLanes<2>(a));
  return FirstLane(Add(a, UpperLanes<1>(a)));
}

inline float MaxLanes(V16 a) {
  a = Max(a, UpperLanes<8>(a));
  a = Max(a, UpperLanes<4>(a));
  a = Max(a, UpperLanes<2>(a));
  return FirstLane(Max(a, UpperLanes<1>(a)));
}

// c[0] + c[1]·x + … by Horner's rule, each step one fused multiply-add.
template <int kCount>
inline V16 Polynomial(const float (&c)[kCount], V16 x) {
  V16 sum = Set1(c[kCount - 1]);
  for (int i = kCount - 2; i >= 0; --i) sum = Fma(sum, x, Set1(c[i]));
  return sum;
}

// e^x within 2 ulp, subnormal results included; exp(0) is exactly 1, exp(-inf) 0, exp(NaN) NaN.
// x = n·ln2 + r; e^r = 1 + r + r²·P(r), P fitted to |r| <= ln2/2 (error 3e-9); 2^n in two factors,
// because n may leave the range of one exponent. Inlined by force: GCC would call it, one vector at
// a time.
__attribute__((always_inline)) inline V16 Exp(V16 x) {
  constexpr float kP[] = {0.49999994f, 0.166665211f, 0.041668389f, 0.00836874545f, 0.00138145394f};
  x = Max(Set1(-105.0f), Min(Set1(89.0f), x));
  const V16 shifted = Fma(x, Set1(0x1.715476p+0f), Set1(kRounder));
  const V16 n = Sub(shifted, Set1(kRounder));
  V16 r = Fma(n, Set1(-0x1.62e430p-1f), x);  // ln2, rounded
  r = Fma(n, Set1(0x1.05c610p-29f), r);      // and what that rounding added
  const V16 e = Add(Set1(1.0f), Fma(Polynomial(kP, r), Mul(r, r), r));
  const I16 exponent = SubI(Bits(shifted), Bits(Set1(kRounder)));
  const I16 half = ShiftRightSigned<1>(exponent);
  const V16 first = FromBits(ShiftLeft<23>(AddI(half, SetI(127))));
  const V16 second = FromBits(ShiftLeft<23>(AddI(SubI(exponent, half), SetI(127))));
  return Mul(Mul(e, first), second);
}

// erfc(a/√2), the part of a normal distribution beyond a on both sides, for 0 <= a <= 6, within
// 2^-25.9 absolute before rounding. e^(a·R(a)), R fitted to log(erfc(a/√2))/a
// (tests/oracle/fit_normal_tails.py).
inline V16 NormalTails(V16 a) {
  constexpr float kR[] = {-0.797885299f,    -0.318298876f,    -0.0363875777f,  0.00489599025f,
                          -9.49173045e-05f, -0.000129050197f, 2.72945108e-05f, -1.96500969e-06f};
  return Exp(Mul(a, Polynomial(kR, a)));
}

// sin(x) and cos(x) within 2^-23 absolute for |x| < 2^21: x = n·π/2 + r with π/2 in two parts
// (the first subtraction is exact in a fused multiply-add), polynomials on |r| <= π/4, quadrant
// by the low bits of n.
inline void SinCos(V16 x, V16* sine, V16* cosine) {
  constexpr float kSin[] = {-0.166666672f, 0.00833332911f, -0.000198393303f, 2.71827457e-06f};
  constexpr float kCos[] = {0.0416666456f, -0.00138873642f, 2.44380899e-05f};
  const V16 shifted = Fma(x, Set1(0x1.45f306p-1f), Set1(kRounder));
  const V16 n = Sub(shifted, Set1(kRounder));
  V16 r = Fma(n, Set1(-0x1.921fb6p+0f), x);
  r = Fma(n, Set1(0x1.777a5cp-25f), r);
  const V16 r2 = Mul(r, r);
  const V16 s = Fma(Mul(r, r2), Polynomial(kSin, r2), r);
  const V16 c = Fma(Mul(r2, r2), Polynomial(kCos, r2), Fma(r2, Set1(-0.5f), Set1(1.0f)));
  const I16 quadrant = Bits(shifted);
  const M16 odd = NonZero(AndI(quadrant, SetI(1)));
  const I16 sine_sign = ShiftLeft<30>(AndI(quadrant, SetI(2)));
  const I16 cosine_sign = ShiftLeft<30>(AndI(AddI(quadrant, SetI(1)), SetI(2)));
  *sine = FromBits(XorI(Bits(Choose(odd, c, s)), sine_sign));
  *cosine = FromBits(XorI(Bits(Choose(odd, s, c)), cosine_sign));
}

inline int64_t AtMostLanes(int64_t n) { return n < kLanes ? n : kLanes; }

// Values [i, i + count) of a vector of any type.
inline V16 LoadVector(LaneVector vector, int64_t i, int64_t count) {
  switch (vector.type) {
    case kLaneF16:
      return LoadAsN<kLaneF16>(static_cast<const uint16_t*>(vector.data) + i, count);
    case kLaneBF16:
      return LoadAsN<kLaneBF16>(static_cast<const uint16_t*>(vector.data) + i, count);
    default:
      return LoadN(static_cast<const float*>(vector.data) + i, count);
  }
}

}  // namespace
}  // namespace nibble
