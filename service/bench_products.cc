#include "service/bench_products.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

struct Form {
  const char* name;
  WeightSpec spec;
  bool any_mode;
  std::vector<int64_t> rows;
};

std::string ShapeName(const char* name, const WeightSpec& spec) {
  return absl::StrCat(name, " ", spec.n, "x", spec.k);
}

// The same square matrix in every form.
std::vector<Form> Squares(int64_t side) {
  const auto four_bit = [&](WeightFormat format, bool dq, bool own) {
    return WeightSpec{format, side, side, 64, dq, own};
  };
  const auto other = [&](WeightFormat format) {
    return WeightSpec{.format = format, .n = side, .k = side};
  };
  return {
      {"nf4+dq", four_bit(WeightFormat::kNf4, true, false), false, {1, 8, 32, 512}},
      {"nf4", four_bit(WeightFormat::kNf4, false, false), false, {1, 8, 32, 512}},
      {"fp4+dq", four_bit(WeightFormat::kFp4, true, false), false, {1, 32}},
      {"fp4+dq with own tables", four_bit(WeightFormat::kFp4, true, true), false, {1, 32}},
      {"bf16", other(WeightFormat::kBf16), false, {1, 8, 32, 512}},
      {"fp16", other(WeightFormat::kF16), true, {1, 32}},
      {"int8", other(WeightFormat::kInt8), true, {1, 2, 4, 8, 32, 512}},
  };
}

void Append(const Form& form, bool from_memory, std::vector<ProductCase>* cases) {
  for (const int64_t m : form.rows) {
    cases->push_back({ShapeName(form.name, form.spec), {form.spec, m, from_memory}, form.any_mode});
  }
}

// The mode by whose unit a product is judged: only 4-bit weights multiply as the int8 mode says.
Compute ArithmeticOf(Compute mode, const ProductCase& which) {
  if (which.any_mode) return Compute::kFp32;
  const bool as_bf16 = mode == Compute::kInt8 && IsSixteenBit(which.product.spec.format);
  return as_bf16 ? Compute::kBf16 : mode;
}

ProductLine Measure(BenchMachine* machine, Compute mode, const ProductCase& which,
                    std::string name) {
  Backend* const backend = machine->BackendOf(mode);
  const CpuUnit* const unit = machine->Unit(machine->isa(), ArithmeticOf(mode, which));
  const int threads = machine->threads();
  std::vector<Side> sides = {machine->Multiply(backend, which.product), machine->Read(threads)};
  if (unit != nullptr) sides.push_back(machine->InRegisters(unit, threads));
  Pace pace = machine->PaceOf(threads);
  pace.limit_seconds = std::min(pace.limit_seconds, 0.5);
  const auto rates = MeasureInTurn(sides, pace);
  const auto bytes = static_cast<double>(backend->PackedBytes(which.product.spec).Total());
  const double rate = SpreadOf(rates[0]).median;
  ProductLine line;
  line.name = std::move(name);
  line.seconds = 1 / rate;
  line.bytes_per_second = bytes * rate;
  line.operations_per_second = which.product.Operations() * rate;
  line.of_read = SpreadOf(Ratios(rates[0], rates[1], bytes / BenchMachine::kReadBytes));
  if (unit != nullptr) {
    const double peak = BenchMachine::kUnitSteps * unit->operations_per_step * threads;
    line.of_peak = SpreadOf(Ratios(rates[0], rates[2], which.product.Operations() / peak));
    line.unit = unit->name;
  }
  return line;
}

}  // namespace

std::vector<ProductCase> AllProducts(bool small) {
  std::vector<ProductCase> cases;
  for (Form form : Squares(small ? 256 : 4096)) {
    if (small) form.rows = {1, 8};
    Append(form, true, &cases);
  }
  const WeightSpec int8 = {
      .format = WeightFormat::kInt8, .n = cases[0].product.spec.n, .k = cases[0].product.spec.k};
  for (const int64_t m : {1, 8}) {
    cases.push_back({ShapeName("int8 with 6 outliers a row", int8), {int8, m, true, 6}, true});
  }
  const auto nf4 = [](int64_t n, int64_t k) {
    return WeightSpec{WeightFormat::kNf4, n, k, 64, true};
  };
  Append({"nf4+dq in L2", nf4(512, 1024), false, {1, 8}}, false, &cases);
  Append({"nf4+dq across rows", nf4(960, 200), true, {1, 32}}, false, &cases);
  if (small) return cases;
  Append({"nf4+dq", nf4(14336, 4096), false, {1}}, true, &cases);
  for (const auto& [n, k] : {std::pair{576, 576}, {192, 576}, {1536, 576}, {576, 1536}}) {
    Append({"nf4+dq in cache", nf4(n, k), false, {1, 8, 32}}, false, &cases);
  }
  const WeightSpec head = {.format = WeightFormat::kF16, .n = 49152, .k = 576};
  Append({"fp16", head, true, {1, 32}}, true, &cases);
  return cases;
}

std::vector<ProductCase> ProductsOfShape(int64_t n, int64_t k, const std::vector<int64_t>& rows) {
  std::vector<ProductCase> cases;
  Append({"nf4", {WeightFormat::kNf4, n, k, 64, false}, false, rows}, true, &cases);
  Append({"nf4+dq", {WeightFormat::kNf4, n, k, 64, true}, false, rows}, true, &cases);
  return cases;
}

ProductLimits LimitsOf(const std::vector<ProductCase>& cases) {
  ProductLimits limits = {0, 0, 0, 0};
  for (const ProductCase& each : cases) {
    const WeightSpec& spec = each.product.spec;
    limits.rows = std::max(limits.rows, each.product.m);
    limits.k = std::max(limits.k, spec.k);
    limits.outputs = std::max(limits.outputs, each.product.m * spec.n);
    limits.weights = std::max(limits.weights, spec.n * spec.k);
  }
  return limits;
}

std::vector<ProductLine> MeasureProducts(BenchMachine* machine,
                                         const std::vector<ProductCase>& cases,
                                         const std::string& only) {
  std::vector<ProductLine> lines;
  for (const Compute mode : machine->modes()) {
    for (const ProductCase& each : cases) {
      if (each.any_mode && mode != machine->modes()[0]) continue;
      const std::string name =
          absl::StrCat(each.name, each.any_mode ? "" : ", ", each.any_mode ? "" : Name(mode),
                       ", M=", each.product.m);
      if (absl::StrContains(name, only)) {
        lines.push_back(Measure(machine, mode, each, name));
      }
    }
  }
  return lines;
}

ProductLine MeasureInt8Quantization(BenchMachine* machine) {
  const auto rates =
      MeasureInTurn({machine->QuantizeInt8Rows(4096), machine->Read(machine->threads())},
                    machine->PaceOf(machine->threads()));
  ProductLine line;
  line.name = kInt8Quantization;
  line.seconds = 1 / SpreadOf(rates[0]).median;
  line.bytes_per_second = BenchMachine::kReadBytes / line.seconds;
  line.of_read = SpreadOf(Ratios(rates[0], rates[1], 1));
  return line;
}

std::vector<PeakLine> MeasurePeaks(BenchMachine* machine) {
  std::vector<int> counts = {machine->threads()};
  if (counts[0] > 1) counts.insert(counts.begin(), 1);
  std::vector<PeakLine> lines;
  for (const int threads : counts) {
    std::vector<Side> sides = {machine->Read(threads)};
    std::vector<std::string> names = {"read"};
    std::vector<double> of_call = {BenchMachine::kReadBytes};
    for (const CpuUnit& unit : machine->units()) {
      if (!unit.present) continue;
      sides.push_back(machine->InRegisters(&unit, threads));
      names.push_back(absl::StrCat(unit.name, " (", unit.what, ")"));
      of_call.push_back(BenchMachine::kUnitSteps * unit.operations_per_step * threads);
    }
    const auto rates = MeasureInTurn(sides, machine->PaceOf(threads));
    for (size_t i = 0; i < sides.size(); ++i) {
      lines.push_back({absl::StrCat(names[i], ", ", threads, threads == 1 ? " thread" : " threads"),
                       Scaled(SpreadOf(rates[i]), of_call[i])});
    }
  }
  return lines;
}

}  // namespace nibble
