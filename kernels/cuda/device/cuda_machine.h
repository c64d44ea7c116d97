// The CUDA machine as the kernels see it: CUDA's own names, and every PTX instruction and half
// precision conversion that they use as a named function. This is the real one; the emulator of the
// tests (tests/support/cuda_emulator/cuda_machine.h) has the same names in plain C++. Kernels name
// no other CUDA header, have no __shared__ variables (DynamicShared() instead) and no inline PTX.
//
// CUDA's own names that both machines have: threadIdx, blockIdx, blockDim, gridDim, __syncthreads,
// __syncwarp, __shfl_sync, __shfl_xor_sync, __shfl_down_sync, __ballot_sync, __any_sync, __popc,
// __ffs, __clz, __byte_perm, __ldg, atomicAdd (int, unsigned), atomicMax (int, unsigned),
// __threadfence, uint2, uint4, float2, float4, and <math.h>. Code is compiled with -fmad=false:
// a multiply and an add fuse only in fmaf.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

namespace nibble::cuda {

// --- half precision: 16 bits are held as integers, pairs in 32 bits with the first one low ---

__device__ __forceinline__ uint16_t FloatToHalf(float x) {
  return __half_as_ushort(__float2half_rn(x));
}
__device__ __forceinline__ float HalfToFloat(uint16_t h) {
  return __half2float(__ushort_as_half(h));
}
__device__ __forceinline__ uint16_t FloatToBf16(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ __forceinline__ float Bf16ToFloat(uint16_t b) {
  return __uint_as_float(static_cast<uint32_t>(b) << 16);
}
__device__ __forceinline__ uint32_t PackHalf(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
__device__ __forceinline__ uint32_t PackBf16(float first, float second) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
// Both products, each rounded to fp16.
__device__ __forceinline__ uint32_t MultiplyHalf2(uint32_t a, uint32_t b) {
  uint32_t pair;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(pair) : "r"(a), "r"(b));
  return pair;
}
__device__ __forceinline__ uint32_t BitsOf(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float FloatOf(uint32_t bits) { return __uint_as_float(bits); }
// 2^x within 2 ulp; 0 where that is not a normal number.
__device__ __forceinline__ float Exp2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}
// a·b + c·d … of four signed bytes each, added to sum.
__device__ __forceinline__ int32_t Dot4(uint32_t a, uint32_t b, int32_t sum) {
  return __dp4a(static_cast<int32_t>(a), static_cast<int32_t>(b), sum);
}

// --- shared memory ---

// The block's dynamic shared memory, aligned to 1024.
__device__ __forceinline__ char* DynamicShared() {
  extern __shared__ __align__(1024) char dynamic_shared[];
  return dynamic_shared;
}
// An address of shared memory as 32 bits, for the functions that take one.
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
__device__ __forceinline__ uint32_t LoadShared32(uint32_t address) {
  uint32_t value;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
  return value;
}
__device__ __forceinline__ uint2 LoadShared64(uint32_t address) {
  uint2 v;
  asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(address));
  return v;
}
__device__ __forceinline__ uint4 LoadShared128(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

// --- global memory ---

// 16 bytes that are read once in the whole launch: not kept in L1. An ordinary load rather than one
// of constant memory, so that __syncwarp() keeps it before what follows.
__device__ __forceinline__ uint4 LoadStream128(const void* global) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(global));
  return v;
}

// --- warp matrices; fragments as the PTX ISA lays them out ---

// Four 8×8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], uint32_t shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_row));
}
__device__ __forceinline__ void LoadMatrix4Transposed(uint32_t (&r)[4], uint32_t shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_row));
}
// d[16,8] += a[16,16] · b[16,8], fp32 sums (mma.m16n8k16).
__device__ __forceinline__ void MmaHalf(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// --- asynchronous copies (sm_80) ---

// 16 bytes from global to shared memory; zeros if !valid (then `global` is not read).
__device__ __forceinline__ void CopyAsync16(uint32_t shared, const void* global, bool valid) {
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void CopyAsyncCommit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of this thread's groups are under way.
template <int kPending>
__device__ __forceinline__ void CopyAsyncWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// --- named barriers ---

// `threads` threads of the block (whole warps) meet at barrier id (1 … 15).
__device__ __forceinline__ void NamedBarrier(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// --- dependent launches (sm_90; nothing before) ---

// Waits until what the previous kernel of the stream wrote can be read. A kernel launched with
// LaunchOptions::dependent calls it before it reads or writes anything that another kernel of the
// step writes or reads.
__device__ __forceinline__ void WaitForPreviousKernel() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may start its prologue.
__device__ __forceinline__ void LetNextKernelStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// --- Hopper (sm_90a): bulk copies, their barriers, and wgmma ---

// Host code is compiled beside the device code and must find the names.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDA_ARCH__)

inline constexpr bool kHasHopper = true;

// The warp meets; true for one lane, always the same. The compiler knows that it is one:
// instructions with uniform operands then need no loop over lanes.
__device__ __forceinline__ bool IsElected() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred one;\n"
      "elect.sync _|one, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, one;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}
// A barrier in shared memory that `arrivals` arrivals and the bytes expected complete.
__device__ __forceinline__ void BarrierInit(uint32_t barrier, uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Makes the inits visible to the copy engine; then __syncthreads().
__device__ __forceinline__ void BarrierInitFence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void BarrierArrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ void BarrierArriveExpecting(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
// Waits until the phase of this parity (0 first) is complete.
__device__ __forceinline__ void BarrierWait(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra out;\n"
      "bra again;\n"
      "out:\n"
      "}\n" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// Consecutive bytes (a multiple of 16) from global to shared memory; completes on the barrier.
__device__ __forceinline__ void BulkCopy(uint32_t shared, const void* global, uint32_t bytes,
                                         uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared),
      "l"(global), "r"(bytes), "r"(barrier)
      : "memory");
}
// Ordinary writes to shared memory before it are seen by the tensor cores and the copy engine.
__device__ __forceinline__ void FenceForAsync() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A [16, N] fp16 operand in shared memory, K-major without swizzle: 8×8 core matrices of 128
// consecutive bytes (8 rows of n, 16 bytes of k each). k_bytes: from one core matrix to the next
// along k; n_bytes: along n.
// The PTX ISA's "leading dimension byte offset" (bits 16-29) is the step between core matrices
// along K and its "stride dimension byte offset" (bits 32-45) the step along M or N, for K-major
// operands without swizzle. CUTLASS says the same of its INTERLEAVE layout, in 16-byte units:
// ((8, n), 2) : ((1, SBO), LBO), the last 2 being the two halves of k16. Bits 62-63 zero: no
// swizzle. Offsets and the address drop their 4 low bits.
__device__ __forceinline__ uint64_t MatrixDescriptor(uint32_t shared, uint32_t k_bytes,
                                                     uint32_t n_bytes) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) |
         static_cast<uint64_t>((k_bytes & 0x3ffff) >> 4) << 16 |
         static_cast<uint64_t>((n_bytes & 0x3ffff) >> 4) << 32;
}
// d[64, 64] = a[64, 16] · b[16, 64] (+ d), fp32 sums, of a warpgroup whose warp w holds rows 16w …
// 16w+15: a as MmaHalf's fragments, d[4j … 4j+3] as MmaHalf's d for columns 8j … 8j+7
// (wgmma.m64n64k16). Asynchronous: until WgmmaWait, a must keep its values and d has none.
template <bool kAdd>
__device__ __forceinline__ void IssueWgmma64(float (&d)[32], const uint32_t (&a)[4],
                                             uint64_t b_descriptor) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]),
        "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]),
        "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]),
        "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_descriptor), "n"(kAdd ? 1 : 0));
}
// d += a·b; WgmmaHalfFirst: d = a·b, whatever d was.
template <int kN>
__device__ __forceinline__ void WgmmaHalf(float (&d)[kN / 2], const uint32_t (&a)[4],
                                          uint64_t b_descriptor) {
  static_assert(kN == 64, "the one shape in use");
  IssueWgmma64<true>(d, a, b_descriptor);
}
template <int kN>
__device__ __forceinline__ void WgmmaHalfFirst(float (&d)[kN / 2], const uint32_t (&a)[4],
                                               uint64_t b_descriptor) {
  static_assert(kN == 64, "the one shape in use");
  IssueWgmma64<false>(d, a, b_descriptor);
}
// Orders what was written to a and d before the products that follow.
__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Right after WgmmaWait: the compiler, which sees no tie between the wait and d, reads d no
// earlier.
template <int kSize>
__device__ __forceinline__ void AfterWgmma(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void GiveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

#else

inline constexpr bool kHasHopper = false;

#endif

}  // namespace nibble::cuda
