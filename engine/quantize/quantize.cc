// One tensor after the other in the source's order; a matrix's slices on several threads.
#include "engine/quantize/quantize.h"

#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <span>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/loader/checkpoint.h"
#include "engine/loader/errors.h"
#include "engine/loader/expected_tensors.h"
#include "engine/loader/mapped_file.h"
#include "engine/loader/weight_values.h"
#include "engine/quantize/bitsandbytes_writer.h"
#include "engine/quantize/model_files.h"
#include "engine/quantize/shard_writer.h"
#include "engine/status.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"
#include "kernels/int8.h"

namespace nibble {
namespace {

constexpr int64_t kSliceValues = 1 << 18;

absl::Status BadOption(const char* field, const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, "OPTION_OUT_OF_RANGE", message, field);
}

// Rows of a tensor, in slices of whole `unit` rows, on several threads. The first error of the
// lowest slice wins, so that a run always tells of the same one.
absl::Status EachSlice(
    const TensorRef& tensor, int64_t unit, int num_threads,
    const std::function<absl::Status(int64_t row, int64_t rows, std::span<float> scratch)>& work) {
  const int64_t cols = tensor.cols();
  const int64_t slice_rows =
      std::min(tensor.rows(), std::max<int64_t>(kSliceValues / cols / unit, 1) * unit);
  const int64_t slices = (tensor.rows() + slice_rows - 1) / slice_rows;
  std::atomic<int64_t> next = 0;
  std::atomic<int64_t> end = slices;  // no slice from here on matters
  std::mutex mutex;
  absl::Status status;
  const auto run = [&] {
    std::vector<float> scratch(static_cast<size_t>(slice_rows * cols));
    for (int64_t slice = next++; slice < end; slice = next++) {
      const int64_t row = slice * slice_rows;
      const int64_t rows = std::min(slice_rows, tensor.rows() - row);
      absl::Status done = work(row, rows, scratch);
      if (done.ok()) continue;
      const std::lock_guard lock(mutex);
      if (slice >= end) continue;
      end = slice;
      status = std::move(done);
    }
  };
  const int64_t helpers = std::clamp<int64_t>(num_threads, 1, slices) - 1;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(helpers));
  for (int64_t i = 0; i < helpers; ++i) threads.emplace_back(run);
  run();
  for (std::thread& thread : threads) thread.join();
  return status;
}

// The two names of the work under way.
std::string PartialOf(const std::string& destination) { return destination + ".partial"; }

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

class Quantization {
 public:
  Quantization(const Checkpoint& checkpoint, const QuantizeOptions& options)
      : checkpoint_(checkpoint), options_(options) {
    for (const ExpectedTensor& expected : ExpectedTensors(checkpoint.config())) {
      if (expected.multiplied) multiplied_.insert(expected.name);
    }
    for (const auto* tensors : {&checkpoint.tensors(), &checkpoint.others()}) {
      for (const TensorRef& tensor : *tensors) {
        tensors_.push_back(&tensor);
        source_is_quantized_ = source_is_quantized_ || IsBitsAndBytes(tensor.type);
      }
    }
  }

  absl::Status CheckOptions() const;
  absl::Status Write(const std::string& directory,
                     const std::function<void(int64_t, int64_t)>& progress,
                     QuantizeResult* result) const;

 private:
  bool IsSkipped(const TensorRef& tensor) const;
  bool IsQuantized(const TensorRef& tensor) const {
    if (source_is_quantized_) return IsBitsAndBytes(tensor.type);  // the rest was skipped then
    return multiplied_.contains(tensor.name) && !IsSkipped(tensor);
  }
  bool FromGguf() const { return checkpoint_.config_source() != "config.json"; }
  DType SixteenBitType() const {
    return checkpoint_.config().dtype == DType::kBF16 ? DType::kBF16 : DType::kF16;
  }
  std::string Identity() const;
  absl::Status WriteTensor(const TensorRef& tensor, ShardWriter* writer) const;
  absl::Status WriteMatrix(const TensorRef& tensor, ShardWriter* writer) const;
  absl::Status WritePlain(const TensorRef& tensor, ShardWriter* writer) const;
  absl::Status WriteRounded(const TensorRef& tensor, ShardWriter* writer) const;
  WeightSpec SpecOf(const TensorRef& tensor) const;
  DType SourceType(const TensorRef& tensor) const;
  QuantizationText Config(std::vector<std::string>* modules) const;

  const Checkpoint& checkpoint_;
  const QuantizeOptions& options_;
  std::set<std::string> multiplied_;       // names of linear layers' matrices
  std::vector<const TensorRef*> tensors_;  // everything that is written, in this order
  bool source_is_quantized_ = false;
};

absl::Status Quantization::CheckOptions() const {
  if (IsSixteenBit(options_.format)) {
    return BadOption(
        "type", absl::StrCat("type is ", Name(options_.format), ", it may be nf4, fp4 or int8"));
  }
  if (!IsAllowedGroupSize(options_.group_size)) {
    return BadOption("group_size",
                     absl::StrCat("group_size is ", options_.group_size,
                                  ", it may be 32, 64, 128, 256, 512, 1024, 2048 or 4096"));
  }
  if (options_.scale_search && options_.format == WeightFormat::kInt8) {
    return BadOption("scale_search", "scale_search is for nf4 and fp4");
  }
  for (const TensorRef& tensor : checkpoint_.tensors()) {
    if (!IsBitsAndBytes(tensor.type) || FormatOf(tensor.type) == options_.format) continue;
    return BadOption("type", absl::StrCat("type is ", Name(options_.format), ", ", tensor.file,
                                          " is quantized already, to ", Name(tensor.type)));
  }
  return absl::OkStatus();
}

bool Quantization::IsSkipped(const TensorRef& tensor) const {
  return std::any_of(options_.skip_modules.begin(), options_.skip_modules.end(),
                     [&](const std::string& module) { return IsPartOf(module, tensor.name); });
}

// One line that two runs share if and only if they would write the same files.
std::string Quantization::Identity() const {
  std::string identity = absl::StrCat(Name(options_.format), " groups ", options_.group_size,
                                      " double_quant ", options_.double_quant, " scale_search ",
                                      options_.scale_search, " shards ", options_.max_shard_bytes,
                                      " skip ", absl::StrJoin(options_.skip_modules, ","), " from");
  for (const std::string& file : checkpoint_.FileStamps()) absl::StrAppend(&identity, " ", file);
  return identity;
}

WeightSpec Quantization::SpecOf(const TensorRef& tensor) const {
  WeightSpec spec;
  spec.format = options_.format;
  spec.n = tensor.rows();
  spec.k = tensor.cols();
  spec.group_size = tensor.quantized ? tensor.quantized->group_size : options_.group_size;
  spec.double_quant = tensor.quantized ? tensor.quantized->double_quant : options_.double_quant;
  return spec;
}

DType Quantization::SourceType(const TensorRef& tensor) const {
  switch (tensor.type) {
    case TensorType::kBF16:
      return DType::kBF16;
    case TensorType::kF32:
      return DType::kF32;
    default:
      return DType::kF16;
  }
}

absl::Status Quantization::WriteMatrix(const TensorRef& tensor, ShardWriter* writer) const {
  if (tensor.quantized != nullptr && tensor.type == TensorType::kINT8) {
    return WriteInt8(tensor.name, ReadInt8(tensor), writer);
  }
  if (tensor.quantized != nullptr) {
    return WriteFourBit(tensor.name, ReadFourBit(tensor), tensor.quantized->source_dtype, writer);
  }
  const WeightSpec spec = SpecOf(tensor);
  if (spec.format == WeightFormat::kInt8) {
    Int8Matrix matrix = MakeInt8Matrix(spec.n, spec.k);
    absl::Status status = EachSlice(tensor, 1, options_.num_threads,
                                    [&](int64_t row, int64_t rows, std::span<float> scratch) {
                                      return QuantizeRows(tensor, row, rows, scratch, &matrix);
                                    });
    return status.ok() ? WriteInt8(tensor.name, matrix, writer) : status;
  }
  FourBitQuantizer quantizer(spec.n, spec.k,
                             {.format = spec.format,
                              .group_size = spec.group_size,
                              .double_quant = spec.double_quant,
                              .scale_search = options_.scale_search});
  const int64_t unit = spec.group_size / std::gcd<int64_t>(spec.group_size, spec.k);
  absl::Status status = EachSlice(tensor, unit, options_.num_threads,
                                  [&](int64_t row, int64_t rows, std::span<float> scratch) {
                                    return QuantizeRows(tensor, row, rows, scratch, &quantizer);
                                  });
  if (!status.ok()) return status;
  return WriteFourBit(tensor.name, quantizer.Finish(), SourceType(tensor), writer);
}

// As the file has it.
absl::Status Quantization::WritePlain(const TensorRef& tensor, ShardWriter* writer) const {
  absl::Status status =
      writer->AddEntry(tensor.name, Name(tensor.type), tensor.shape, tensor.bytes);
  constexpr int64_t kPiece = 16 << 20;
  for (int64_t done = 0; done < tensor.bytes && status.ok(); done += kPiece) {
    const int64_t size = std::min(kPiece, tensor.bytes - done);
    status = writer->Write({tensor.data + done, static_cast<size_t>(size)});
  }
  return status;
}

// In the model's 16-bit type; bf16 where a value is too large for fp16.
absl::Status Quantization::WriteRounded(const TensorRef& tensor, ShardWriter* writer) const {
  std::atomic<uint32_t> largest = 0;
  absl::Status status = EachSlice(
      tensor, 1, options_.num_threads, [&](int64_t row, int64_t rows, std::span<float> scratch) {
        const auto values = scratch.first(static_cast<size_t>(rows * tensor.cols()));
        ReadRows(tensor, row, rows, values);
        const uint32_t bits = LargestMagnitudeBits(values);
        if (bits >= kRoundsToBf16InfBits) {
          return NotFinite(tensor, row, values, kRoundsToBf16InfBits);
        }
        uint32_t seen = largest;
        while (seen < bits && !largest.compare_exchange_weak(seen, bits)) {
        }
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  const DType dtype = largest > kLargestF16Bits ? DType::kBF16 : SixteenBitType();
  status = writer->AddEntry(tensor.name, dtype == DType::kBF16 ? "BF16" : "F16", tensor.shape,
                            tensor.NumValues() * 2);
  std::vector<uint16_t> halves;
  const auto write = [&](int64_t row, int64_t rows, std::span<float> scratch) {
    const auto values = scratch.first(static_cast<size_t>(rows * tensor.cols()));
    ReadRows(tensor, row, rows, values);
    halves.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToHalf(dtype, values[i]);
    return writer->Write({reinterpret_cast<const uint8_t*>(halves.data()), halves.size() * 2});
  };
  constexpr int kInOrder = 1;
  return status.ok() ? EachSlice(tensor, 1, kInOrder, write) : status;
}

absl::Status Quantization::WriteTensor(const TensorRef& tensor, ShardWriter* writer) const {
  if (IsQuantized(tensor)) return WriteMatrix(tensor, writer);
  // All of one type, or transformers could not add them up: a directory's are, a GGUF's are not.
  const TensorType sixteen =
      SixteenBitType() == DType::kBF16 ? TensorType::kBF16 : TensorType::kF16;
  const bool as_it_is = !FromGguf() || tensor.type == sixteen;
  return as_it_is && tensor.permuted_head_rows == 0 ? WritePlain(tensor, writer)
                                                    : WriteRounded(tensor, writer);
}

// Modules with a linear layer that stays in 16 bits: what transformers must not replace.
QuantizationText Quantization::Config(std::vector<std::string>* modules) const {
  std::set<std::string> skipped = {"lm_head"};
  if (checkpoint_.config().architecture == Architecture::kBert) skipped.insert("pooler");
  for (const TensorRef* tensor : tensors_) {
    if (IsQuantized(*tensor) && IsPartOf("pooler", tensor->name)) skipped.erase("pooler");
    if (!multiplied_.contains(tensor->name) || IsQuantized(*tensor)) continue;
    skipped.insert(tensor->name.substr(0, tensor->name.rfind('.')));
  }
  modules->assign(skipped.begin(), skipped.end());
  QuantizationText text;
  text.format = options_.format;
  text.double_quant = options_.double_quant;
  text.compute = FromGguf() ? SixteenBitType() : checkpoint_.config().dtype;
  for (const TensorRef& tensor : checkpoint_.tensors()) {
    if (tensor.quantized != nullptr) text.double_quant = tensor.quantized->double_quant;
  }
  text.skip_modules = *modules;
  return text;
}

absl::Status Quantization::Write(const std::string& directory,
                                 const std::function<void(int64_t, int64_t)>& progress,
                                 QuantizeResult* result) const {
  ShardOptions shards;
  shards.identity = Identity();
  shards.max_shard_bytes = options_.max_shard_bytes;
  shards.commit_bytes = options_.commit_bytes;
  shards.header_bytes = 64;
  for (const TensorRef* tensor : tensors_) {
    result->source_bytes += tensor->bytes;
    shards.header_bytes +=
        IsQuantized(*tensor) ? QuantizedHeaderBytes(tensor->name) : HeaderBytes(tensor->name);
  }
  shards.header_bytes = (shards.header_bytes + 7) / 8 * 8;
  absl::StatusOr<std::unique_ptr<ShardWriter>> writer = ShardWriter::Open(directory, shards);
  if (!writer.ok()) return writer.status();
  result->tensors_taken_up = (*writer)->units_taken_up();
  int64_t done = 0;
  for (const TensorRef* one : tensors_) {
    const TensorRef& tensor = *one;
    if (IsQuantized(tensor)) ++result->matrices;
    if (!(*writer)->Has(tensor.name)) {
      const int64_t bytes =
          IsQuantized(tensor) ? QuantizedDataBytes(SpecOf(tensor)) : tensor.NumValues() * 4;
      absl::Status status = (*writer)->Begin(bytes);
      if (status.ok()) status = WriteTensor(tensor, writer->get());
      if (status.ok()) status = (*writer)->End(tensor.name);
      if (!status.ok()) return status;
    }
    done += tensor.bytes;
    progress(done, result->source_bytes);
  }
  if (absl::Status status = checkpoint_.CheckUnchanged(); !status.ok()) return status;
  std::vector<std::string> modules;
  const absl::Status status = WriteModelFiles(checkpoint_, Config(&modules), directory);
  return status.ok() ? (*writer)->Finish() : status;
}

// Removes a directory of ours unless told otherwise.
class Scaffold {
 public:
  explicit Scaffold(std::string path) : path_(std::move(path)) {}
  ~Scaffold() {
    std::error_code ignored;
    if (ours_) std::filesystem::remove_all(path_, ignored);
  }
  void set_ours(bool ours) { ours_ = ours; }

 private:
  const std::string path_;
  bool ours_ = false;
};

int64_t BytesOfTensors(const std::string& directory) {
  int64_t bytes = 0;
  std::error_code ignored;
  for (const auto& file : std::filesystem::directory_iterator(directory, ignored)) {
    if (file.path().extension() == ".safetensors") {
      bytes += static_cast<int64_t>(file.file_size(ignored));
    }
  }
  return bytes;
}

}  // namespace

absl::StatusOr<QuantizeResult> QuantizeCheckpoint(
    const std::string& source, const std::string& destination, const QuantizeOptions& options,
    const std::function<void(int64_t, int64_t)>& progress) {
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(source);
  if (!checkpoint.ok()) return checkpoint.status();
  const Quantization quantization(**checkpoint, options);
  if (absl::Status status = quantization.CheckOptions(); !status.ok()) return status;

  const std::string target = WithoutSlashes(destination);
  if (target.empty() || PathExists(target)) {
    return Error(absl::StatusCode::kAlreadyExists, "DESTINATION_EXISTS",
                 absl::StrCat(BaseName(target), " is there already; nothing is overwritten"));
  }
  const std::string partial = PartialOf(target);
  if (mkdir(partial.c_str(), 0777) != 0 && errno != EEXIST) {
    return SystemError(BaseName(partial), errno);
  }
  QuantizeResult result;
  Scaffold scaffold(partial);
  const absl::Status written = quantization.Write(partial, progress, &result);
  scaffold.set_ours(!written.ok() && ReasonOf(written) != "PARTIAL_NOT_OURS");
  if (!written.ok()) return written;
  if (std::rename(partial.c_str(), target.c_str()) != 0)
    return SystemError(BaseName(target), errno);
  result.destination_bytes = BytesOfTensors(target);
  return result;
}

}  // namespace nibble
