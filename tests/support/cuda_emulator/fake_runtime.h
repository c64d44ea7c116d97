// What tests may ask of the pretended machine behind kernels/cuda/runtime.h: which device it is,
// which call fails, and what was called. Knows no operation and no model. Thread rule: any thread;
// a machine is set up while nothing runs on it.
#pragma once

#include <cstdint>

#include "kernels/cuda/runtime.h"

namespace nibble::cuda::fake {

// The calls of runtime.h that can fail. kRun is the work itself: an error that a later
// synchronisation reports.
enum class Call {
  kOpenDevice,
  kUseDevice,
  kMemoryInfo,
  kMalloc,
  kMallocHost,
  kMakeStream,
  kSynchronize,
  kMakeEvent,
  kRecord,
  kWait,
  kElapsedMs,
  kCopy,
  kFill,
  kIssueKernel,
  kUseGemmWorkspace,
  kIssueGemm,
  kBeginCapture,
  kEndCapture,
  kIssueGraph,
  kRun,
  kNumCalls,
};

struct Failure {
  Call call = Call::kMalloc;
  int64_t nth = 1;        // counted from now on
  bool for_ever = false;  // and every one after it
  bool sticky = false;    // every later call of any kind fails: IsLost()
};

struct Machine {
  int num_devices = 1;
  bool driver_too_old = false;  // OpenDevice says so; CountDevices is 0
  DeviceTraits traits = {.name = "Emulated GPU",
                         .compute_major = 9,
                         .compute_minor = 0,
                         .num_processors = 4,
                         .shared_bytes = 227 * 1024,
                         .l2_bytes = int64_t{4} << 20,
                         .total_bytes = int64_t{8} << 30};
  int64_t context_bytes = 0;  // of the device's memory, taken before the first Malloc
};

struct Counts {
  int64_t calls[static_cast<int>(Call::kNumCalls)] = {};  // tried, refused ones included
  int64_t kernels_run = 0;                                // also those of graphs
  int64_t operator[](Call call) const { return calls[static_cast<int>(call)]; }
};

struct MemoryUse {
  int64_t device_bytes = 0;  // allocated now
  int64_t peak_device_bytes = 0;
  int64_t host_bytes = 0;  // page-locked
  int64_t allocations = 0;
  int64_t streams = 0;
  int64_t events = 0;
  int64_t graphs = 0;
};

// A machine as after a start of the process: no failures to come, not lost, counts at 0. What is
// still allocated stays.
void Reset(const Machine& machine = {});
// May be called several times; each failure happens by itself.
void FailCall(const Failure& failure);
Counts GetCounts();
MemoryUse GetMemoryUse();
// What order and delays of the following launches are made of.
void SetSeed(uint64_t seed);

}  // namespace nibble::cuda::fake
