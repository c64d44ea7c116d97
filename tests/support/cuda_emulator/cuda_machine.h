// The emulated CUDA machine: the names of kernels/cuda/device/cuda_machine.h, which says what each
// does, in plain C++. What an instruction's operands must obey is checked; what happens later on a
// card happens later here.
#pragma once

#include "kernels/half.h"
#include "tests/support/cuda_emulator/cuda_names.h"
#include "tests/support/cuda_emulator/emulator.h"

namespace nibble::cuda {

// --- half precision ---

inline uint16_t FloatToHalf(float x) { return F32ToF16(x); }
inline float HalfToFloat(uint16_t h) { return F16ToF32(h); }
inline uint16_t FloatToBf16(float x) { return F32ToBf16(x); }
inline float Bf16ToFloat(uint16_t b) { return Bf16ToF32(b); }
inline uint32_t PackHalf(float first, float second) {
  return static_cast<uint32_t>(F32ToF16(second)) << 16 | F32ToF16(first);
}
inline uint32_t PackBf16(float first, float second) {
  return static_cast<uint32_t>(F32ToBf16(second)) << 16 | F32ToBf16(first);
}
// A product of two fp16 values is exact in fp32.
inline uint32_t MultiplyHalf2(uint32_t a, uint32_t b) {
  const auto half = [](uint32_t pair, int shift) {
    return F16ToF32(static_cast<uint16_t>(pair >> shift));
  };
  return PackHalf(half(a, 0) * half(b, 0), half(a, 16) * half(b, 16));
}
inline uint32_t BitsOf(float x) { return std::bit_cast<uint32_t>(x); }
inline float FloatOf(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float Exp2(float x) {
  const float power = exp2f(x);
  return power < 0x1p-126f ? 0.0f : power;
}
inline int32_t Dot4(uint32_t a, uint32_t b, int32_t sum) {
  uint32_t total = static_cast<uint32_t>(sum);
  for (int shift = 0; shift < 32; shift += 8) {
    const int product = static_cast<int8_t>(a >> shift) * static_cast<int8_t>(b >> shift);
    total += static_cast<uint32_t>(product);
  }
  return static_cast<int32_t>(total);
}

// --- shared memory ---

inline char* DynamicShared() { return emulator::SharedBegin(); }
inline uint32_t SharedAddress(const void* pointer) { return emulator::SharedOffset(pointer); }
template <typename T>
T LoadShared(const char* what, uint32_t address) {
  T value;
  std::memcpy(&value, emulator::SharedAt(what, address, sizeof(T), sizeof(T)), sizeof(T));
  return value;
}
inline uint32_t LoadShared32(uint32_t address) {
  return LoadShared<uint32_t>("LoadShared32", address);
}
inline uint2 LoadShared64(uint32_t address) { return LoadShared<uint2>("LoadShared64", address); }
inline uint4 LoadShared128(uint32_t address) { return LoadShared<uint4>("LoadShared128", address); }

// --- global memory ---

inline uint4 LoadStream128(const void* global) {
  emulator::CheckAlignment("LoadStream128", global, 16);
  uint4 value;
  std::memcpy(&value, global, sizeof(value));
  return value;
}

// --- warp matrices ---

inline void LoadMatrix4(uint32_t (&r)[4], uint32_t shared_row,
                        emulator::Where where = emulator::Where::current()) {
  emulator::MatrixFrame frame = {r, shared_row};
  emulator::MeetWholeWarp({"LoadMatrix4", where}, &frame, &emulator::LoadMatrices);
}
inline void LoadMatrix4Transposed(uint32_t (&r)[4], uint32_t shared_row,
                                  emulator::Where where = emulator::Where::current()) {
  emulator::MatrixFrame frame = {r, shared_row};
  emulator::MeetWholeWarp({"LoadMatrix4Transposed", where}, &frame,
                          &emulator::LoadMatricesTransposed);
}
inline void MmaHalf(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    emulator::Where where = emulator::Where::current()) {
  emulator::MmaFrame frame = {d, a, b};
  emulator::MeetWholeWarp({"MmaHalf", where}, &frame, &emulator::MultiplyHalf);
}
inline void MmaBf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    emulator::Where where = emulator::Where::current()) {
  emulator::MmaFrame frame = {d, a, b};
  emulator::MeetWholeWarp({"MmaBf16", where}, &frame, &emulator::MultiplyBf16);
}

// --- asynchronous copies ---

inline void CopyAsync16(uint32_t shared, const void* global, bool valid) {
  emulator::StartCopy(shared, global, valid);
}
inline void CopyAsyncCommit() { emulator::CommitCopies(); }
template <int kPending>
void CopyAsyncWait() {
  emulator::WaitForCopies(kPending);
}

// --- named barriers ---

inline void NamedBarrier(int id, int threads, emulator::Where where = emulator::Where::current()) {
  emulator::MeetNamed({"NamedBarrier", where}, id, threads);
}

// --- dependent launches ---

inline void WaitForPreviousKernel(emulator::Where where = emulator::Where::current()) {
  emulator::WaitForPrevious({"WaitForPreviousKernel", where});
}
inline void LetNextKernelStart() {}

// --- Hopper ---

inline constexpr bool kHasHopper = true;

inline bool IsElected(emulator::Where where = emulator::Where::current()) {
  emulator::MeetWholeWarp({"IsElected", where}, nullptr, nullptr);
  return threadIdx.x % 32 == 0;
}
inline void BarrierInit(uint32_t barrier, uint32_t arrivals) {
  emulator::InitBarrier(barrier, arrivals);
}
inline void BarrierInitFence() { emulator::FenceBarrierInit(); }
inline void BarrierArrive(uint32_t barrier) { emulator::Arrive(barrier, 0); }
inline void BarrierArriveExpecting(uint32_t barrier, uint32_t bytes) {
  emulator::Arrive(barrier, bytes);
}
inline void BarrierWait(uint32_t barrier, uint32_t parity,
                        emulator::Where where = emulator::Where::current()) {
  emulator::WaitForBarrier({"BarrierWait", where}, barrier, parity);
}
inline void BulkCopy(uint32_t shared, const void* global, uint32_t bytes, uint32_t barrier) {
  emulator::StartBulkCopy(shared, global, bytes, barrier);
}
inline void FenceForAsync() { emulator::FenceAsyncProxy(); }

inline uint64_t MatrixDescriptor(uint32_t shared, uint32_t k_bytes, uint32_t n_bytes) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) |
         static_cast<uint64_t>((k_bytes & 0x3ffff) >> 4) << 16 |
         static_cast<uint64_t>((n_bytes & 0x3ffff) >> 4) << 32;
}
inline void WgmmaFence() { emulator::FenceWgmma(); }
// d[64, kN] += a[64, 16] · b[16, kN] of a warpgroup: a in registers, b behind a descriptor.
template <int kN>
void WgmmaHalf(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b_descriptor,
               emulator::Where where = emulator::Where::current()) {
  static_assert(kN % 8 == 0 && kN >= 8 && kN <= 256);
  emulator::StartWgmma({"WgmmaHalf", where}, kN, d, a, b_descriptor);
}
// d = a·b: what d held does not count.
template <int kN>
void WgmmaHalfFirst(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b_descriptor,
                    emulator::Where where = emulator::Where::current()) {
  for (float& sum : d) sum = 0.0f;
  WgmmaHalf<kN>(d, a, b_descriptor, where);
}
inline void WgmmaCommit() { emulator::CommitWgmma(); }
template <int kPending>
void WgmmaWait() {
  emulator::WaitForWgmma(kPending);
}
template <int kSize>
void AfterWgmma(float (&)[kSize]) {}
template <int kRegisters>
void TakeRegisters() {}
template <int kRegisters>
void GiveRegisters() {}

}  // namespace nibble::cuda
