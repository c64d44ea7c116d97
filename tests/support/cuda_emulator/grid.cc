// The order of a launch's blocks, and what is said when a kernel does something undefined.
#include "tests/support/cuda_emulator/grid.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>

#include "tests/support/cuda_emulator/block.h"

namespace nibble::cuda::emulator {
namespace {

const KernelCall* running_call = nullptr;

void PrintPlace() {
  if (running_call == nullptr) return;
  Dl_info symbol = {};
  dladdr(running_call->kernel, &symbol);
  std::fprintf(stderr,
               "  in kernel %s (%p), block (%u, %u, %u) of (%u, %u, %u), thread (%u, %u, %u) of "
               "(%u, %u, %u)\n",
               symbol.dli_sname != nullptr ? symbol.dli_sname : "?", running_call->kernel,
               blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y, gridDim.z, threadIdx.x,
               threadIdx.y, threadIdx.z, blockDim.x, blockDim.y, blockDim.z);
}

struct sigaction old_handlers[2];

void OnFault(int signal, siginfo_t* info, void*) {
  if (running_call != nullptr) {
    std::fprintf(stderr, "CUDA emulator: memory fault at address %p\n", info->si_addr);
    PrintPlace();
  }
  // The instruction runs again and meets whoever stood here before.
  sigaction(signal, &old_handlers[signal == SIGBUS], nullptr);
}

// A signal needs a stack of its own: the fiber's may be what overflowed.
void UseSignalStack() {
  thread_local std::unique_ptr<char[]> memory;
  if (memory != nullptr) return;
  constexpr size_t kBytes = 64 * 1024;
  memory = std::make_unique<char[]>(kBytes);
  stack_t stack = {};
  stack.ss_sp = memory.get();
  stack.ss_size = kBytes;
  sigaltstack(&stack, nullptr);
}

}  // namespace

void Die(const char* fault, ...) {
  std::fprintf(stderr, "CUDA emulator: ");
  va_list args;
  va_start(args, fault);
  std::vfprintf(stderr, fault, args);
  va_end(args);
  std::fprintf(stderr, "\n");
  PrintPlace();
  std::abort();
}

void InstallFaultHandler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = &OnFault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_handlers[0]);
    sigaction(SIGBUS, &action, &old_handlers[1]);
  });
}

void WaitForPrevious(const Point&) { Running().waited_for_previous = true; }

void RunGrid(const KernelCall& call, void* const* args, uint64_t seed) {
  static Block* const block = new Block;
  InstallFaultHandler();
  UseSignalStack();
  running_call = &call;
  gridDim = {call.grid.x, call.grid.y, call.grid.z};
  blockDim = {call.block.x, call.block.y, call.block.z};
  Random random(seed);
  const uint64_t count = uint64_t{call.grid.x} * call.grid.y * call.grid.z;
  // A stride without a common divisor visits every block once.
  uint64_t stride = 1 + random.Next() % count;
  while (std::gcd(stride, count) != 1) ++stride;
  uint64_t at = random.Next() % count;
  for (uint64_t i = 0; i < count; ++i, at = (at + stride) % count) {
    const uint3 index = {static_cast<unsigned>(at % call.grid.x),
                         static_cast<unsigned>(at / call.grid.x % call.grid.y),
                         static_cast<unsigned>(at / call.grid.x / call.grid.y)};
    block->Run(call, args, index, random.Next());
  }
  running_call = nullptr;
}

}  // namespace nibble::cuda::emulator
