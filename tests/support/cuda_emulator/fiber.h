// Stacks that code runs on by turns, without the operating system. Knows no kernel.
#pragma once

#include <cstddef>
#include <vector>

namespace nibble::cuda::emulator {

// A stack with a guard page below it. Its memory lives as long as the process.
class FiberStack {
 public:
  // Code that begins at `entry` (which never returns) when switched to.
  void* Begin(void (*entry)()) const;

 private:
  friend class FiberStacks;
  char* top_ = nullptr;
};

// Stacks that are taken and given back; never freed.
class FiberStacks {
 public:
  FiberStack Take();
  void Give(FiberStack stack) { free_.push_back(stack); }

 private:
  std::vector<FiberStack> free_;
  size_t num_made_ = 0;
};

// Saves where the caller stands to *save and goes on at `load`.
void SwitchFiber(void** save, void* load);

}  // namespace nibble::cuda::emulator
