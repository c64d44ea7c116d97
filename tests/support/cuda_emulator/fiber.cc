// x86-64 System V: a switch saves the six registers that a call preserves.
#include "tests/support/cuda_emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

extern "C" void NibbleSwitchFiber(void** save, void* load);

asm(R"(
.text
.p2align 4
.globl NibbleSwitchFiber
.hidden NibbleSwitchFiber
.type NibbleSwitchFiber, @function
NibbleSwitchFiber:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  notrack jmp *%rcx
.size NibbleSwitchFiber, .-NibbleSwitchFiber
)");

namespace nibble::cuda::emulator {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kStackBytes = 128 * 1024;

}  // namespace

void SwitchFiber(void** save, void* load) { NibbleSwitchFiber(save, load); }

void* FiberStack::Begin(void (*entry)()) const {
  // From below: six registers, the entry, and where its return address would stand.
  void** const sp = reinterpret_cast<void**>(top_) - 8;
  for (int i = 0; i < 6; ++i) sp[i] = nullptr;
  sp[6] = reinterpret_cast<void*>(entry);
  sp[7] = nullptr;
  return sp;
}

FiberStack FiberStacks::Take() {
  FiberStack stack;
  if (!free_.empty()) {
    stack = free_.back();
    free_.pop_back();
    return stack;
  }
  void* const memory = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
    std::fprintf(stderr, "CUDA emulator: no memory for stacks\n");
    std::abort();
  }
  // Tops differ in their place within a page, or all would fall into the same lines of the cache.
  const size_t colour = num_made_++ % 16 * 192;
  stack.top_ = static_cast<char*>(memory) + kPage + kStackBytes - colour;
  return stack;
}

}  // namespace nibble::cuda::emulator
