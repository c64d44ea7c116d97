// Making the backend, its memory, and the way to it. Operations: cuda_operations.cc.
#include "kernels/cuda/cuda_backend.h"

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_set.h"
#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/four_bit_layout.h"
#include "kernels/cuda/sampling.h"

namespace nibble::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kLeastCompute = 8;  // cp.async, mma.sync m16n8k16 and bf16
constexpr int64_t kAlignment = 256;
constexpr int64_t kCounterBytes = RoundUp(kMatMulZeroedBytes, kAlignment);

absl::StatusOr<int> OrdinalOf(const std::string& device) {
  int ordinal = -1;
  if (device.starts_with("cuda:") && absl::SimpleAtoi(device.substr(5), &ordinal) && ordinal >= 0) {
    return ordinal;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device: got \"", device, "\", want cuda:<number>"));
}

absl::Status CheckOptions(const BackendOptions& options) {
  if (options.compute == Compute::kInt8) {
    return absl::UnimplementedError(
        "compute: int8 is not in this version; want auto, bf16 or fp32");
  }
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: got ", options.num_threads, ", want 0 (automatic) … ", kMaxThreads));
  }
  return absl::OkStatus();
}

absl::StatusOr<DeviceTraits> Open(const std::string& device) {
  const absl::StatusOr<int> ordinal = OrdinalOf(device);
  if (!ordinal.ok()) return ordinal.status();
  const int count = CountDevices();
  if (count > 0 && *ordinal >= count) {
    return absl::InvalidArgumentError(absl::StrCat("device: got \"", device, "\", but there ",
                                                   count == 1 ? "is " : "are ", count,
                                                   count == 1 ? " GPU" : " GPUs"));
  }
  absl::StatusOr<DeviceTraits> traits = OpenDevice(*ordinal);
  if (!traits.ok()) return traits.status();
  if (traits->compute_major < kLeastCompute) {
    return absl::UnavailableError(absl::StrCat(
        "device: ", device, " is ", traits->name, " of compute capability ", traits->compute_major,
        ".", traits->compute_minor, ", want at least ", kLeastCompute, ".0"));
  }
  return traits;
}

void FreeBuffer(void* data, int64_t /*bytes*/) { Free(data); }

}  // namespace

absl::StatusOr<std::unique_ptr<CudaBackend>> CudaBackend::Make(const BackendOptions& options,
                                                               const OwnSizes& sizes) {
  if (absl::Status status = CheckOptions(options); !status.ok()) return status;
  absl::StatusOr<DeviceTraits> traits = Open(options.device);
  if (!traits.ok()) return traits.status();
  int64_t free_bytes = 0, total_bytes = 0;
  absl::Status status = MemoryInfo(&free_bytes, &total_bytes);
  if (!status.ok()) return status;
  OwnedStream stream = Own<OwnedStream>(MakeStream(), &status);
  if (!status.ok()) return status;
  absl::StatusOr<OwnBlocks> memory = TakeOwnBlocks(*traits, sizes, stream.get());
  if (!memory.ok()) return memory.status();
  absl::StatusOr<std::unique_ptr<WeightUpload>> upload =
      WeightUpload::Make(traits->ordinal, memory->pieces);
  if (!upload.ok()) return upload.status();
  return std::unique_ptr<CudaBackend>(new CudaBackend(options, *std::move(traits),
                                                      free_bytes / 10 * 9, *std::move(memory),
                                                      std::move(stream), *std::move(upload)));
}

CudaBackend::CudaBackend(const BackendOptions& options, DeviceTraits traits, int64_t device_bytes,
                         OwnBlocks memory, OwnedStream stream, std::unique_ptr<WeightUpload> upload)
    : traits_(std::move(traits)),
      num_threads_(options.num_threads == 0 ? DefaultThreads() : options.num_threads),
      exact_(options.compute == Compute::kFp32),
      device_bytes_(device_bytes),
      memory_(std::move(memory)),
      upload_(std::move(upload)),
      step_(traits_.ordinal, std::move(stream), memory_) {
  matmul_.traits = &traits_;
  matmul_.tables = memory_.tables;
  matmul_.table = &TableFor(traits_.name, 10 * traits_.compute_major + traits_.compute_minor);
  matmul_.exact = exact_;
  matmul_.batch_invariant = options.batch_invariant;
}

std::string CudaBackend::device() const { return absl::StrCat("cuda:", traits_.ordinal); }

std::string CudaBackend::isa() const {
  return absl::StrCat("sm_", traits_.compute_major, traits_.compute_minor);
}

BackendMemory CudaBackend::OwnMemory() const {
  return {.workspace = memory_.device_bytes, .graphs = kGraphReserveBytes};
}

absl::StatusOr<Buffer> CudaBackend::Allocate(int64_t bytes) {
  if (bytes == 0) return Buffer();
  if (absl::Status status = UseDevice(traits_.ordinal); !status.ok()) return status;
  const absl::StatusOr<void*> data = Malloc(bytes);
  if (!data.ok()) {
    if (!absl::IsResourceExhausted(data.status())) return data.status();
    int64_t free_bytes = 0, total_bytes = 0;
    MemoryInfo(&free_bytes, &total_bytes).IgnoreError();
    return absl::ResourceExhaustedError(absl::StrCat(device(), " memory: cannot allocate ", bytes,
                                                     " bytes: ", free_bytes, " of ", total_bytes,
                                                     " are free"));
  }
  Buffer buffer(*data, bytes, FreeBuffer);
  if (absl::Status status = upload_->Zero(*data, bytes); !status.ok()) return status;
  step_.ForgetGraphs();  // they may speak of memory that is gone
  return buffer;
}

absl::Status CudaBackend::CheckLimits(const BackendLimits& limits) const {
  const auto check = [&](const char* what, int64_t got, int64_t most) {
    if (got <= most) return absl::OkStatus();
    return absl::UnimplementedError(
        absl::StrCat(what, ": got ", got, ", want at most ", most, " on a GPU"));
  };
  absl::Status status = check("head_dim", limits.max_head_dim, kMaxHeadDim);
  if (status.ok()) status = check("vocabulary", limits.max_vocab, kMaxVocab);
  return status;
}

// MatMul's part begins with counters that nobody else may write; the rest is anybody's, one
// operation after the other.
int64_t CudaBackend::ScratchBytes(const BackendLimits& limits) const {
  const int64_t shared = std::max(AttentionScratchBytes(limits.max_rows, limits.max_context,
                                                        limits.max_heads, limits.max_head_dim),
                                  SamplingScratchBytes(limits.max_samples, limits.max_vocab));
  // The model's own alignment is smaller.
  return kAlignment + std::max(MatMulScratchBytes(traits_, limits, exact_), kCounterBytes + shared);
}

void CudaBackend::UseScratch(void* scratch, int64_t bytes, const BackendLimits& limits) {
  const auto address = static_cast<int64_t>(reinterpret_cast<uintptr_t>(scratch));
  const int64_t skipped = RoundUp(address, kAlignment) - address;
  matmul_.scratch = static_cast<char*>(scratch) + skipped;
  matmul_.scratch_bytes = std::max<int64_t>(bytes - skipped, 0);
  limits_ = limits;
}

char* CudaBackend::SharedScratch() const { return matmul_.scratch + kCounterBytes; }

PackedSize CudaBackend::PackedBytes(const WeightSpec& spec) const {
  return IsFourBit(spec.format) ? FourBitPackedBytes(spec) : DensePackedBytes(spec);
}

absl::Status CudaBackend::PackFourBit(const FourBitMatrix& matrix, Weight* weight) {
  return upload_->PackFourBit(matrix, weight);
}

absl::Status CudaBackend::PackInt8(const Int8Matrix& matrix, Weight* weight) {
  return upload_->PackInt8(matrix, weight);
}

absl::Status CudaBackend::Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                                 Weight* weight) {
  return upload_->Pack16(first_row, count, values, weight);
}

absl::Status CudaBackend::CopyToDevice(void* device, const void* host, int64_t bytes) {
  return upload_->Copy(device, host, bytes);
}

void CudaBackend::CopyToHost(void* host, const void* device, int64_t bytes) {
  step_.CopyToHost(host, device, bytes);
}

absl::Status CudaBackend::Finish() {
  absl::Status status = step_.Finish();
  // A product that was broken off has left its counters anywhere.
  if (!status.ok() && matmul_.scratch != nullptr) {
    upload_->Zero(matmul_.scratch, kMatMulZeroedBytes).IgnoreError();
  }
  return status;
}

}  // namespace nibble::cuda

namespace nibble {

absl::StatusOr<std::unique_ptr<Backend>> MakeCudaBackend(const BackendOptions& options) {
  return cuda::CudaBackend::Make(options);
}

}  // namespace nibble
