// Permutes checkpoint matrices into row lanes.
#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cstring>

#include "kernels/pack_checks.h"

namespace nibble {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kCodebookSize = 16;
constexpr int64_t kMapSize = 256;

// k values of a line: what a dword holds of one row.
int64_t LineValues(WeightFormat format) { return format == WeightFormat::kInt8 ? 4 : 8; }
int64_t NumLines(const WeightSpec& spec) { return CeilDiv(spec.k, LineValues(spec.format)); }

// Eight times the code of zero.
uint32_t ZeroLine(WeightFormat format) { return format == WeightFormat::kNf4 ? 0x77777777u : 0u; }

// Where a panel lies: the first panel of its super panel, how many panels that has, and its place
// among them.
struct PanelPlace {
  int64_t first_panel;
  int64_t panels;
  int64_t index;
};

PanelPlace PlaceOf(int64_t n, int64_t panel) {
  const int64_t width = PanelWidth(n);
  const int64_t first = panel / width * width;
  return {first, std::min(width, NumPanels(n) - first), panel - first};
}

// A 4-bit matrix in flat order: code i is in the high half of byte i/2 when i is even.
uint32_t CodeAt(const uint8_t* codes, int64_t i) {
  return i % 2 == 0 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
}

// The dword that row `row` has in line 0; the row's next lines follow at distances of
// place.panels · 16 dwords.
int64_t FirstDword(const WeightSpec& spec, int64_t row, const PanelPlace& place) {
  return (place.first_panel * NumLines(spec) + place.index) * kLanes + row % kLanes;
}

// The codes of flat elements [i, i + count), count <= 8, lowest nibble first, the rest from `zero`.
uint32_t LineOf(const uint8_t* codes, int64_t i, int64_t count, uint32_t zero) {
  if (count == 8 && i % 2 == 0) {
    uint32_t bytes;
    std::memcpy(&bytes, codes + i / 2, sizeof(bytes));
    return (bytes & 0x0f0f0f0fu) << 4 | (bytes >> 4 & 0x0f0f0f0fu);
  }
  uint32_t line = zero;
  for (int64_t j = 0; j < count; ++j) {
    line ^= (CodeAt(codes, i + j) ^ (zero & 15u)) << (4 * j);
  }
  return line;
}

// The inverse of LineOf.
void UnpackLine(uint32_t line, int64_t i, int64_t count, uint8_t* codes) {
  if (count == 8 && i % 2 == 0) {
    const uint32_t bytes = (line & 0x0f0f0f0fu) << 4 | (line >> 4 & 0x0f0f0f0fu);
    std::memcpy(codes + i / 2, &bytes, sizeof(bytes));
    return;
  }
  for (int64_t j = i; j < i + count; ++j, line >>= 4) {
    uint8_t& byte = codes[j / 2];
    const uint32_t code = line & 15u;
    byte = static_cast<uint8_t>(j % 2 == 0 ? (byte & 0x0fu) | code << 4 : (byte & 0xf0u) | code);
  }
}

// The dwords of all rows: dword_of(row, first k, how many of its k exist) for those below N, `zero`
// beyond.
template <typename F>
void PackLines(const WeightSpec& spec, uint32_t zero, uint32_t* out, F dword_of) {
  const int64_t lines = NumLines(spec), values = LineValues(spec.format);
  for (int64_t row = 0; row < NumPanels(spec.n) * kLanes; ++row) {
    const PanelPlace place = PlaceOf(spec.n, row / kLanes);
    uint32_t* lane = out + FirstDword(spec, row, place);
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t k = line * values;
      lane[line * place.panels * kLanes] =
          row < spec.n ? dword_of(row, k, std::min(values, spec.k - k)) : zero;
    }
  }
}

// take(dword, row, first k, how many of its k exist) for all rows below N.
template <typename F>
void UnpackLines(const WeightSpec& spec, const uint32_t* packed, F take) {
  const int64_t lines = NumLines(spec), values = LineValues(spec.format);
  for (int64_t row = 0; row < spec.n; ++row) {
    const PanelPlace place = PlaceOf(spec.n, row / kLanes);
    const uint32_t* lane = packed + FirstDword(spec, row, place);
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t k = line * values;
      take(lane[line * place.panels * kLanes], row, k, std::min(values, spec.k - k));
    }
  }
}

// scales: [N][K/group_size] in the checkpoint's order, fp32 or 8-bit codes.
template <typename T>
void PackScales(const WeightSpec& spec, const std::vector<T>& scales, T* out) {
  if (GroupsStraddleRows(spec)) {
    std::copy(scales.begin(), scales.end(), out);
    return;
  }
  const int64_t groups = spec.k / spec.group_size;
  for (int64_t row = 0; row < NumPanels(spec.n) * kLanes; ++row) {
    const PanelPlace place = PlaceOf(spec.n, row / kLanes);
    T* lane = out + (place.first_panel * groups + place.index) * kLanes + row % kLanes;
    for (int64_t g = 0; g < groups; ++g) {
      lane[g * place.panels * kLanes] =
          row < spec.n ? scales[static_cast<size_t>(row * groups + g)] : T{0};
    }
  }
}

// The inverse of PackScales, into a vector that has its size.
template <typename T>
void UnpackScales(const WeightSpec& spec, const T* packed, std::vector<T>* scales) {
  if (GroupsStraddleRows(spec)) {
    std::copy_n(packed, scales->size(), scales->begin());
    return;
  }
  const int64_t groups = spec.k / spec.group_size;
  for (int64_t row = 0; row < spec.n; ++row) {
    const PanelPlace place = PlaceOf(spec.n, row / kLanes);
    const T* lane = packed + (place.first_panel * groups + place.index) * kLanes + row % kLanes;
    for (int64_t g = 0; g < groups; ++g) {
      (*scales)[static_cast<size_t>(row * groups + g)] = lane[g * place.panels * kLanes];
    }
  }
}

void PackTables(const FourBitMatrix& matrix, float* out) {
  std::copy(matrix.codebook.begin(), matrix.codebook.end(), out);
  if (!matrix.double_quant) return;
  std::copy(matrix.nested_map.begin(), matrix.nested_map.end(), out + kCodebookSize);
}

// The scale of group `group` of the matrix, which lies at `at` of the task's scales: two roundings.
float ScaleAt(const MatMulTask& task, int64_t at, int64_t group) {
  if (task.double_quant == 0) return static_cast<const float*>(task.scales)[at];
  const uint8_t code = static_cast<const uint8_t*>(task.scales)[at];
  const float scaled = task.map[code] * task.nested[group / kNestedGroup];
  return scaled + task.nested_offset;
}

// The values [first_k, first_k + values.size()) of a row in lane `lane` of the super panel that
// `task` describes, one group after the other.
void UnpackFourBitRow(const MatMulTask& task, int64_t lane, int64_t first_k,
                      std::span<float> values) {
  const auto* codes = static_cast<const uint32_t*>(task.codes) + lane;
  const int64_t width = task.panels * kLanes, begin = (task.first_n + lane) * task.k;
  const bool straddles = task.k % task.group_size != 0;
  const int64_t end = first_k + std::ssize(values);
  for (int64_t k = first_k; k < end;) {
    const int64_t group = (begin + k) / task.group_size;
    const int64_t at = straddles ? group : k / task.group_size * width + lane;
    const float scale = ScaleAt(task, at, group);
    const int64_t group_end = std::min(end, (group + 1) * task.group_size - begin);
    for (; k < group_end; ++k) {
      const uint32_t code = codes[k / 8 * width] >> (4 * (k % 8)) & 15u;
      values[static_cast<size_t>(k - first_k)] = task.codebook[code] * scale;
    }
  }
}

void UnpackInt8Row(const MatMulTask& task, int64_t lane, int64_t first_k, std::span<float> values) {
  constexpr float kReciprocal = 1.0f / 127;
  const auto* codes = static_cast<const int8_t*>(task.codes) + lane * 4;
  const int64_t line_bytes = task.panels * kLineBytes;
  const float absmax = static_cast<const float*>(task.scales)[lane];
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t k = first_k + static_cast<int64_t>(i);
    values[i] = static_cast<float>(codes[k / 4 * line_bytes + k % 4]) * absmax * kReciprocal;
  }
}

PackedSize FourBitBytes(const WeightSpec& spec) {
  const int64_t rows = NumPanels(spec.n) * kLanes;
  const int64_t groups = CeilDiv(spec.n * spec.k, spec.group_size);
  const int64_t stored = GroupsStraddleRows(spec) ? groups : rows * (spec.k / spec.group_size);
  PackedSize size;
  size.codes = rows * NumLines(spec) * 4;
  size.scales = stored * (spec.double_quant ? 1 : 4);
  if (spec.double_quant) size.nested = CeilDiv(groups, kNestedGroup) * 4 + 4;
  if (spec.own_tables) size.tables = (kCodebookSize + (spec.double_quant ? kMapSize : 0)) * 4;
  return size;
}

}  // namespace

int64_t PanelWidth(int64_t n) {
  const int64_t panels = NumPanels(n);
  for (int64_t width = kMaxPanels; width > kMaxPanels / 2; --width) {
    if (panels % width == 0) return width;
  }
  return kMaxPanels;
}

PackedSize PackedBytesOf(const WeightSpec& spec) {
  if (IsFourBit(spec.format)) return FourBitBytes(spec);
  const int64_t rows = NumPanels(spec.n) * kLanes;
  if (IsSixteenBit(spec.format)) return {.codes = rows * spec.k * 2};
  return {.codes = rows * NumLines(spec) * 4, .scales = rows * 4};
}

absl::Status PackFourBitMatrix(const FourBitMatrix& matrix, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPackFourBit(matrix, spec); !status.ok()) return status;
  const uint32_t zero = ZeroLine(spec.format);
  PackLines(spec, zero, static_cast<uint32_t*>(weight->codes),
            [&](int64_t row, int64_t k, int64_t count) {
              return LineOf(matrix.codes.data(), row * spec.k + k, count, zero);
            });
  if (spec.own_tables) PackTables(matrix, static_cast<float*>(weight->tables));
  if (!matrix.double_quant) {
    PackScales(spec, matrix.absmax, static_cast<float*>(weight->scales));
    return absl::OkStatus();
  }
  PackScales(spec, matrix.absmax_codes, static_cast<uint8_t*>(weight->scales));
  float* nested = static_cast<float*>(weight->nested);
  std::copy(matrix.nested_absmax.begin(), matrix.nested_absmax.end(), nested);
  nested[matrix.nested_absmax.size()] = matrix.nested_offset;
  return absl::OkStatus();
}

FourBitMatrix UnpackFourBitMatrix(const Weight& weight) {
  const WeightSpec& spec = weight.spec;
  FourBitMatrix matrix;
  matrix.format = spec.format;
  matrix.n = spec.n;
  matrix.k = spec.k;
  matrix.group_size = spec.group_size;
  matrix.double_quant = spec.double_quant;
  const uint8_t zeros = static_cast<uint8_t>(ZeroLine(spec.format));
  matrix.codes.resize(static_cast<size_t>(CeilDiv(matrix.NumValues(), 2)), zeros);
  UnpackLines(spec, static_cast<const uint32_t*>(weight.codes),
              [&](uint32_t line, int64_t row, int64_t k, int64_t count) {
                UnpackLine(line, row * spec.k + k, count, matrix.codes.data());
              });
  const float* tables = static_cast<const float*>(weight.tables);
  matrix.codebook = CodebookOf(spec.format);
  if (spec.own_tables) std::copy_n(tables, kCodebookSize, matrix.codebook.begin());
  const auto groups = static_cast<size_t>(matrix.NumGroups());
  if (!spec.double_quant) {
    matrix.absmax.resize(groups);
    UnpackScales(spec, static_cast<const float*>(weight.scales), &matrix.absmax);
    return matrix;
  }
  matrix.absmax_codes.resize(groups);
  UnpackScales(spec, static_cast<const uint8_t*>(weight.scales), &matrix.absmax_codes);
  const float* nested = static_cast<const float*>(weight.nested);
  const int64_t num_nested = CeilDiv(matrix.NumGroups(), kNestedGroup);
  matrix.nested_absmax.assign(nested, nested + num_nested);
  matrix.nested_offset = nested[num_nested];
  matrix.nested_map = DynamicMap();
  if (spec.own_tables) std::copy_n(tables + kCodebookSize, kMapSize, matrix.nested_map.begin());
  return matrix;
}

absl::Status PackInt8Matrix(const Int8Matrix& matrix, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPackInt8(matrix, spec); !status.ok()) return status;
  PackLines(
      spec, 0, static_cast<uint32_t*>(weight->codes), [&](int64_t row, int64_t k, int64_t count) {
        uint32_t dword = 0;
        std::memcpy(&dword, matrix.codes.data() + row * spec.k + k, static_cast<size_t>(count));
        return dword;
      });
  float* scales = static_cast<float*>(weight->scales);
  std::fill(std::copy(matrix.absmax.begin(), matrix.absmax.end(), scales),
            scales + NumPanels(spec.n) * kLanes, 0.0f);
  return absl::OkStatus();
}

Int8Matrix UnpackInt8Matrix(const Weight& weight) {
  const WeightSpec& spec = weight.spec;
  Int8Matrix matrix = MakeInt8Matrix(spec.n, spec.k);
  UnpackLines(spec, static_cast<const uint32_t*>(weight.codes),
              [&](uint32_t dword, int64_t row, int64_t k, int64_t count) {
                std::memcpy(matrix.codes.data() + row * spec.k + k, &dword,
                            static_cast<size_t>(count));
              });
  std::copy_n(static_cast<const float*>(weight.scales), spec.n, matrix.absmax.begin());
  return matrix;
}

absl::Status Pack16Rows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPack16(first_row, count, spec); !status.ok()) return status;
  const int64_t end = first_row + count;
  const int64_t padded_end = end == spec.n ? NumPanels(spec.n) * kLanes : end;
  for (int64_t row = first_row; row < padded_end; ++row) {
    const PanelPlace place = PlaceOf(spec.n, row / kLanes);
    uint16_t* lane = static_cast<uint16_t*>(weight->codes) +
                     (place.first_panel * spec.k + place.index) * kLanes + row % kLanes;
    const uint16_t* from = values + (row - first_row) * spec.k;
    for (int64_t k = 0; k < spec.k; ++k) {
      lane[k * place.panels * kLanes] = row < end ? from[k] : uint16_t{0};
    }
  }
  return absl::OkStatus();
}

void UnpackRow16(const Weight& weight, int64_t n, int64_t first_k, std::span<uint16_t> values) {
  const WeightSpec& spec = weight.spec;
  const PanelPlace place = PlaceOf(spec.n, n / kLanes);
  const uint16_t* lane = static_cast<const uint16_t*>(weight.codes) +
                         (place.first_panel * spec.k + place.index) * kLanes + n % kLanes +
                         first_k * place.panels * kLanes;
  for (size_t k = 0; k < values.size(); ++k) {
    values[k] = lane[static_cast<int64_t>(k) * place.panels * kLanes];
  }
}

void UnpackRow(const Weight& weight, int64_t n, int64_t first_k, std::span<float> values) {
  MatMulTask task = {};
  DescribeSuperPanel(weight, n / kLanes / PanelWidth(weight.spec.n), &task);
  const auto unpack = IsFourBit(weight.spec.format) ? UnpackFourBitRow : UnpackInt8Row;
  unpack(task, n - task.first_n, first_k, values);
}

void DescribeSuperPanel(const Weight& weight, int64_t super_panel, MatMulTask* task) {
  const WeightSpec& spec = weight.spec;
  const PanelPlace place = PlaceOf(spec.n, super_panel * PanelWidth(spec.n));
  task->n = spec.n;
  task->k = spec.k;
  task->first_n = place.first_panel * kLanes;
  task->panels = place.panels;
  const char* codes = static_cast<const char*>(weight.codes);
  if (IsSixteenBit(spec.format)) {
    task->codes = codes + task->first_n * spec.k * 2;
    return;
  }
  task->codes = codes + place.first_panel * NumLines(spec) * kLineBytes;
  if (spec.format == WeightFormat::kInt8) {
    task->scales = static_cast<const float*>(weight.scales) + task->first_n;
    return;
  }
  const float* tables = static_cast<const float*>(weight.tables);
  task->codebook = spec.own_tables ? tables : CodebookOf(spec.format).data();
  task->group_size = spec.group_size;
  task->double_quant = spec.double_quant ? 1 : 0;
  const int64_t scale_bytes = spec.double_quant ? 1 : 4;
  const int64_t skipped = GroupsStraddleRows(spec) ? 0 : task->first_n * (spec.k / spec.group_size);
  task->scales = static_cast<const char*>(weight.scales) + skipped * scale_bytes;
  if (!spec.double_quant) return;
  task->map = spec.own_tables ? tables + kCodebookSize : DynamicMap().data();
  task->nested = static_cast<const float*>(weight.nested);
  const int64_t groups = CeilDiv(spec.n * spec.k, spec.group_size);
  task->nested_offset = task->nested[CeilDiv(groups, kNestedGroup)];
}

}  // namespace nibble
