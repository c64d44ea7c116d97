// The order of a launch's blocks, and what is said when a kernel does something undefined.
#include "tests/support/cuda_emulator/grid.h"

#include <signal.h>
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>

#include "tests/support/cuda_emulator/block.h"
#include "tests/support/cuda_emulator/kernel_name.h"

namespace nibble::cuda::emulator {
namespace {

void PrintPlace() {
  if (RunningBlock() == nullptr) return;
  std::fprintf(stderr, "  in kernel %s\n  block (%u, %u, %u) of (%u, %u, %u), ",
               KernelName(RunningBlock()->call->kernel).c_str(), blockIdx.x, blockIdx.y, blockIdx.z,
               gridDim.x, gridDim.y, gridDim.z);
  std::fprintf(stderr, "thread (%u, %u, %u) of (%u, %u, %u)\n", threadIdx.x, threadIdx.y,
               threadIdx.z, blockDim.x, blockDim.y, blockDim.z);
}

struct sigaction old_handlers[2];

void OnFault(int signal, siginfo_t* info, void* /*context*/) {
  if (RunningBlock() != nullptr) {
    std::fprintf(stderr, "CUDA emulator: memory fault at address %p\n", info->si_addr);
    PrintPlace();
  }
  // The instruction runs again and meets whoever stood here before.
  sigaction(signal, &old_handlers[signal == SIGBUS], nullptr);
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

// A signal needs a stack of its own: the thread's may be what overflowed.
class SignalStack {
 public:
  SignalStack() : memory_(new char[kBytes]) {
    stack_t stack = {};
    stack.ss_sp = memory_.get();
    stack.ss_size = kBytes;
    sigaltstack(&stack, &old_);
  }
  ~SignalStack() { sigaltstack(&old_, nullptr); }

 private:
  static constexpr size_t kBytes = 64 * 1024;
  std::unique_ptr<char[]> memory_;
  stack_t old_ = {};
};

bool IsMapped(uint64_t address) {
  constexpr uint64_t kPage = 4096;
  unsigned char resident;
  return mincore(reinterpret_cast<void*>(address / kPage * kPage), 1, &resident) == 0;
}

// One block at a time, and one more while it waits for the launch before.
Block& BlockAt(int depth) {
  static Block* const blocks = new Block[2];
  if (depth >= 2) Die("launches overlap more than two deep");
  return blocks[depth];
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

void CheckArguments(const KernelCall& call, void* const* args, const size_t* sizes, size_t num_args,
                    const std::function<bool(const void*)>& is_device) {
  // Below it a word is some pair of small numbers: programs and their heaps are mapped above.
  constexpr uint64_t kLowest = uint64_t{0x5000} << 32;
  constexpr uint64_t kEnd = uint64_t{1} << 47;
  for (size_t i = 0; i < num_args; ++i) {
    for (size_t at = 0; at + sizeof(uint64_t) <= sizes[i]; at += sizeof(uint64_t)) {
      uint64_t word;
      std::memcpy(&word, static_cast<const char*>(args[i]) + at, sizeof(word));
      if (word < kLowest || word >= kEnd) continue;
      if (is_device(reinterpret_cast<const void*>(word)) || !IsMapped(word)) continue;
      Die("argument %zu of kernel %s points to memory of the host", i,
          KernelName(call.kernel).c_str());
    }
  }
}

void RunGrid(const KernelCall& call, void* const* args, uint64_t seed,
             const std::function<void()>& previous) {
  static int depth = 0;
  thread_local const SignalStack signal_stack;
  InstallFaultHandler();
  Block& block = BlockAt(depth++);
  if (previous != nullptr) block.SetPrevious(&previous);
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
    block.Run(call, args, index, random.Next());
  }
  --depth;
}

}  // namespace nibble::cuda::emulator
