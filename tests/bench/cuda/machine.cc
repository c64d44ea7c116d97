// Stopwatch, random memory and copies. Random content is made once on the host and copied on the
// device from changing places, so that tens of gigabytes of weights take a second.
#include "tests/bench/cuda/machine.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/figures.h"

namespace nibble::bench {
namespace {

constexpr int kContents = 4;

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "cuda_bench: %s\n", status.ToString().c_str());
  std::abort();
}

template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

std::vector<uint32_t> RandomWords(int64_t count, Machine::Content content) {
  std::mt19937 random(static_cast<uint32_t>(content) + 1);
  std::normal_distribution<float> normal;
  std::vector<uint32_t> words(static_cast<size_t>(count));
  for (uint32_t& word : words) {
    float value = 0;
    switch (content) {
      case Machine::Content::kBytes:
        word = static_cast<uint32_t>(random());
        continue;
      case Machine::Content::kHalves:
        word = static_cast<uint32_t>(random()) & 0xbbffbbffu;
        continue;
      case Machine::Content::kScales:
        value = 0.01f + static_cast<float>(random() % 1024) * (0.01f / 1024);
        break;
      case Machine::Content::kNormal:
        value = normal(random);
        break;
    }
    std::memcpy(&word, &value, sizeof(word));
  }
  return words;
}

constexpr int64_t Padded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

Timing Summary(std::vector<double> samples_us) {
  const auto [low, high] = std::minmax_element(samples_us.begin(), samples_us.end());
  return {Median(samples_us), *low, *high, samples_us};
}

}  // namespace

Effort Effort::Rehearsal() { return {true, 2, 2, 0, 4096, 4096, 4096}; }

Ratio PairedRatio(const Timing& a, const Timing& b) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(a.samples_us.size(), b.samples_us.size()); ++i) {
    ratios.push_back(a.samples_us[i] / b.samples_us[i]);
  }
  const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  return {Median(ratios), *low, *high};
}

absl::StatusOr<std::unique_ptr<Machine>> Machine::Open(const Effort& effort) {
  absl::StatusOr<cuda::DeviceTraits> traits = cuda::OpenDevice(0);
  if (!traits.ok()) return traits.status();
  int64_t free_bytes = 0, total_bytes = 0;
  Check(cuda::MemoryInfo(&free_bytes, &total_bytes));
  BackendOptions options;
  options.device = "cuda:0";
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(options);
  if (!backend.ok()) return backend.status();
  std::unique_ptr<Machine> machine(new Machine(effort, *std::move(traits), *std::move(backend)));
  machine->free_at_start_ = free_bytes;
  const absl::Status status = machine->Prepare();
  if (!status.ok()) return status;
  return machine;
}

Machine::Machine(const Effort& effort, cuda::DeviceTraits traits, std::unique_ptr<Backend> backend)
    : effort_(effort), traits_(std::move(traits)), backend_(std::move(backend)) {}

absl::Status Machine::Prepare() {
  stream_ = Check(cuda::MakeStream());
  begin_ = Check(cuda::MakeEvent());
  end_ = Check(cuda::MakeEvent());
  const int64_t gemm_bytes = effort_.rehearsal ? 4096 : int64_t{64} << 20;
  Check(cuda::UseGemmWorkspace(stream_, Allocate(gemm_bytes), gemm_bytes));
  flush_ = Allocate(2 * effort_.flush_bytes);
  pool_bytes_ = effort_.rehearsal ? 1 << 16 : 1 << 25;
  for (int i = 0; i < kContents; ++i) {
    const std::vector<uint32_t> words = RandomWords(pool_bytes_ / 4, static_cast<Content>(i));
    pools_.push_back(Allocate(pool_bytes_));
    Upload(pools_.back(), words.data(), pool_bytes_);
  }
  return absl::OkStatus();
}

Machine::~Machine() {
  Rewind(0);
  cuda::Destroy(end_);
  cuda::Destroy(begin_);
  cuda::Destroy(stream_);
}

char* Machine::Allocate(int64_t bytes) {
  bytes = std::max<int64_t>(bytes, 256);
  memory_.push_back({Check(cuda::Malloc(bytes)), bytes});
  return static_cast<char*>(memory_.back().data);
}

char* Machine::AllocateZeroed(int64_t bytes) {
  char* const data = Allocate(bytes);
  Check(cuda::Fill(data, 0, bytes, stream_));
  return data;
}

void Machine::Rewind(size_t mark) {
  Check(cuda::Synchronize(stream_));
  for (; memory_.size() > mark; memory_.pop_back()) cuda::Free(memory_.back().data);
}

int64_t Machine::AllocatedBytes() const {
  const BackendMemory own = backend_->OwnMemory();
  int64_t bytes = own.workspace + own.graphs;
  for (const Block& block : memory_) bytes += block.bytes;
  return bytes;
}

int64_t Machine::DriverBytes() const {
  int64_t free_bytes = 0, total_bytes = 0;
  Check(cuda::MemoryInfo(&free_bytes, &total_bytes));
  return free_at_start_ - free_bytes;
}

void Machine::Fill(void* device, int64_t bytes, Content content) {
  const char* const pool = pools_[static_cast<size_t>(content)];
  for (int64_t done = 0; done < bytes;) {
    // Another place each time, aligned for copies of 16 bytes.
    taken_ = (taken_ + 1009 * 4096 + 16) % (pool_bytes_ / 2) / 16 * 16;
    const int64_t count = std::min(bytes - done, pool_bytes_ / 2);
    Check(cuda::Copy(static_cast<char*>(device) + done, pool + taken_, count, stream_));
    done += count;
  }
}

Activations Machine::RandomRows(int64_t rows, int64_t cols) {
  const Activations x = {Make<float>(rows * cols), rows, cols, cols};
  Fill(x.data, rows * cols * 4, Content::kNormal);
  return x;
}

int64_t Machine::PlacedBytes(const WeightSpec& spec) const {
  const PackedSize size = backend_->PackedBytes(spec);
  return Padded(size.codes) + Padded(size.scales) + Padded(size.nested) + Padded(size.tables);
}

Weight Machine::RandomWeight(const WeightSpec& spec) {
  return RandomWeightAt(Allocate(PlacedBytes(spec)), spec);
}

Weight Machine::RandomWeightAt(char* data, const WeightSpec& spec) {
  const PackedSize size = backend_->PackedBytes(spec);
  Weight weight = {spec, data, data + Padded(size.codes), nullptr, nullptr};
  weight.nested = static_cast<char*>(weight.scales) + Padded(size.scales);
  weight.tables = static_cast<char*>(weight.nested) + Padded(size.nested);
  Fill(weight.codes, size.codes, IsSixteenBit(spec.format) ? Content::kHalves : Content::kBytes);
  const bool bytes = IsFourBit(spec.format) && spec.double_quant;
  Fill(weight.scales, size.scales, bytes ? Content::kBytes : Content::kScales);
  Fill(weight.nested, size.nested, Content::kScales);
  return weight;
}

Copies Machine::RandomCopies(const WeightSpec& spec) {
  Copies copies;
  copies.bytes = backend_->PackedBytes(spec).Total();
  const int64_t count = (effort_.rotate_bytes + copies.bytes - 1) / copies.bytes;
  for (int64_t i = 0; i < std::max<int64_t>(2, count); ++i) {
    copies.weights.push_back(RandomWeight(spec));
  }
  return copies;
}

void Machine::Finish() { Check(cuda::Synchronize(stream_)); }

void Machine::Upload(void* device, const void* host, int64_t bytes) {
  Check(cuda::Copy(device, host, bytes, stream_));
  Check(cuda::Synchronize(stream_));
}

void Machine::Download(void* host, const void* device, int64_t bytes) {
  Check(cuda::Copy(host, device, bytes, stream_));
  Check(cuda::Synchronize(stream_));
}

absl::Status Machine::RunOnce(const Contender& contender) {
  const absl::Status status = contender.issue(0, stream_);
  if (!status.ok()) return status;
  return cuda::Synchronize(stream_);
}

// The copy before it empties L2, and is long enough for the host to have issued all of this when it
// ends: no gap is timed between the first event and the graph.
absl::StatusOr<double> Machine::TimeMs(cuda::Graph* graph) {
  absl::Status status =
      cuda::Copy(flush_, flush_ + effort_.flush_bytes, effort_.flush_bytes, stream_);
  if (status.ok()) status = cuda::Record(begin_, stream_);
  if (status.ok()) status = cuda::IssueGraph(graph, stream_);
  if (status.ok()) status = cuda::Record(end_, stream_);
  if (status.ok()) status = cuda::Synchronize(stream_);
  if (!status.ok()) return status;
  return cuda::ElapsedMs(begin_, end_);
}

absl::StatusOr<cuda::Graph*> Machine::Capture(const Contender& contender) {
  absl::Status status = RunOnce(contender);  // what is set up lazily is set up before the capture
  if (status.ok()) status = cuda::BeginCapture(stream_);
  if (!status.ok()) return status;
  for (int turn = 0; status.ok() && turn < effort_.launches; ++turn) {
    status = contender.issue(turn, stream_);
  }
  const absl::StatusOr<cuda::Graph*> graph = cuda::EndCapture(stream_);
  if (status.ok() || !graph.ok()) return status.ok() ? graph : status;
  cuda::Destroy(*graph);
  return status;
}

absl::StatusOr<std::vector<Timing>> Machine::Race(std::span<const Contender> contenders) {
  std::vector<cuda::Graph*> graphs;
  absl::Status status;
  for (const Contender& contender : contenders) {
    const absl::StatusOr<cuda::Graph*> graph = Capture(contender);
    status = graph.status();
    if (!status.ok()) break;
    graphs.push_back(*graph);
  }
  std::vector<std::vector<double>> samples(graphs.size());
  double spent_ms = 0;
  for (int round = -1; status.ok() && round < effort_.rounds; ++round) {
    if (round >= 7 && spent_ms > effort_.race_ms) break;
    for (size_t i = 0; status.ok() && i < graphs.size(); ++i) {
      const absl::StatusOr<double> ms = TimeMs(graphs[i]);
      status = ms.status();
      if (!status.ok() || round < 0) continue;  // the first round warms up
      spent_ms += *ms;
      samples[i].push_back(*ms * 1000 / effort_.launches);
    }
  }
  for (cuda::Graph* graph : graphs) cuda::Destroy(graph);
  if (!status.ok()) return status;
  std::vector<Timing> timings;
  timings.reserve(samples.size());
  for (std::vector<double>& sample : samples) timings.push_back(Summary(std::move(sample)));
  return timings;
}

absl::StatusOr<double> Machine::CopyBandwidth() {
  const size_t mark = Mark();
  const int64_t bytes = effort_.copy_bytes;
  char* const from = Allocate(bytes);
  char* const to = Allocate(bytes);
  Fill(from, bytes, Content::kBytes);
  const Contender copy = {"copy", [&](int turn, cuda::Stream* stream) {
                            return turn % 2 == 0 ? cuda::Copy(to, from, bytes, stream)
                                                 : cuda::Copy(from, to, bytes, stream);
                          }};
  const absl::StatusOr<std::vector<Timing>> timings = Race({&copy, 1});
  Rewind(mark);
  if (!timings.ok()) return timings.status();
  return 2 * static_cast<double>(bytes) / ((*timings)[0].median_us * 1e-6);
}

}  // namespace nibble::bench
