// The seam to the CUDA runtime and cuBLAS: every call of theirs that we make, as plain functions.
// runtime.cc is the real one; tests/support/cuda_emulator/fake_runtime.cc plays a machine that can
// fail at any call. Knows no operation and no model.
//
// Errors of every function: RESOURCE_EXHAUSTED (memory), UNAVAILABLE (no driver, no device, a
// driver too old; OpenDevice only), INTERNAL with the call's name and CUDA's own text. After an
// error that CUDA calls sticky every later call fails: IsLost() is true.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/launch.h"
#include "kernels/tensor.h"

namespace nibble::cuda {

struct DeviceTraits {
  int ordinal = 0;
  std::string name;          // "NVIDIA H200"
  int compute_major = 0;     // 9
  int compute_minor = 0;     // 0
  int num_processors = 0;    // streaming multiprocessors
  int64_t shared_bytes = 0;  // the most dynamic shared memory of one block
  int64_t l2_bytes = 0;
  int64_t total_bytes = 0;
};

// out[M,N] = x[M,K] · w[N,K]ᵀ (+ out), row-major, sums in fp32 (or int32).
struct GemmCall {
  enum class Type : uint32_t { kHalf, kBf16, kInt8, kFloat };
  Type type = Type::kHalf;  // of x and w; out is fp32, or int32 for kInt8
  uint32_t accumulate = 0;  // out += …
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  const void* x = nullptr;
  int64_t x_stride = 0;  // elements
  const void* w = nullptr;
  int64_t w_stride = 0;
  void* out = nullptr;
  int64_t out_stride = 0;
};

// Opaque; owned by whoever made them.
struct Stream;
struct Event;
struct Graph;  // instantiated

// The number of devices; 0 where there is no driver.
int CountDevices();
// Opens the primary context of a device and makes it current for the calling thread.
absl::StatusOr<DeviceTraits> OpenDevice(int ordinal);
// Makes an opened device current for the calling thread.
absl::Status UseDevice(int ordinal);
// CUDA's own view of the device's memory, other processes included.
absl::Status MemoryInfo(int64_t* free_bytes, int64_t* total_bytes);
// A sticky error happened: the process cannot use the device any more.
bool IsLost();

// 256-aligned at least; not zeroed.
absl::StatusOr<void*> Malloc(int64_t bytes);
void Free(void* device);
// Page-locked host memory, zeroed.
absl::StatusOr<void*> MallocHost(int64_t bytes);
void FreeHost(void* host);

absl::StatusOr<Stream*> MakeStream();
void Destroy(Stream* stream);
absl::Status Synchronize(Stream* stream);
// The cudaStream_t, for other people's kernels (tests/bench/cuda); null where CUDA is pretended.
void* NativeStream(Stream* stream);
absl::StatusOr<Event*> MakeEvent();
void Destroy(Event* event);
absl::Status Record(Event* event, Stream* stream);
absl::Status Wait(Stream* stream, Event* event);  // the stream waits, not the caller
// Both events must have completed.
absl::StatusOr<double> ElapsedMs(Event* begin, Event* end);

// Either side may be host memory; asynchronous if that is page-locked.
absl::Status Copy(void* to, const void* from, int64_t bytes, Stream* stream);
absl::Status Fill(void* device, uint8_t value, int64_t bytes, Stream* stream);
// args[i] points to sizes[i] bytes, which are copied.
absl::Status IssueKernel(const KernelCall& call, void* const* args, const size_t* sizes,
                         size_t num_args, Stream* stream);
// Workspace that cuBLAS may use on this stream; without it products may allocate.
absl::Status UseGemmWorkspace(Stream* stream, void* device, int64_t bytes);
absl::Status IssueGemm(const GemmCall& call, Stream* stream);

// What is issued to the stream between the two calls becomes a graph instead of being done.
absl::Status BeginCapture(Stream* stream);
absl::StatusOr<Graph*> EndCapture(Stream* stream);
absl::Status IssueGraph(Graph* graph, Stream* stream);
void Destroy(Graph* graph);

}  // namespace nibble::cuda
