// The CUDA runtime and cuBLAS as they are. Kernels are in the program; nothing of their arithmetic
// is known here.
#include "kernels/cuda/runtime.h"

#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <unordered_map>

#include "absl/strings/str_cat.h"

namespace nibble::cuda {

struct Stream {
  cudaStream_t stream = nullptr;
  cublasHandle_t products = nullptr;  // made when first needed
  bool launches_early = false;        // the device knows dependent launches
  // Dynamic shared memory that kernels were given leave for, beyond what all have.
  std::unordered_map<const void*, uint32_t> raised_shared_bytes;
};

struct Event {
  cudaEvent_t event = nullptr;
};

struct Graph {
  cudaGraphExec_t graph = nullptr;
};

namespace {

// A process has one CUDA runtime, and it does not come back from such an error.
std::atomic<bool> lost = false;

bool IsSticky(cudaError_t error) {
  switch (error) {
    case cudaErrorAssert:
    case cudaErrorContained:
    case cudaErrorContextIsDestroyed:
    case cudaErrorECCUncorrectable:
    case cudaErrorExternalDevice:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

// Of a call's result. An error that is not sticky is forgotten, or later calls would report it.
absl::Status ToStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess && !lost) return absl::OkStatus();
  if (error == cudaSuccess) {
    return absl::InternalError(absl::StrCat(call, ": the device failed earlier"));
  }
  if (IsSticky(error)) lost = true;
  static_cast<void>(cudaGetLastError());
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")");
  if (error == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

absl::Status ToStatus(cublasStatus_t result, absl::string_view call) {
  if (result == CUBLAS_STATUS_SUCCESS) return ToStatus(cudaSuccess, call);
  // What the device itself reports says more.
  const cudaError_t error = cudaPeekAtLastError();
  if (IsSticky(error)) return ToStatus(error, call);
  static_cast<void>(cudaGetLastError());
  const std::string text = absl::StrCat(call, ": ", cublasGetStatusString(result));
  if (result == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
  return absl::InternalError(text);
}

std::string VersionText(int version) {
  return absl::StrCat(version / 1000, ".", version % 1000 / 10);
}

// Why no device can be opened; OK if the driver and at least one device are there.
absl::Status CheckDriver(int* num_devices) {
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (driver == 0) return absl::UnavailableError("no NVIDIA driver is installed");
  const cudaError_t error = cudaGetDeviceCount(num_devices);
  if (error == cudaSuccess && *num_devices > 0) return absl::OkStatus();
  static_cast<void>(cudaGetLastError());
  if (error == cudaErrorInsufficientDriver) {
    return absl::UnavailableError(absl::StrCat("the NVIDIA driver is too old: it supports CUDA ",
                                               VersionText(driver), ", this program needs ",
                                               VersionText(CUDART_VERSION)));
  }
  if (error == cudaSuccess || error == cudaErrorNoDevice) {
    return absl::UnavailableError("the NVIDIA driver finds no device");
  }
  return absl::UnavailableError(absl::StrCat("cudaGetDeviceCount: ", cudaGetErrorString(error)));
}

absl::StatusOr<DeviceTraits> ReadTraits(int ordinal) {
  auto properties = std::make_unique<cudaDeviceProp>();
  absl::Status status =
      ToStatus(cudaGetDeviceProperties(properties.get(), ordinal), "cudaGetDeviceProperties");
  if (!status.ok()) return status;
  DeviceTraits traits;
  traits.ordinal = ordinal;
  traits.name = properties->name;
  traits.compute_major = properties->major;
  traits.compute_minor = properties->minor;
  traits.num_processors = properties->multiProcessorCount;
  traits.shared_bytes = static_cast<int64_t>(properties->sharedMemPerBlockOptin);
  traits.l2_bytes = properties->l2CacheSize;
  traits.total_bytes = static_cast<int64_t>(properties->totalGlobalMem);
  return traits;
}

absl::Status NeedProducts(Stream* stream) {
  if (stream->products != nullptr) return absl::OkStatus();
  cublasHandle_t products = nullptr;
  absl::Status status = ToStatus(cublasCreate(&products), "cublasCreate");
  if (!status.ok()) return status;
  stream->products = products;
  status = ToStatus(cublasSetStream(products, stream->stream), "cublasSetStream");
  if (!status.ok()) return status;
  const auto mode = static_cast<cublasMath_t>(CUBLAS_DEFAULT_MATH |
                                              CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  return ToStatus(cublasSetMathMode(products, mode), "cublasSetMathMode");
}

// More than 48 KB of dynamic shared memory has to be asked for, once for each kernel.
absl::Status RaiseSharedBytes(const KernelCall& call, Stream* stream) {
  constexpr uint32_t kFree = 48 * 1024;
  const uint32_t bytes = call.options.shared_bytes;
  if (bytes <= kFree) return absl::OkStatus();
  uint32_t& raised = stream->raised_shared_bytes[call.kernel];
  if (bytes <= raised) return absl::OkStatus();
  const cudaError_t error = cudaFuncSetAttribute(
      call.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess) raised = bytes;
  return ToStatus(error, "cudaFuncSetAttribute");
}

dim3 ToDim3(const Dim3& dim) { return dim3(dim.x, dim.y, dim.z); }

}  // namespace

// --- devices ---

int CountDevices() {
  int count = 0;
  return CheckDriver(&count).ok() ? count : 0;
}

absl::StatusOr<DeviceTraits> OpenDevice(int ordinal) {
  constexpr int kOldestMajor = 8;
  int count = 0;
  if (const absl::Status status = CheckDriver(&count); !status.ok()) return status;
  if (ordinal < 0 || ordinal >= count) {
    return absl::UnavailableError(
        absl::StrCat("there is no CUDA device ", ordinal, "; found ", count));
  }
  const cudaError_t error = cudaSetDevice(ordinal);
  if (error == cudaErrorDevicesUnavailable) {
    static_cast<void>(cudaGetLastError());
    return absl::UnavailableError(
        absl::StrCat("CUDA device ", ordinal, " is taken: ", cudaGetErrorString(error)));
  }
  if (const absl::Status status = ToStatus(error, "cudaSetDevice"); !status.ok()) return status;
  absl::StatusOr<DeviceTraits> traits = ReadTraits(ordinal);
  if (traits.ok() && traits->compute_major < kOldestMajor) {
    return absl::UnavailableError(absl::StrCat("CUDA device ", ordinal, " (", traits->name,
                                               ") has compute capability ", traits->compute_major,
                                               ".", traits->compute_minor, ", the kernels need ",
                                               kOldestMajor, ".0"));
  }
  return traits;
}

absl::Status UseDevice(int ordinal) { return ToStatus(cudaSetDevice(ordinal), "cudaSetDevice"); }

absl::Status MemoryInfo(int64_t* free_bytes, int64_t* total_bytes) {
  size_t free_now = 0;
  size_t total = 0;
  const absl::Status status = ToStatus(cudaMemGetInfo(&free_now, &total), "cudaMemGetInfo");
  *free_bytes = static_cast<int64_t>(free_now);
  *total_bytes = static_cast<int64_t>(total);
  return status;
}

bool IsLost() { return lost; }

// --- memory ---

absl::StatusOr<void*> Malloc(int64_t bytes) {
  void* pointer = nullptr;
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  const absl::Status status = ToStatus(cudaMalloc(&pointer, size), "cudaMalloc");
  if (!status.ok()) return status;
  return pointer;
}

void Free(void* device) { static_cast<void>(ToStatus(cudaFree(device), "cudaFree")); }

absl::StatusOr<void*> MallocHost(int64_t bytes) {
  void* pointer = nullptr;
  const size_t size = static_cast<size_t>(std::max<int64_t>(bytes, 1));
  const absl::Status status =
      ToStatus(cudaHostAlloc(&pointer, size, cudaHostAllocDefault), "cudaHostAlloc");
  if (!status.ok()) return status;
  std::memset(pointer, 0, size);
  return pointer;
}

void FreeHost(void* host) { static_cast<void>(ToStatus(cudaFreeHost(host), "cudaFreeHost")); }

// --- streams and events ---

absl::StatusOr<Stream*> MakeStream() {
  int device = 0;
  int major = 0;
  absl::Status status = ToStatus(cudaGetDevice(&device), "cudaGetDevice");
  if (!status.ok()) return status;
  status = ToStatus(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
                    "cudaDeviceGetAttribute");
  if (!status.ok()) return status;
  auto stream = std::make_unique<Stream>();
  stream->launches_early = major >= 9;
  status = ToStatus(cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking),
                    "cudaStreamCreateWithFlags");
  if (!status.ok()) return status;
  return stream.release();
}

void Destroy(Stream* stream) {
  if (stream == nullptr) return;
  if (stream->products != nullptr) {
    static_cast<void>(ToStatus(cublasDestroy(stream->products), "cublasDestroy"));
  }
  static_cast<void>(ToStatus(cudaStreamDestroy(stream->stream), "cudaStreamDestroy"));
  delete stream;
}

void* NativeStream(Stream* stream) { return stream->stream; }

absl::Status Synchronize(Stream* stream) {
  return ToStatus(cudaStreamSynchronize(stream->stream), "cudaStreamSynchronize");
}

absl::StatusOr<Event*> MakeEvent() {
  auto event = std::make_unique<Event>();
  const absl::Status status = ToStatus(cudaEventCreate(&event->event), "cudaEventCreate");
  if (!status.ok()) return status;
  return event.release();
}

void Destroy(Event* event) {
  if (event == nullptr) return;
  static_cast<void>(ToStatus(cudaEventDestroy(event->event), "cudaEventDestroy"));
  delete event;
}

absl::Status Record(Event* event, Stream* stream) {
  return ToStatus(cudaEventRecord(event->event, stream->stream), "cudaEventRecord");
}

absl::Status Wait(Stream* stream, Event* event) {
  return ToStatus(cudaStreamWaitEvent(stream->stream, event->event, 0), "cudaStreamWaitEvent");
}

absl::StatusOr<double> ElapsedMs(Event* begin, Event* end) {
  float ms = 0;
  const absl::Status status =
      ToStatus(cudaEventElapsedTime(&ms, begin->event, end->event), "cudaEventElapsedTime");
  if (!status.ok()) return status;
  return static_cast<double>(ms);
}

// --- work ---

absl::Status Copy(void* to, const void* from, int64_t bytes, Stream* stream) {
  if (bytes == 0) return absl::OkStatus();
  return ToStatus(
      cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream->stream),
      "cudaMemcpyAsync");
}

absl::Status Fill(void* device, uint8_t value, int64_t bytes, Stream* stream) {
  if (bytes == 0) return absl::OkStatus();
  return ToStatus(cudaMemsetAsync(device, value, static_cast<size_t>(bytes), stream->stream),
                  "cudaMemsetAsync");
}

absl::Status IssueKernel(const KernelCall& call, void* const* args, const size_t* /*sizes*/,
                         size_t /*num_args*/, Stream* stream) {
  if (const absl::Status status = RaiseSharedBytes(call, stream); !status.ok()) return status;
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = ToDim3(call.grid);
  config.blockDim = ToDim3(call.block);
  config.dynamicSmemBytes = call.options.shared_bytes;
  config.stream = stream->stream;
  config.attrs = &early;
  config.numAttrs = call.options.dependent && stream->launches_early ? 1 : 0;
  return ToStatus(cudaLaunchKernelExC(&config, call.kernel, const_cast<void**>(args)),
                  "cudaLaunchKernelExC");
}

absl::Status UseGemmWorkspace(Stream* stream, void* device, int64_t bytes) {
  if (const absl::Status status = NeedProducts(stream); !status.ok()) return status;
  return ToStatus(cublasSetWorkspace(stream->products, device, static_cast<size_t>(bytes)),
                  "cublasSetWorkspace");
}

// cuBLAS counts columns first: outᵀ[N,M] = w[N,K] · xᵀ[K,M], where what lies there as w[N,K] by
// rows is wᵀ by columns.
absl::Status IssueGemm(const GemmCall& call, Stream* stream) {
  struct Types {
    cudaDataType_t operand;
    cudaDataType_t out;
    cublasComputeType_t compute;
  };
  constexpr Types kTypes[] = {{CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                              {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F},
                              {CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I},
                              {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F}};
  if (const absl::Status status = NeedProducts(stream); !status.ok()) return status;
  const Types& types = kTypes[static_cast<uint32_t>(call.type)];
  const bool whole = call.type == GemmCall::Type::kInt8;
  const float one = 1;
  const float add = call.accumulate ? 1 : 0;
  const int32_t whole_one = 1;
  const int32_t whole_add = call.accumulate ? 1 : 0;
  const void* const alpha = whole ? static_cast<const void*>(&whole_one) : &one;
  const void* const beta = whole ? static_cast<const void*>(&whole_add) : &add;
  return ToStatus(cublasGemmEx_64(stream->products, CUBLAS_OP_T, CUBLAS_OP_N, call.n, call.m,
                                  call.k, alpha, call.w, types.operand, call.w_stride, call.x,
                                  types.operand, call.x_stride, beta, call.out, types.out,
                                  call.out_stride, types.compute, CUBLAS_GEMM_DEFAULT),
                  "cublasGemmEx");
}

// --- graphs ---

absl::Status BeginCapture(Stream* stream) {
  return ToStatus(cudaStreamBeginCapture(stream->stream, cudaStreamCaptureModeThreadLocal),
                  "cudaStreamBeginCapture");
}

absl::StatusOr<Graph*> EndCapture(Stream* stream) {
  cudaGraph_t recorded = nullptr;
  absl::Status status =
      ToStatus(cudaStreamEndCapture(stream->stream, &recorded), "cudaStreamEndCapture");
  if (!status.ok()) return status;
  auto graph = std::make_unique<Graph>();
  status = ToStatus(cudaGraphInstantiate(&graph->graph, recorded, 0), "cudaGraphInstantiate");
  static_cast<void>(cudaGraphDestroy(recorded));
  if (!status.ok()) return status;
  status = ToStatus(cudaGraphUpload(graph->graph, stream->stream), "cudaGraphUpload");
  if (!status.ok()) {
    Destroy(graph.release());
    return status;
  }
  return graph.release();
}

absl::Status IssueGraph(Graph* graph, Stream* stream) {
  return ToStatus(cudaGraphLaunch(graph->graph, stream->stream), "cudaGraphLaunch");
}

void Destroy(Graph* graph) {
  if (graph == nullptr) return;
  static_cast<void>(ToStatus(cudaGraphExecDestroy(graph->graph), "cudaGraphExecDestroy"));
  delete graph;
}

}  // namespace nibble::cuda
