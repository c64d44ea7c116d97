// How fast products are (G1 to G6), from one race per shape and number of rows.
#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/products.h"

namespace nibble::bench {
namespace {

// What one race measured; absent: no peer, or it failed.
struct Race {
  Shape shape;
  int64_t rows = 0;
  double packed_bytes = 0;
  Timing cublas, nf4, nested;
  std::optional<Timing> peer;
};

WeightSpec Spec(const Shape& shape, WeightFormat format, bool double_quant = false) {
  WeightSpec spec;
  spec.format = format;
  spec.n = shape.n;
  spec.k = shape.k;
  spec.double_quant = double_quant;
  return spec;
}

std::vector<Shape> Shapes(bool rehearsal) {
  if (rehearsal) return {{48, 128}, {32, 192}};
  return {{4096, 4096}, {14336, 4096}, {28672, 8192}};
}

std::vector<int64_t> RowCounts(bool rehearsal) {
  if (rehearsal) return {1, 16};
  return {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
}

void WriteRow(const Race& race, double copy_bandwidth, Figures* figures) {
  Line line("row", "product");
  line.Add("n", static_cast<double>(race.shape.n)).Add("k", static_cast<double>(race.shape.k));
  line.Add("m", static_cast<double>(race.rows));
  const auto add = [&](const char* name, const Timing& timing) {
    line.Add(absl::StrCat(name, "_us"), timing.median_us);
    line.Add(absl::StrCat(name, "_min_us"), timing.min_us);
    line.Add(absl::StrCat(name, "_max_us"), timing.max_us);
  };
  add("cublas_bf16", race.cublas);
  add("nf4", race.nf4);
  add("nf4_double_quant", race.nested);
  if (race.peer) add("bitsandbytes", *race.peer);
  line.Add("of_cublas", PairedRatio(race.cublas, race.nf4).median);
  if (race.peer) line.Add("of_bitsandbytes", PairedRatio(*race.peer, race.nf4).median);
  line.Add("of_copy_bandwidth", race.packed_bytes / (race.nf4.median_us * 1e-6) / copy_bandwidth);
  const double flops = 2.0 * static_cast<double>(race.rows * race.shape.n * race.shape.k);
  line.Add("nf4_tflops", flops / race.nf4.median_us * 1e-6);
  line.Add("cublas_tflops", flops / race.cublas.median_us * 1e-6);
  figures->Write(line);
}

// One shape's weights in every form, raced for every number of rows.
std::vector<Race> RaceShape(Machine* machine, const BitsAndBytes* peer, const Shape& shape,
                            double copy_bandwidth, Figures* figures) {
  std::vector<Race> races;
  const size_t mark = machine->Mark();
  const int64_t max_rows = RowCounts(machine->effort().rehearsal).back();
  const Products products(machine, max_rows, shape.k);
  const Copies nf4 = machine->RandomCopies(Spec(shape, WeightFormat::kNf4));
  const Copies nested = machine->RandomCopies(Spec(shape, WeightFormat::kNf4, true));
  const Copies bf16 = machine->RandomCopies(Spec(shape, WeightFormat::kBf16));
  std::vector<PeerMatrix> peers;
  if (peer != nullptr) peers = products.RandomPeers(shape);
  void* const unpacked = peer == nullptr ? nullptr : machine->Allocate(shape.n * shape.k * 2);
  const Activations all = machine->RandomRows(max_rows, shape.k);
  const void* const halves = products.AsBf16(all);
  float* const out = machine->Make<float>(max_rows * shape.n);
  for (const int64_t rows : RowCounts(machine->effort().rehearsal)) {
    const Activations x = all.Rows(0, rows);
    std::vector<Contender> contenders = {products.Cublas(bf16, halves, rows, out),
                                         products.Ours("nf4", nf4, x, out),
                                         products.Ours("nf4+dq", nested, x, out)};
    if (peer != nullptr) {
      contenders.push_back(products.Peer(*peer, peers, halves, rows, out, unpacked));
    }
    absl::StatusOr<std::vector<Timing>> timings = machine->Race(contenders);
    if (!timings.ok()) {
      figures->Missing(absl::StrCat("product ", shape.n, "x", shape.k, " m=", rows),
                       timings.status().ToString());
      continue;
    }
    Race race = {shape,         rows,          static_cast<double>(nf4.bytes),
                 (*timings)[0], (*timings)[1], (*timings)[2],
                 std::nullopt};
    if (peer != nullptr) race.peer = (*timings)[3];
    WriteRow(race, copy_bandwidth, figures);
    races.push_back(std::move(race));
  }
  machine->Rewind(mark);
  return races;
}

void WriteFigure(const char* name, const Ratio& ratio, Figures* figures) {
  figures->Write(
      Line("figure", name).Add("value", ratio.median).Add("min", ratio.min).Add("max", ratio.max));
}

// The race of the largest (or another) shape with so many rows; null if it failed.
const Race* Find(const std::vector<Race>& races, const Shape& shape, int64_t rows) {
  for (const Race& race : races) {
    if (race.shape.n == shape.n && race.shape.k == shape.k && race.rows == rows) return &race;
  }
  return nullptr;
}

// G1 and G1b: bytes of codes and scales per second ÷ a copy's.
void WriteBandwidth(const char* name, const Race* race, double copy_bandwidth, Figures* figures) {
  if (race == nullptr) return figures->Missing(name, "its race failed");
  const auto share = [&](double us) { return race->packed_bytes / (us * 1e-6) / copy_bandwidth; };
  WriteFigure(name, {share(race->nf4.median_us), share(race->nf4.max_us), share(race->nf4.min_us)},
              figures);
}

// The large shape alone: G1, G2, G5, G6.
void WriteLargeShape(const std::vector<Race>& races, double copy_bandwidth, bool rehearsal,
                     Figures* figures) {
  const Shape large = Shapes(rehearsal).back();
  const Race* const one = Find(races, large, 1);
  const Race* const sixteen = Find(races, large, 16);
  WriteBandwidth("G1", one, copy_bandwidth, figures);
  WriteBandwidth("G1b", Find(races, *(Shapes(rehearsal).end() - 2), 1), copy_bandwidth, figures);
  Ratio worst = {1e30, 1e30, 1e30};
  for (const Race& race : races) {
    if (race.shape.n != large.n) continue;
    const Ratio ratio = PairedRatio(race.cublas, race.nf4);
    if (race.rows <= 16 && ratio.median < worst.median) worst = ratio;
    if (race.rows == 32 || race.rows == 64 || race.rows == 128) {
      WriteFigure(absl::StrCat("G2 M=", race.rows).c_str(), ratio, figures);
    }
  }
  WriteFigure("G2 M=1-16", worst, figures);
  if (one == nullptr || sixteen == nullptr) return figures->Missing("G5, G6", "a race failed");
  WriteFigure("G5", PairedRatio(one->nf4, one->nested), figures);
  WriteFigure("G6", PairedRatio(sixteen->nf4, one->nf4), figures);
}

// Over the shapes, by the number of rows: G3, the geometric means and the minimum; G4 likewise
// against bitsandbytes.
void WriteAllShapes(const std::vector<Race>& races, Figures* figures) {
  std::map<int64_t, std::vector<double>> of_cublas, of_peer;
  std::vector<double> all, all_peer;
  for (const Race& race : races) {
    all.push_back(PairedRatio(race.cublas, race.nf4).median);
    of_cublas[race.rows].push_back(all.back());
    if (!race.peer) continue;
    all_peer.push_back(PairedRatio(*race.peer, race.nf4).median);
    of_peer[race.rows].push_back(all_peer.back());
  }
  const auto write = [&](const std::string& name, const std::vector<double>& ratios) {
    const auto [low, high] = std::minmax_element(ratios.begin(), ratios.end());
    WriteFigure(name.c_str(), {GeometricMean(ratios), *low, *high}, figures);
  };
  for (const auto& [rows, ratios] : of_cublas) {
    if (rows >= 256) write(absl::StrCat("G3 M=", rows), ratios);
  }
  if (!all.empty()) {
    const double low = *std::min_element(all.begin(), all.end());
    WriteFigure("G3 minimum", {low, low, low}, figures);
  }
  for (const auto& [rows, ratios] : of_peer) write(absl::StrCat("G4 M=", rows), ratios);
  if (all_peer.empty()) return figures->Missing("G4", "bitsandbytes' library was not opened");
  write("G4 geomean", all_peer);
}

}  // namespace

void MeasureProducts(Machine* machine, const BitsAndBytes* peer, double copy_bandwidth,
                     Figures* figures) {
  std::vector<Race> races;
  for (const Shape& shape : Shapes(machine->effort().rehearsal)) {
    const std::vector<Race> some = RaceShape(machine, peer, shape, copy_bandwidth, figures);
    races.insert(races.end(), some.begin(), some.end());
  }
  WriteLargeShape(races, copy_bandwidth, machine->effort().rehearsal, figures);
  WriteAllShapes(races, figures);
}

}  // namespace nibble::bench
