#include "service/bench_machine.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int64_t kLeastMemory = int64_t{256} << 20, kMostMemory = int64_t{2} << 30;

int64_t Padded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Finite numbers of ordinary size, whether read as codes, fp16 or bf16.
void FillCodes(const Buffer& buffer) {
  uint32_t random = 1;
  for (int64_t i = 0; i + 4 <= buffer.bytes(); i += 4) {
    random = random * 1664525u + 1013904223u;
    const uint32_t word = random & 0x3bff3bffu;
    std::memcpy(buffer.data() + i, &word, sizeof(word));
  }
}

void FillFloats(const Buffer& buffer, float value) {
  float* values = reinterpret_cast<float*>(buffer.data());
  std::fill_n(values, buffer.bytes() / 4, value);
}

// As many copies of a part as its memory holds.
int64_t Fitting(const Buffer& memory, int64_t bytes) {
  return bytes == 0 ? memory.bytes() : std::max<int64_t>(1, memory.bytes() / Padded(bytes));
}

// A matrix that nobody quantized, of the codes that memory holds.
FourBitMatrix RandomMatrix(const WeightSpec& spec, const char* codes) {
  FourBitMatrix matrix;
  matrix.n = spec.n;
  matrix.k = spec.k;
  matrix.double_quant = true;
  const auto groups = static_cast<size_t>(matrix.NumGroups());
  matrix.codes.assign(codes, codes + matrix.NumValues() / 2);
  matrix.absmax_codes.assign(groups, 200);
  matrix.nested_absmax.assign(groups / kNestedGroup + 1, 0.01f);
  matrix.nested_map = DynamicMap();
  return matrix;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BenchMachine>> BenchMachine::Create(
    const BenchMachineOptions& options) {
  std::unique_ptr<BenchMachine> machine(new BenchMachine);
  machine->options_ = options;
  machine->caches_ = ReadCpuCaches();
  machine->units_ = CpuUnits();
  absl::StatusOr<std::unique_ptr<Backend>> first = MakeCpuBackend(
      {.num_threads = options.threads, .cpu_isa = options.isa, .compute = options.compute});
  if (!first.ok()) return first.status();
  machine->threads_ = (*first)->num_threads();
  machine->isa_ = (*first)->isa();
  machine->modes_ = {(*first)->compute()};
  if (const absl::Status status = machine->Allocate(); !status.ok()) return status;
  if (const absl::Status status = machine->FindModes(); !status.ok()) return status;
  return machine;
}

absl::Status BenchMachine::Allocate() {
  const int64_t wanted = std::clamp(4 * caches_.last, kLeastMemory, kMostMemory);
  const ProductLimits& limits = options_.limits;
  const int64_t largest = 2 * limits.weights;  // in 16 bits, one copy
  const int64_t codes = std::max(options_.quick ? int64_t{32} << 20 : wanted, largest);
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeCpuBackend({.num_threads = 1});
  if (!backend.ok()) return backend.status();
  for (const auto& [buffer, bytes] : {std::pair{&codes_, codes},
                                      {&scales_, codes / 4},
                                      {&nested_, codes / 128},
                                      {&tables_, int64_t{4096}},
                                      {&x_, limits.rows * limits.k * 4},
                                      {&x_with_outliers_, limits.rows * limits.k * 4},
                                      {&out_, limits.outputs * 4}}) {
    absl::StatusOr<Buffer> memory = (*backend)->Allocate(bytes);
    if (!memory.ok()) return memory.status();
    *buffer = *std::move(memory);
  }
  FillCodes(codes_);
  for (Buffer* buffer : {&scales_, &nested_, &tables_}) FillFloats(*buffer, 0.01f);
  for (Buffer* buffer : {&x_, &x_with_outliers_}) FillFloats(*buffer, 0.5f);
  return absl::OkStatus();
}

absl::Status BenchMachine::FindModes() {
  const bool all = options_.compute == Compute::kAuto;
  for (const Compute compute : {Compute::kFp32, Compute::kBf16, Compute::kInt8}) {
    const absl::StatusOr<Backend*> backend = BackendOf(isa_, compute, threads_);
    if (backend.ok() && all && compute != modes_[0]) modes_.push_back(compute);
    if (!backend.ok() && compute == modes_[0]) return backend.status();
  }
  return absl::OkStatus();
}

const CpuUnit* BenchMachine::Unit(const std::string& isa, Compute compute) const {
  const std::string_view name = UnitOf(isa, compute);
  const auto found = std::find_if(units_.begin(), units_.end(), [&](const CpuUnit& unit) {
    return unit.present && unit.name == name;
  });
  return found == units_.end() ? nullptr : &*found;
}

CpuPeaks& BenchMachine::peaks(int threads) {
  std::unique_ptr<CpuPeaks>& peaks = peaks_[threads];
  if (peaks == nullptr) peaks = std::make_unique<CpuPeaks>(threads);
  return *peaks;
}

absl::StatusOr<Backend*> BenchMachine::BackendOf(const std::string& isa, Compute compute,
                                                 int threads) {
  const auto key = std::tuple{isa, compute, threads};
  if (const auto found = backends_.find(key); found != backends_.end()) {
    return found->second.backend.get();
  }
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      MakeCpuBackend({.num_threads = threads, .cpu_isa = isa, .compute = compute});
  if (!backend.ok()) return backend.status();
  const BackendLimits limits = {.max_rows = options_.limits.rows, .max_k = options_.limits.k};
  absl::StatusOr<Buffer> scratch = (*backend)->Allocate((*backend)->ScratchBytes(limits));
  if (!scratch.ok()) return scratch.status();
  (*backend)->UseScratch(scratch->data(), scratch->bytes(), limits);
  return backends_.emplace(key, ReadyBackend{*std::move(backend), *std::move(scratch)})
      .first->second.backend.get();
}

Backend* BenchMachine::BackendOf(Compute compute) {
  return *BackendOf(isa_, compute, threads_);  // FindModes made it
}

Pace BenchMachine::PaceOf(int threads) const {
  Pace pace;
  if (threads == 1) pace.clock = CLOCK_THREAD_CPUTIME_ID;
  if (options_.quick) {
    pace.samples = kMinSamples;
    pace.sample_seconds = 5e-5;
    pace.limit_seconds = 0;
  }
  return pace;
}

Weight BenchMachine::Copy(const Backend& backend, const Product& product, int64_t turn) const {
  const PackedSize size = backend.PackedBytes(product.spec);
  const int64_t fitting = std::min(
      {Fitting(codes_, size.codes), Fitting(scales_, size.scales), Fitting(nested_, size.nested)});
  const int64_t copy = product.from_memory ? turn % fitting : 0;
  return {product.spec, codes_.data() + copy * Padded(size.codes),
          scales_.data() + copy * Padded(size.scales), nested_.data() + copy * Padded(size.nested),
          tables_.data()};
}

void BenchMachine::Call(Backend* backend, const Weight& weight, const Product& product) {
  const auto& [n, k] = std::pair{weight.spec.n, weight.spec.k};
  float* out = reinterpret_cast<float*>(out_.data());
  const MatMulPart part = {&weight, {}, {out, product.m, n, n}, false};
  const Buffer& x = product.outliers > 0 ? x_with_outliers_ : x_;
  backend->MatMul({reinterpret_cast<float*>(x.data()), product.m, k, k}, {&part, 1});
}

Side BenchMachine::Multiply(Backend* backend, const Product& product) {
  if (product.outliers > 0) {
    float* x = reinterpret_cast<float*>(x_with_outliers_.data());
    for (int64_t row = 0; row < product.m; ++row) {
      std::fill_n(x + row * product.spec.k, product.outliers, 10.0f);
    }
  }
  return {[this, backend, product, turn = int64_t{0}]() mutable {
            Call(backend, Copy(*backend, product, turn++), product);
          },
          [backend] { backend->Park(); }};
}

Side BenchMachine::DequantizeAndMultiply(Backend* backend, const Product& product) {
  constexpr int64_t kMatrices = 4;
  auto matrices = std::make_shared<std::vector<FourBitMatrix>>();
  for (int64_t i = 0; i < kMatrices; ++i) {
    matrices->push_back(RandomMatrix(product.spec, codes_.data()));
  }
  Product dense = product;
  dense.spec = {.format = WeightFormat::kBf16, .n = product.spec.n, .k = product.spec.k};
  return {[this, backend, dense, matrices, turn = int64_t{0}]() mutable {
            const Weight weight = Copy(*backend, dense, turn);
            const FourBitMatrix& matrix = (*matrices)[static_cast<size_t>(turn++ % kMatrices)];
            peaks(threads_).DequantizeToBf16(matrix, static_cast<uint16_t*>(weight.codes));
            Call(backend, weight, dense);
          },
          [this, backend] {
            backend->Park();
            peaks(threads_).Park();
          }};
}

Side BenchMachine::Read(int threads) {
  CpuPeaks* const peaks_of = &peaks(threads);
  return {[this, peaks_of, turn = int64_t{0}]() mutable {
            const int64_t parts = codes_.bytes() / kReadBytes;
            peaks_of->Read(codes_.data() + turn++ % parts * kReadBytes, kReadBytes);
          },
          [peaks_of] { peaks_of->Park(); }};
}

Side BenchMachine::InRegisters(const CpuUnit* unit, int threads) {
  CpuPeaks* const peaks_of = &peaks(threads);
  return {[peaks_of, unit] { peaks_of->Multiply(*unit, kUnitSteps); },
          [peaks_of] { peaks_of->Park(); }};
}

Side BenchMachine::QuantizeInt8Rows(int64_t columns) {
  constexpr int64_t kRowsOfUnit = 32, kParts = 4;
  CpuPeaks* const peaks_of = &peaks(threads_);
  const int64_t rows = kReadBytes / 4 / columns;
  auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(kParts * rows * columns));
  for (size_t i = 0; i < values->size(); ++i) (*values)[i] = static_cast<float>(i % 1013) - 506;
  auto matrix = std::make_shared<Int8Matrix>(MakeInt8Matrix(rows, columns));
  return {[peaks_of, columns, rows, values, matrix, turn = int64_t{0}]() mutable {
            const float* part = values->data() + turn++ % kParts * rows * columns;
            peaks_of->Run(rows / kRowsOfUnit, [&](int64_t unit) {
              const int64_t row = unit * kRowsOfUnit;
              const std::span<const float> some(part + row * columns,
                                                static_cast<size_t>(kRowsOfUnit * columns));
              QuantizeInt8(row, some, matrix.get()).IgnoreError();  // all values are finite
            });
          },
          [peaks_of] { peaks_of->Park(); }};
}

}  // namespace nibble
