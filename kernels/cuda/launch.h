// A kernel launch as plain bytes, put on a tape instead of being issued: kernels are launched here
// and nowhere else. Included by .cu files, so it names nothing that nvcc would have to parse twice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace nibble::cuda {

class Tape;  // kernels/cuda/tape.h

struct Dim3 {
  uint32_t x = 1;
  uint32_t y = 1;
  uint32_t z = 1;
};

struct LaunchOptions {
  uint32_t shared_bytes = 0;  // dynamic shared memory of a block
  // The kernel may start while the one before it ends; it calls WaitForPreviousKernel() itself.
  bool dependent = false;
};

// Calls a kernel as an ordinary function: what the emulator does with each of its threads.
using InvokeKernel = void (*)(const void* kernel, void* const* args);

struct KernelCall {
  const void* kernel = nullptr;
  InvokeKernel invoke = nullptr;
  Dim3 grid;
  Dim3 block;
  LaunchOptions options;
};

inline constexpr size_t kMaxArgs = 16;

// Appends a launch; args[i] points to sizes[i] bytes, which are copied. A grid without blocks is
// left out.
void AppendKernel(Tape* tape, const KernelCall& call, const void* const* args, const size_t* sizes,
                  size_t num_args);

template <typename... Params, size_t... kIndex>
void InvokeWith(const void* kernel, void* const* args, std::index_sequence<kIndex...>) {
  reinterpret_cast<void (*)(Params...)>(const_cast<void*>(kernel))(
      *static_cast<Params*>(args[kIndex])...);
}

template <typename... Params>
void Invoke(const void* kernel, void* const* args) {
  InvokeWith<Params...>(kernel, args, std::index_sequence_for<Params...>());
}

// kernel(args...) over grid × block threads. Parameters are passed by value; they are plain data
// without padding (tapes are compared byte by byte), 4 KB in all.
template <typename... Params, typename... Args>
void Launch(Tape* tape, void (*kernel)(Params...), Dim3 grid, Dim3 block,
            const LaunchOptions& options, const Args&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args) && sizeof...(Params) <= kMaxArgs);
  static_assert(((alignof(Params) <= 16) && ...));
  const auto append = [&](const Params&... params) {
    const void* const pointers[] = {static_cast<const void*>(&params)...};
    const size_t sizes[] = {sizeof(Params)...};
    AppendKernel(tape,
                 {reinterpret_cast<const void*>(kernel), &Invoke<Params...>, grid, block, options},
                 pointers, sizes, sizeof...(Params));
  };
  append(static_cast<Params>(args)...);
}

constexpr uint32_t CeilDiv(int64_t a, int64_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

}  // namespace nibble::cuda
