// The table that this GPU should have: every path forced, raced over rows and shapes, and the
// bounds at which another one becomes the fastest.
#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/cuda/products.h"

namespace nibble::bench {
namespace {

using cuda::MatMulPath;

struct Class {
  int64_t small_weights = int64_t{4} << 20;
  std::vector<Shape> shapes[2];  // fewer values than small_weights, or not
  std::vector<int64_t> rows;
};

Class Sizes(bool rehearsal) {
  Class sizes;
  if (rehearsal) {
    sizes.small_weights = 48 * 128 + 1;
    sizes.shapes[0] = {{48, 128}};
    sizes.shapes[1] = {{80, 128}};
    sizes.rows = {1, 17};
    return sizes;
  }
  sizes.shapes[0] = {{2048, 1024}, {1024, 2048}};
  sizes.shapes[1] = {{4096, 4096}, {14336, 4096}, {4096, 14336}, {28672, 8192}};
  sizes.rows = {1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024, 2048};
  return sizes;
}

// The sum of times by rows, of each of several tables, over shapes of one class.
std::vector<std::map<int64_t, double>> Times(Machine* machine, const std::vector<Shape>& shapes,
                                             const std::vector<int64_t>& rows, WeightFormat format,
                                             int64_t less_k,
                                             const std::vector<cuda::MatMulTable>& tables) {
  std::vector<std::map<int64_t, double>> times(tables.size());
  for (const Shape& shape : shapes) {
    const size_t mark = machine->Mark();
    WeightSpec spec;
    spec.format = format;
    spec.n = shape.n;
    spec.k = shape.k - less_k;
    spec.double_quant = false;
    const Products products(machine, rows.back(), spec.k);
    const Copies weights = machine->RandomCopies(spec);
    const Activations all = machine->RandomRows(rows.back(), spec.k);
    float* const out = machine->Make<float>(rows.back() * shape.n);
    for (const int64_t m : rows) {
      for (size_t i = 0; i < tables.size(); ++i) {
        const Contender way = products.Ours("", weights, all.Rows(0, m), out, &tables[i]);
        const bool streams = tables[i].stream_rows[0] > 0;
        const absl::StatusOr<std::vector<Timing>> timing = machine->Race({&way, 1});
        if (!timing.ok()) std::fprintf(stderr, "%s\n", timing.status().ToString().c_str());
        const bool took_it = timing.ok() && (!streams || m <= cuda::kMaxStreamRows);
        // In units of the shape's size, so that large shapes do not outvote the others.
        times[i][m] +=
            took_it ? (*timing)[0].median_us / static_cast<double>(shape.n * shape.k) : 1e30;
      }
    }
    machine->Rewind(mark);
  }
  return times;
}

// The most rows for which each way but the last is taken, when ways follow each other with growing
// numbers of rows and the sum of slowdowns over the fastest way is the least.
std::vector<int64_t> Bounds(const std::vector<std::map<int64_t, double>>& times) {
  struct Choice {
    double cost = 0;
    std::vector<int64_t> bounds;
  };
  // Of the rows so far, by the way that the last of them goes.
  std::vector<Choice> choices(times.size(), {0, std::vector<int64_t>(times.size(), 0)});
  for (const auto& [rows, unused] : times[0]) {
    double best = times[0].at(rows);
    for (const auto& way : times) best = std::min(best, way.at(rows));
    for (size_t way = times.size(); way-- > 0;) {
      size_t before = 0;
      for (size_t i = 1; i <= way; ++i) {
        if (choices[i].cost < choices[before].cost) before = i;
      }
      Choice choice = choices[before];
      choice.cost += times[way].at(rows) / best;
      for (size_t i = way; i < times.size(); ++i) choice.bounds[i] = rows;
      choices[way] = std::move(choice);
    }
  }
  size_t best = 0;
  for (size_t i = 1; i < choices.size(); ++i) {
    if (choices[i].cost < choices[best].cost) best = i;
  }
  return choices[best].bounds;
}

}  // namespace

void PrintTable(Machine* machine) {
  const Class sizes = Sizes(machine->effort().rehearsal);
  const bool hopper = machine->traits().compute_major == 9;
  std::vector<cuda::MatMulTable> four_bit = {Forced(MatMulPath::kStream, true),
                                             Forced(MatMulPath::kStaged, true)};
  if (hopper) four_bit.push_back(Forced(MatMulPath::kHopper, true));
  four_bit.push_back(Forced(MatMulPath::kUnpack, true));
  const std::vector<cuda::MatMulTable> general = {Forced(MatMulPath::kGeneral, true),
                                                  Forced(MatMulPath::kUnpack, true)};
  const std::vector<cuda::MatMulTable> own = {Forced(MatMulPath::kUnpack, true),
                                              Forced(MatMulPath::kUnpack, false)};
  std::vector<int64_t> bounds[6];  // of each column of the table, by class
  for (const std::vector<Shape>& shapes : sizes.shapes) {
    const auto times = [&](WeightFormat format, int64_t less_k, const auto& tables) {
      return Bounds(Times(machine, shapes, sizes.rows, format, less_k, tables));
    };
    const std::vector<int64_t> fused = times(WeightFormat::kNf4, 0, four_bit);
    bounds[0].push_back(std::min(fused[0], cuda::kMaxStreamRows));
    bounds[1].push_back(fused[1]);
    bounds[2].push_back(hopper ? fused[2] : 0);
    bounds[3].push_back(times(WeightFormat::kNf4, 16, general)[0]);
    bounds[4].push_back(times(WeightFormat::kBf16, 0, own)[0]);
    bounds[5].push_back(times(WeightFormat::kInt8, 0, own)[0]);
  }
  std::string line = absl::StrCat(
      "    {\"", machine->traits().name, "\", ",
      machine->traits().compute_major * 10 + machine->traits().compute_minor, ", kSmall");
  for (const std::vector<int64_t>& pair : bounds) {
    absl::StrAppend(&line, ", {", pair[0], ", ", pair[1], "}");
  }
  std::printf("%s},\n", line.c_str());
}

}  // namespace nibble::bench
