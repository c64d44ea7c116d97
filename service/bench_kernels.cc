// `nibble bench kernels`: peaks, goals and products of this machine, as tables or one JSON object.
// Slow is no error: the exit code does not depend on any figure.
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "service/bench.h"
#include "service/bench_goals.h"
#include "service/bench_products.h"
#include "service/client.h"
#include "service/flags.h"
#include "service/json_line.h"

namespace nibble {
namespace {

struct KernelBenchOptions {
  BenchMachineOptions machine;
  std::string compute = "auto", only, shape, rows = "1,8,32,512";
  bool json = false;
};

struct Findings {
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<PeakLine> peaks;
  std::vector<GoalLine> goals;
  std::vector<ProductLine> products;
};

// --- told as tables ---

std::string Range(const Spread& spread) {
  return absl::StrFormat("%.2f–%.2f", spread.min, spread.max);
}

void PrintGoal(const GoalLine& line) {
  const auto number = [](const std::optional<double>& value) {
    return value ? absl::StrFormat("%g", *value) : std::string("-");
  };
  std::printf("%-8s %-62s %6s %6s ", line.id.c_str(), line.what.c_str(), number(line.floor).c_str(),
              number(line.goal).c_str());
  if (!line.figure) {
    std::printf("not run: %s\n", line.note.c_str());
    return;
  }
  // An en dash is three bytes and one column.
  std::printf("%7.3f  %-15s %3d  %-7s %s\n", line.figure->median, Range(*line.figure).c_str(),
              line.figure->samples, line.Verdict(), line.note.c_str());
}

void PrintProduct(const ProductLine& line) {
  std::printf("%-50s %10.1f us %7.1f GB/s  %4.2f of read %-13s", line.name.c_str(),
              line.seconds * 1e6, line.bytes_per_second / 1e9, line.of_read.median,
              absl::StrCat("(", Range(line.of_read), ")").c_str());
  if (line.operations_per_second > 0) std::printf(" %8.1f G/s", line.operations_per_second / 1e9);
  if (line.of_peak) {
    std::printf("  %4.2f of %s (%s)", line.of_peak->median, line.unit.c_str(),
                Range(*line.of_peak).c_str());
  }
  std::printf("\n");
}

void PrintTables(const Findings& found) {
  for (const auto& [name, value] : found.facts) {
    std::printf("%-10s %s\n", name.c_str(), value.c_str());
  }
  if (!found.peaks.empty()) std::printf("\npeaks: median (min–max)\n");
  for (const PeakLine& line : found.peaks) {
    const Spread spread = Scaled(line.per_second, 1e-9);
    std::printf("%-50s %8.1f G%s/s (%.1f–%.1f)\n", line.name.c_str(), spread.median,
                absl::StartsWith(line.name, "read") ? "B" : "", spread.min, spread.max);
  }
  if (!found.goals.empty()) {
    std::printf("\n%-8s %-62s %6s %6s %7s  %-13s %3s\n", "goal", "figure: median of pairs", "floor",
                "goal", "figure", "min–max", "n");
  }
  for (const GoalLine& line : found.goals) PrintGoal(line);
  if (!found.products.empty()) std::printf("\nproducts: time, bytes of the matrix, operations\n");
  for (const ProductLine& line : found.products) PrintProduct(line);
}

// --- told as JSON ---

void AddSpread(const std::string& name, const Spread& spread, JsonLine* line) {
  line->Add(name, spread.median);
  line->Add(absl::StrCat(name, "_min"), spread.min);
  line->Add(absl::StrCat(name, "_max"), spread.max);
  line->Add("samples", spread.samples);
}

std::string ToJson(const PeakLine& peak) {
  JsonLine line;
  line.Add("name", peak.name);
  AddSpread("per_second", peak.per_second, &line);
  return line.Finish();
}

std::string ToJson(const GoalLine& goal) {
  JsonLine line;
  line.Add("id", goal.id);
  line.Add("what", goal.what);
  if (goal.floor) line.Add("floor", *goal.floor);
  if (goal.goal) line.Add("goal", *goal.goal);
  if (goal.figure) AddSpread("figure", *goal.figure, &line);
  line.Add("verdict", goal.Verdict());
  line.Add("note", goal.note);
  return line.Finish();
}

std::string ToJson(const ProductLine& product) {
  JsonLine line;
  line.Add("name", product.name);
  line.Add("seconds", product.seconds);
  line.Add("bytes_per_second", product.bytes_per_second);
  line.Add("operations_per_second", product.operations_per_second);
  line.Add("of_read", product.of_read.median);
  if (product.of_peak) {
    line.Add("unit", product.unit);
    line.Add("of_peak", product.of_peak->median);
  }
  line.Add("samples", product.of_read.samples);
  return line.Finish();
}

template <typename Line>
std::string ListOf(const std::vector<Line>& lines) {
  const auto append = [](std::string* out, const Line& line) { out->append(ToJson(line)); };
  return absl::StrCat("[", absl::StrJoin(lines, ",", append), "]");
}

void PrintJson(const Findings& found) {
  JsonLine line;
  for (const auto& [name, value] : found.facts) line.Add(name, value);
  line.AddRaw("peaks", ListOf(found.peaks));
  line.AddRaw("goals", ListOf(found.goals));
  line.AddRaw("products", ListOf(found.products));
  std::printf("%s\n", line.Finish().c_str());
}

// --- what is measured ---

// "14336x4096" and "1,8" as products. Errors: INVALID_ARGUMENT naming the flag.
absl::StatusOr<std::vector<ProductCase>> CasesOf(const KernelBenchOptions& options) {
  if (options.shape.empty()) return AllProducts(options.machine.quick);
  constexpr int64_t kMost = 1 << 17;
  const auto positive = [](absl::string_view text, int64_t* value) {
    return absl::SimpleAtoi(text, value) && *value > 0 && *value <= kMost;
  };
  const std::vector<std::string> sides = absl::StrSplit(options.shape, 'x');
  int64_t n = 0, k = 0;
  if (sides.size() != 2 || !positive(sides[0], &n) || !positive(sides[1], &k)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--shape: got \"", options.shape, "\", want NxK, each 1 to ", kMost));
  }
  std::vector<int64_t> rows;
  for (const auto& text : absl::StrSplit(options.rows, ',')) {
    if (!positive(text, &rows.emplace_back())) {
      return absl::InvalidArgumentError(
          absl::StrCat("--rows: \"", text, "\" is no number of rows"));
    }
  }
  return ProductsOfShape(n, k, rows);
}

std::vector<std::pair<std::string, std::string>> FactsOf(const BenchMachine& machine) {
  std::vector<std::string> absent;
  for (const CpuUnit& unit : machine.units()) {
    if (!unit.present) absent.push_back(absl::StrCat(unit.name, " (", unit.what, ")"));
  }
  const auto mib = [](int64_t bytes) { return absl::StrCat(bytes >> 20, " MiB"); };
  const auto named = [](std::string* out, Compute compute) { out->append(Name(compute)); };
  return {{"cpu", CpuName()},
          {"threads", absl::StrCat(machine.threads())},
          {"isa", machine.isa()},
          {"isas", absl::StrJoin(CpuIsaNames(), " ")},
          {"modes", absl::StrJoin(machine.modes(), " ", named)},
          {"caches", absl::StrCat("L2 ", mib(machine.caches().l2), " a core, last level ",
                                  mib(machine.caches().last), "; weights read from ",
                                  mib(machine.memory_bytes()), " of memory")},
          {"clock", machine.threads() == 1 ? "the thread's CPU time" : "wall time"},
          {"skipped", absent.empty() ? "nothing" : absl::StrJoin(absent, ", ")}};
}

absl::Status Measure(KernelBenchOptions options, const std::vector<ProductCase>& cases) {
  options.machine.limits = LimitsOf(cases);
  auto machine = BenchMachine::Create(options.machine);
  if (!machine.ok()) return machine.status();
  Findings found;
  found.facts = FactsOf(**machine);
  if (options.only.empty()) found.peaks = MeasurePeaks(machine->get());
  if (options.shape.empty()) {
    found.goals = MeasureGoals(machine->get(), options.only, options.machine.quick);
    if (absl::StrContains(kInt8Quantization, options.only)) {
      found.products.push_back(MeasureInt8Quantization(machine->get()));
    }
  }
  for (ProductLine& line : MeasureProducts(machine->get(), cases, options.only)) {
    found.products.push_back(std::move(line));
  }
  options.json ? PrintJson(found) : PrintTables(found);
  return absl::OkStatus();
}

}  // namespace

int RunBenchKernels(const Arguments& args) {
  KernelBenchOptions options;
  Flags flags("nibble bench kernels [flags]",
              "Measures this CPU's peaks and every product of weights, and prints the ratios that "
              "Nibble has set itself as goals, each with its floor. Both sides of a ratio are "
              "measured in turn; a figure is the median, with the smallest and the largest.");
  flags.Group("Measurement");
  flags.Add("only", &options.only, "TEXT",
            "Only lines whose name contains this: C4, \"bf16, M=8\".");
  flags.Add("quick", &options.machine.quick,
            "Tiny matrices and few samples: shows that everything runs, not how fast.");
  flags.Add("shape", &options.shape, "NxK", "Only NF4 products of this matrix, no goals.");
  flags.Add("rows", &options.rows, "LIST", "Rows of x for --shape.");
  flags.Add("json", &options.json, "One JSON object.");
  flags.Group("Machine");
  flags.Add(
      "threads", &options.machine.threads, "N",
      "CPU threads; 0: all. One is measured by its CPU time, so that neighbours do not count.");
  flags.Add("cpu-isa", &options.machine.isa, "ROW", "Force one, as nibble serve; empty: the best.");
  flags.AddChoice("compute", &options.compute, {"auto", "fp32", "bf16", "int8"},
                  "Arithmetic of products; auto: each that the CPU has.");
  int code = 0;
  if (!ParseOrExplain("bench kernels", &flags, args, &code)) return code;
  options.machine.compute = ComputeNamed(options.compute).value();
  const absl::StatusOr<std::vector<ProductCase>> cases = CasesOf(options);
  if (!cases.ok()) {
    std::fprintf(stderr,
                 "nibble bench kernels: %s\n(nibble bench kernels --help tells the flags)\n",
                 std::string(cases.status().message()).c_str());
    return 2;
  }
  absl::Status status;
  std::thread([&] { status = Measure(options, *cases); }).join();  // see BenchMachine's thread rule
  return status.ok() ? 0 : ReportFailure("bench kernels", status);
}

}  // namespace nibble
