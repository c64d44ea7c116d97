// A list of tasks, as many threads as the backend computes with, and a bound on what is in flight.
#include "engine/model/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "engine/loader/weight_values.h"
#include "engine/status.h"
#include "kernels/four_bit.h"
#include "kernels/half.h"

namespace nibble {
namespace {

constexpr int64_t kSliceValues = 1 << 16;  // 256 KiB in fp32: stays in a core's cache
constexpr int64_t kTaskValues = 1 << 22;   // of a 16-bit matrix
constexpr int64_t kSlackBytes = 32 << 20;
constexpr std::chrono::milliseconds kPollInterval{100};  // for cancellation

// Rows of one matrix, done by one thread. Quantized matrices are one task each.
struct Task {
  PlacedMatrix* matrix = nullptr;
  int64_t first_row = 0;
  int64_t num_rows = 0;
  int64_t slice_rows = 0;       // rows read at a time
  int64_t temporary_bytes = 0;  // what doing it takes
  int64_t file_bytes = 0;       // progress made by it
};

// Rows per slice: about kSliceValues values, a multiple of `unit` rows.
int64_t SliceRows(int64_t rows, int64_t cols, int64_t unit) {
  return std::min(rows, std::max<int64_t>(kSliceValues / cols / unit, 1) * unit);
}

DType HalfType(WeightFormat format) {
  return format == WeightFormat::kBf16 ? DType::kBF16 : DType::kF16;
}

// What a quantized matrix takes outside the device: codes, fp32 scales and their 8-bit codes.
int64_t QuantizedBytes(const WeightSpec& spec) {
  const int64_t values = spec.n * spec.k;
  if (spec.format == WeightFormat::kInt8) return values + spec.n * 4;
  return values / 2 + (values / spec.group_size + 1) * 5;
}

Task QuantizeTask(PlacedMatrix* matrix) {
  const WeightSpec& spec = matrix->weight.spec;
  int64_t held = QuantizedBytes(spec);
  if (IsBitsAndBytes(matrix->tensor->type)) {
    return {matrix, 0, spec.n, spec.n, held, matrix->tensor->bytes};
  }
  // The fewest rows that are whole groups; every row of INT8 is one.
  const int64_t unit =
      IsFourBit(spec.format) ? spec.group_size / std::gcd<int64_t>(spec.group_size, spec.k) : 1;
  const int64_t slice_rows = SliceRows(spec.n, spec.k, unit);
  return {matrix, 0, spec.n, slice_rows, held + slice_rows * spec.k * 4, matrix->tensor->bytes};
}

void AddRoundTasks(PlacedMatrix* matrix, std::vector<Task>* tasks) {
  constexpr int64_t kUnit = 64;  // whole panels of any backend
  const WeightSpec& spec = matrix->weight.spec;
  const int64_t rows = std::max<int64_t>(kTaskValues / spec.k / kUnit, 1) * kUnit;
  for (int64_t first = 0; first < spec.n; first += rows) {
    const int64_t count = std::min(rows, spec.n - first);
    const int64_t slice_rows = SliceRows(count, spec.k, kUnit);
    const int64_t file_bytes = matrix->tensor->bytes / spec.n * count;
    tasks->push_back({matrix, first, count, slice_rows, slice_rows * spec.k * 6, file_bytes});
  }
}

// Thread rule: Run is called once, on one thread; everything shared is under the mutex.
class WeightLoader {
 public:
  WeightLoader(Inventory* inventory, Backend* backend, ReadAhead* ahead,
               const std::function<void(const LoadProgress&)>& progress,
               const std::function<bool()>& cancelled)
      : inventory_(inventory),
        backend_(backend),
        ahead_(ahead),
        progress_(progress),
        cancelled_(cancelled),
        total_bytes_(inventory->CheckpointBytes()) {}

  absl::Status Run() {
    if (absl::Status status = LoadVectors(); !status.ok()) return status;
    std::vector<Task> tasks;
    int64_t largest = 0;
    for (PlacedMatrix& matrix : inventory_->matrices()) {
      const WeightSpec& spec = matrix.weight.spec;
      largest = std::max(largest, spec.n * spec.k * 4);
      if (!IsSixteenBit(spec.format)) {
        tasks.push_back(QuantizeTask(&matrix));
      } else {
        AddRoundTasks(&matrix, &tasks);
      }
    }
    temporary_limit_ = largest + kSlackBytes;
    if (absl::Status status = RunTasks(std::move(tasks)); !status.ok()) return status;
    return RunTasks(WidenedTasks());
  }

 private:
  absl::Status LoadVectors();
  // The tables that turned out not to fit fp16, once more as bf16: the same bytes.
  std::vector<Task> WidenedTasks();
  absl::Status RunTasks(std::vector<Task> tasks);
  void Report();
  void Work();
  bool TakeTask(Task* task);
  bool Over() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return finished_ == tasks_.size() || !status_.ok();
  }
  void Stop(absl::Status why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Do(const Task& task);
  absl::Status Copy(const Task& task);
  // Slice by slice into a FourBitQuantizer or an Int8Matrix.
  template <typename Quantized>
  absl::Status QuantizeSlices(const Task& task, Quantized* quantized);
  absl::Status QuantizeFour(const Task& task);
  absl::Status QuantizeEight(const Task& task);
  absl::Status Round(const Task& task);

  Inventory* const inventory_;
  Backend* const backend_;
  ReadAhead* const ahead_;
  const std::function<void(const LoadProgress&)>& progress_;
  const std::function<bool()>& cancelled_;
  const int64_t total_bytes_;
  int64_t temporary_limit_ = 0;
  std::atomic<bool> stopped_ = false;  // an error or a cancellation: threads leave their task

  std::mutex mutex_;
  std::condition_variable changed_;  // anything under the mutex that someone waits for
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t finished_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t in_flight_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t done_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::set<PlacedMatrix*> too_wide_ ABSL_GUARDED_BY(mutex_);
};

absl::Status WeightLoader::LoadVectors() {
  int64_t done = 0;
  for (const PlacedVector& vector : inventory_->vectors()) {
    std::vector<float> values(static_cast<size_t>(vector.view.length));
    ReadRows(*vector.tensor, 0, vector.view.length, values);
    if (LargestMagnitudeBits(values) >= kInfinityBits) {
      return NotFinite(*vector.tensor, 0, values, kInfinityBits);
    }
    const DType dtype = vector.view.dtype;
    void* device = const_cast<void*>(vector.view.data);
    const void* host = values.data();
    std::vector<uint16_t> halves;
    if (dtype != DType::kF32) {
      halves.resize(values.size());
      for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToHalf(dtype, values[i]);
      host = halves.data();
    }
    absl::Status copied = backend_->CopyToDevice(device, host, vector.view.length * SizeOf(dtype));
    if (!copied.ok()) return copied;
    done += vector.tensor->bytes;
  }
  const std::lock_guard lock(mutex_);
  done_bytes_ = done;
  return absl::OkStatus();
}

std::vector<Task> WeightLoader::WidenedTasks() {
  std::vector<Task> tasks;
  const std::lock_guard lock(mutex_);
  for (PlacedMatrix* matrix : too_wide_) {
    matrix->weight.spec.format = WeightFormat::kBf16;
    AddRoundTasks(matrix, &tasks);
  }
  for (Task& task : tasks) task.file_bytes = 0;  // counted already
  return tasks;
}

absl::Status WeightLoader::RunTasks(std::vector<Task> tasks) {
  if (tasks.empty()) return absl::OkStatus();
  {
    const std::lock_guard lock(mutex_);
    tasks_ = std::move(tasks);
    next_ = finished_ = 0;
  }
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(backend_->num_threads()));
  for (int i = 0; i < backend_->num_threads(); ++i) threads.emplace_back([this] { Work(); });
  Report();
  for (std::thread& thread : threads) thread.join();
  const std::lock_guard lock(mutex_);
  return status_;
}

// Until all is done or something failed: tells how far it is, asks whether to go on.
void WeightLoader::Report() {
  int64_t reported = -1;
  for (bool over = false; !over;) {
    int64_t done = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kPollInterval, [&] { return done_bytes_ != reported || Over(); });
      done = done_bytes_;
      over = Over();
    }
    if (done != reported) progress_({"weights", done, total_bytes_});
    reported = done;
    if (!over && cancelled_()) {
      const std::lock_guard lock(mutex_);
      Stop(Error(absl::StatusCode::kCancelled, "LOAD_CANCELLED", "the load was cancelled"));
      over = true;
    }
  }
}

void WeightLoader::Work() {
  Task task;
  while (TakeTask(&task)) {
    absl::Status status = Do(task);
    const std::lock_guard lock(mutex_);
    in_flight_bytes_ -= task.temporary_bytes;
    done_bytes_ += task.file_bytes;
    ahead_->SetUsed(done_bytes_);
    ++finished_;
    if (!status.ok()) Stop(std::move(status));
    changed_.notify_all();
  }
}

// Waits until the next task's temporary memory fits beside the others'; a lone task always does.
bool WeightLoader::TakeTask(Task* task) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] {
    return stopped_ || next_ == tasks_.size() || in_flight_bytes_ == 0 ||
           in_flight_bytes_ + tasks_[next_].temporary_bytes <= temporary_limit_;
  });
  if (stopped_ || next_ == tasks_.size()) return false;
  *task = tasks_[next_++];
  in_flight_bytes_ += task->temporary_bytes;
  return true;
}

// The first reason to stop is the one that is told.
void WeightLoader::Stop(absl::Status why) {
  if (status_.ok()) status_ = std::move(why);
  stopped_ = true;
  changed_.notify_all();
}

absl::Status WeightLoader::Do(const Task& task) {
  const WeightFormat format = task.matrix->weight.spec.format;
  if (IsSixteenBit(format)) return Round(task);
  if (IsBitsAndBytes(task.matrix->tensor->type)) return Copy(task);
  return IsFourBit(format) ? QuantizeFour(task) : QuantizeEight(task);
}

// The file's own bits, only permuted.
absl::Status WeightLoader::Copy(const Task& task) {
  const TensorRef& tensor = *task.matrix->tensor;
  Weight* weight = &task.matrix->weight;
  return IsFourBit(weight->spec.format) ? backend_->PackFourBit(ReadFourBit(tensor), weight)
                                        : backend_->PackInt8(ReadInt8(tensor), weight);
}

template <typename Quantized>
absl::Status WeightLoader::QuantizeSlices(const Task& task, Quantized* quantized) {
  const WeightSpec& spec = task.matrix->weight.spec;
  std::vector<float> scratch(static_cast<size_t>(task.slice_rows * spec.k));
  absl::Status status;
  for (int64_t row = 0; row < spec.n && status.ok() && !stopped_; row += task.slice_rows) {
    const int64_t rows = std::min(task.slice_rows, spec.n - row);
    status = QuantizeRows(*task.matrix->tensor, row, rows, scratch, quantized);
  }
  return status;
}

absl::Status WeightLoader::QuantizeEight(const Task& task) {
  const WeightSpec& spec = task.matrix->weight.spec;
  Int8Matrix matrix = MakeInt8Matrix(spec.n, spec.k);
  const absl::Status status = QuantizeSlices(task, &matrix);
  if (!status.ok() || stopped_) return status;
  return backend_->PackInt8(matrix, &task.matrix->weight);
}

absl::Status WeightLoader::QuantizeFour(const Task& task) {
  const WeightSpec& spec = task.matrix->weight.spec;
  FourBitQuantizer quantizer(
      spec.n, spec.k,
      {.format = spec.format, .group_size = spec.group_size, .double_quant = spec.double_quant});
  const absl::Status status = QuantizeSlices(task, &quantizer);
  if (!status.ok() || stopped_) return status;
  return backend_->PackFourBit(quantizer.Finish(), &task.matrix->weight);
}

absl::Status WeightLoader::Round(const Task& task) {
  const TensorRef& tensor = *task.matrix->tensor;
  const WeightSpec& spec = task.matrix->weight.spec;
  const DType dtype = HalfType(spec.format);
  const uint32_t limit = dtype == DType::kBF16 ? kRoundsToBf16InfBits : kInfinityBits;
  const auto size = static_cast<size_t>(task.slice_rows * spec.k);
  std::vector<float> slice(size);
  std::vector<uint16_t> halves(size);
  uint32_t largest = 0;
  for (int64_t row = task.first_row; row < task.first_row + task.num_rows && !stopped_;
       row += task.slice_rows) {
    const int64_t rows = std::min(task.slice_rows, task.first_row + task.num_rows - row);
    const std::span<float> values(slice.data(), static_cast<size_t>(rows * spec.k));
    ReadRows(tensor, row, rows, values);
    largest = std::max(largest, LargestMagnitudeBits(values));
    if (largest >= limit) return NotFinite(tensor, row, values, limit);
    for (size_t i = 0; i < values.size(); ++i) halves[i] = F32ToHalf(dtype, values[i]);
    absl::Status packed = backend_->Pack16(row, rows, halves.data(), &task.matrix->weight);
    if (!packed.ok()) return packed;
  }
  if (dtype == DType::kF16 && largest > kLargestF16Bits) {
    const std::lock_guard lock(mutex_);
    too_wide_.insert(task.matrix);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadWeights(Inventory* inventory, Backend* backend, ReadAhead* ahead,
                         const std::function<void(const LoadProgress&)>& progress,
                         const std::function<bool()>& cancelled) {
  return WeightLoader(inventory, backend, ahead, progress, cancelled).Run();
}

}  // namespace nibble
