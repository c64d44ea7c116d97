#include "service/bench_goals.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

using Rates = std::vector<std::vector<double>>;

class GoalBench {
 public:
  GoalBench(BenchMachine* machine, std::string only, bool small)
      : machine_(*machine),
        only_(std::move(only)),
        side_(small ? 256 : 4096),
        many_(small ? 16 : 512) {}

  std::vector<GoalLine> Run() {
    for (const Compute mode : machine_.modes()) {
      for (const bool dq : {true, false}) Bandwidth(mode, dq);
    }
    ExactBesideInt8();
    Fused(machine_.modes()[0]);
    for (const Compute mode : machine_.modes()) Peak(mode);
    Tiles();
    for (const Compute mode : machine_.modes()) BesideBf16(mode);
    ElsewhereTo("C7, C7b");
    for (const std::string& isa : CpuIsaNames()) Ladder(isa);
    for (const int64_t m : {int64_t{1}, many_ / 2}) Scaling(m);
    ElsewhereTo("C10");
    for (const Compute mode : machine_.modes()) {
      for (const int64_t m : {int64_t{1}, many_}) DoubleQuant(mode, m);
    }
    return std::move(lines_);
  }

 private:
  Product Nf4(bool dq, int64_t m) const { return {{WeightFormat::kNf4, side_, side_, 64, dq}, m}; }
  // A matrix that stays in the second-level cache of one core, read again and again.
  Product Nf4InCache(int64_t m) const {
    const int64_t n = machine_.caches().l2 >= 512 << 10 ? 512 : 256;
    return {{WeightFormat::kNf4, side_ < n ? side_ : n, side_ < 1024 ? side_ : 1024, 64, true},
            m,
            false};
  }
  double BytesOf(Compute mode, const Product& product) {
    return static_cast<double>(machine_.BackendOf(mode)->PackedBytes(product.spec).Total());
  }
  bool Wants(const GoalLine& line) const {
    return absl::StrContains(absl::StrCat(line.id, " ", line.what), only_);
  }
  void Skip(GoalLine line, std::string why) {
    line.note = std::move(why);
    if (Wants(line)) lines_.push_back(std::move(line));
  }
  // Measures the sides on `threads`; of(rates) gives the ratio of each round.
  void Measure(GoalLine line, int threads, const std::function<std::vector<Side>()>& sides,
               const std::function<std::vector<double>(const Rates&, GoalLine*)>& of) {
    if (!Wants(line)) return;
    const Rates rates = MeasureInTurn(sides(), machine_.PaceOf(threads));
    line.figure = SpreadOf(of(rates, &line));
    lines_.push_back(std::move(line));
  }
  // One product's speed in parts of another's.
  void Compare(GoalLine line, int threads, Backend* backend, const Product& product, Backend* other,
               const Product& against) {
    Measure(
        std::move(line), threads,
        [&] {
          return std::vector<Side>{machine_.Multiply(backend, product),
                                   machine_.Multiply(other, against)};
        },
        [](const Rates& rates, GoalLine*) { return Ratios(rates[0], rates[1], 1); });
  }
  void ElsewhereTo(std::string ids) {
    Skip({std::move(ids), "beside other programs"}, "tests/bench/compare_peers.sh");
  }

  void Bandwidth(Compute mode, bool dq);
  void ExactBesideInt8();
  void Fused(Compute mode);
  void Peak(Compute mode);
  void Tiles();
  void BesideBf16(Compute mode);
  void Ladder(const std::string& isa);
  void Scaling(int64_t m);
  void DoubleQuant(Compute mode, int64_t m);

  BenchMachine& machine_;
  const std::string only_;
  const int64_t side_, many_;
  std::vector<GoalLine> lines_;
};

// Bytes of a matrix in memory over the smaller of a plain read and what the same kernel reads from
// the caches of all cores.
void GoalBench::Bandwidth(Compute mode, bool dq) {
  const Product product = Nf4(dq, 1);
  Product cached = Nf4InCache(1);
  cached.spec.double_quant = dq;
  const int threads = machine_.threads();
  const double bytes = BytesOf(mode, product);
  const double cache_bytes = BytesOf(mode, cached) * threads;
  Measure(
      {"C1", absl::StrCat(dq ? "nf4+dq" : "nf4", ", ", Name(mode), ", M=1, bytes/s of read"), 0.75,
       0.90},
      threads,
      [&] {
        Backend* const one = *machine_.BackendOf(machine_.isa(), mode, 1);
        return std::vector<Side>{machine_.Multiply(machine_.BackendOf(mode), product),
                                 machine_.Read(threads), machine_.Multiply(one, cached)};
      },
      [&](const Rates& rates, GoalLine* line) {
        const double read = SpreadOf(rates[1]).median * BenchMachine::kReadBytes;
        const double cache = SpreadOf(rates[2]).median * cache_bytes;
        line->note = absl::StrCat("read ", static_cast<int64_t>(read / 1e9), ", kernel from L2 ",
                                  static_cast<int64_t>(cache / 1e9), " GB/s");
        if (read <= cache) return Ratios(rates[0], rates[1], bytes / BenchMachine::kReadBytes);
        absl::StrAppend(&line->note, ", which binds");
        line->goal = 0.95;
        return Ratios(rates[0], rates[2], bytes / cache_bytes);
      });
}

void GoalBench::ExactBesideInt8() {
  GoalLine line = {"C2", "nf4+dq, M=1, fp32 of int8 speed", 0.75, 0.95};
  const auto& modes = machine_.modes();
  const auto has = [&](Compute mode) {
    return std::find(modes.begin(), modes.end(), mode) != modes.end();
  };
  if (!has(Compute::kFp32) || !has(Compute::kInt8)) {
    return Skip(std::move(line), "wants the modes fp32 and int8");
  }
  Compare(std::move(line), machine_.threads(), machine_.BackendOf(Compute::kFp32), Nf4(true, 1),
          machine_.BackendOf(Compute::kInt8), Nf4(true, 1));
}

void GoalBench::Fused(Compute mode) {
  Measure(
      {"C3", absl::StrCat("nf4+dq, ", Name(mode), ", M=1, time of dequantize + bf16 of fused"), 5,
       7},
      machine_.threads(),
      [&] {
        Backend* const backend = machine_.BackendOf(mode);
        return std::vector<Side>{machine_.Multiply(backend, Nf4(true, 1)),
                                 machine_.DequantizeAndMultiply(backend, Nf4(true, 1))};
      },
      [](const Rates& rates, GoalLine*) { return Ratios(rates[0], rates[1], 1); });
}

void GoalBench::Peak(Compute mode) {
  const CpuUnit* const unit = machine_.Unit(machine_.isa(), mode);
  if (unit == nullptr) {
    return Skip({"C4", absl::StrCat("nf4+dq, ", Name(mode), ", M=", many_)},
                absl::StrCat("row ", machine_.isa(), " has no unit of its own"));
  }
  const bool tiles = absl::StartsWith(unit->name, "amx");
  const Product product = Nf4(true, many_);
  const int threads = machine_.threads();
  const double per_call = BenchMachine::kUnitSteps * unit->operations_per_step * threads;
  Measure(
      {"C4", absl::StrCat("nf4+dq, ", Name(mode), ", M=", many_, ", operations/s of ", unit->name),
       tiles ? 0.40 : 0.60, tiles ? 0.70 : 0.85},
      threads,
      [&] {
        return std::vector<Side>{machine_.Multiply(machine_.BackendOf(mode), product),
                                 machine_.InRegisters(unit, threads)};
      },
      [&](const Rates& rates, GoalLine* line) {
        const double peak = SpreadOf(rates[1]).median * per_call;
        line->note = absl::StrCat("peak ", static_cast<int64_t>(peak / 1e9), " G/s");
        return Ratios(rates[0], rates[1], product.Operations() / per_call);
      });
}

// The best row with tiles beside the best AVX-512 row without.
void GoalBench::Tiles() {
  std::string tiles, wide;
  for (const std::string& isa : CpuIsaNames()) {
    (absl::StrContains(isa, "amx") ? tiles : wide) = isa;
  }
  const Product product = Nf4(true, many_);
  for (const Compute mode : {Compute::kBf16, Compute::kInt8}) {
    GoalLine line = {
        "C5", absl::StrCat("nf4+dq, ", Name(mode), ", M=", many_, ", AMX of AVX-512 speed"), 3, 6};
    if (tiles.empty() || !absl::StrContains(wide, "avx512")) {
      Skip(std::move(line), "this CPU has no AMX");
      continue;
    }
    const auto ours = machine_.BackendOf(tiles, mode, machine_.threads());
    const auto other = machine_.BackendOf(wide, mode, machine_.threads());
    if (!ours.ok() || !other.ok()) {
      Skip(std::move(line), "a row without this mode");
      continue;
    }
    Compare(std::move(line), machine_.threads(), *ours, product, *other, product);
  }
}

void GoalBench::BesideBf16(Compute mode) {
  Product dense = Nf4(true, many_);
  dense.spec = {.format = WeightFormat::kBf16, .n = side_, .k = side_};
  Backend* const backend = machine_.BackendOf(mode);
  Compare({"C6", absl::StrCat("nf4+dq, ", Name(mode), ", M=", many_, ", speed of bf16 weights"),
           0.8, 1.0},
          machine_.threads(), backend, Nf4(true, many_), backend, dense);
}

// Rows of the ladder beside the scalar one, in fp32, on one thread and from its cache.
void GoalBench::Ladder(const std::string& isa) {
  if (isa == "scalar") return;
  const bool amx = absl::StrContains(isa, "amx");
  const double goal = amx ? 150 : absl::StrContains(isa, "avx512") ? 20 : 8;
  const Compute mode = amx ? Compute::kBf16 : Compute::kFp32;
  const std::vector<int64_t> rows = amx ? std::vector<int64_t>{256} : std::vector<int64_t>{1, 32};
  for (const int64_t m : rows) {
    GoalLine line = {
        "C8",
        absl::StrCat("nf4+dq, ", isa, " ", Name(mode), ", M=", m, ", 1 thread, speed of scalar"),
        {},
        goal};
    const auto ours = machine_.BackendOf(isa, mode, 1);
    const auto scalar = machine_.BackendOf("scalar", Compute::kFp32, 1);
    if (!ours.ok() || !scalar.ok()) {
      Skip(std::move(line), "a row without this mode");
      continue;
    }
    Compare(std::move(line), 1, *ours, Nf4InCache(m), *scalar, Nf4InCache(m));
  }
}

void GoalBench::Scaling(int64_t m) {
  const int threads = machine_.threads();
  const Compute mode = machine_.modes()[0];
  GoalLine line = {
      "C9",
      absl::StrCat("nf4+dq, ", Name(mode), ", M=", m, ", ", threads, " threads of as many times 1"),
      0.8, 0.95};
  if (threads == 1) return Skip(std::move(line), "one thread only");
  const Product product = Nf4(true, m);
  Measure(
      std::move(line), threads,
      [&] {
        Backend* const one = *machine_.BackendOf(machine_.isa(), mode, 1);
        return std::vector<Side>{machine_.Multiply(machine_.BackendOf(mode), product),
                                 machine_.Multiply(one, product), machine_.Read(threads),
                                 machine_.Read(1)};
      },
      [&](const Rates& rates, GoalLine* scaling) {
        const double read = SpreadOf(Ratios(rates[2], rates[3], 1.0 / threads)).median;
        scaling->note = absl::StrCat("plain reads: ", static_cast<int64_t>(100 * read + 0.5), " %");
        return Ratios(rates[0], rates[1], 1.0 / threads);
      });
}

void GoalBench::DoubleQuant(Compute mode, int64_t m) {
  Backend* const backend = machine_.BackendOf(mode);
  Compare({"DQ",
           absl::StrCat("nf4+dq, ", Name(mode), ", M=", m, ", speed of plain nf4"),
           {},
           m == 1 ? 1.0 : 0.97},
          machine_.threads(), backend, Nf4(true, m), backend, Nf4(false, m));
}

}  // namespace

const char* GoalLine::Verdict() const {
  if (!figure) return "not run";
  if (goal && figure->median >= *goal) return "goal";
  return floor && figure->median >= *floor ? "floor" : "below";
}

std::vector<GoalLine> MeasureGoals(BenchMachine* machine, const std::string& only, bool small) {
  return GoalBench(machine, only, small).Run();
}

}  // namespace nibble
