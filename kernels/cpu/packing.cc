// Permutes checkpoint matrices into row lanes.
#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace nibble {
namespace {

constexpr int64_t kLineValues = 8;
constexpr int64_t kLineBytes = 64;
constexpr uint32_t kZeroLine = 0x77777777;  // eight times code 7, which stands for zero

int64_t NumLines(int64_t k) { return CeilDiv(k, kLineValues); }

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

// The codes of flat elements [i, i + count), count <= 8, lowest nibble first, padded with zeros.
uint32_t LineOf(const uint8_t* codes, int64_t i, int64_t count) {
  if (count == kLineValues && i % 2 == 0) {
    uint32_t bytes;
    std::memcpy(&bytes, codes + i / 2, sizeof(bytes));
    return (bytes & 0x0f0f0f0fu) << 4 | (bytes >> 4 & 0x0f0f0f0fu);
  }
  uint32_t line = kZeroLine;
  for (int64_t j = 0; j < count; ++j) {
    line ^= (CodeAt(codes, i + j) ^ 7u) << (4 * j);
  }
  return line;
}

void PackCodes(const FourBitMatrix& matrix, uint32_t* out) {
  const int64_t lines = NumLines(matrix.k);
  for (int64_t row = 0; row < NumPanels(matrix.n) * kLanes; ++row) {
    const PanelPlace place = PlaceOf(matrix.n, row / kLanes);
    uint32_t* lane = out + (place.first_panel * lines + place.index) * kLanes + row % kLanes;
    for (int64_t line = 0; line < lines; ++line) {
      const int64_t k = line * kLineValues;
      lane[line * place.panels * kLanes] =
          row < matrix.n
              ? LineOf(matrix.codes.data(), row * matrix.k + k, std::min(kLineValues, matrix.k - k))
              : kZeroLine;
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

absl::Status CheckNf4(const FourBitMatrix& matrix, const WeightSpec& spec) {
  if (spec.format != matrix.format || matrix.n != spec.n || matrix.k != spec.k ||
      matrix.group_size != spec.group_size || matrix.double_quant != spec.double_quant) {
    return absl::InvalidArgumentError(
        absl::StrCat("pack: got an NF4 matrix [", matrix.n, ",", matrix.k, "] with groups of ",
                     matrix.group_size, matrix.double_quant ? ", double quantized" : "", "; want ",
                     Name(spec.format), " [", spec.n, ",", spec.k, "] with groups of ",
                     spec.group_size, spec.double_quant ? ", double quantized" : ""));
  }
  if (!matrix.double_quant) return absl::OkStatus();
  if (std::memcmp(matrix.nested_map.data(), DynamicMap().data(), sizeof(matrix.nested_map)) != 0) {
    return absl::InvalidArgumentError(
        "pack: the matrix has a nested map other than bitsandbytes' dynamic map");
  }
  return absl::OkStatus();
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
  const int64_t rows = NumPanels(spec.n) * kLanes;
  PackedSize size;
  if (IsSixteenBit(spec.format)) {
    size.codes = rows * spec.k * 2;
    return size;
  }
  size.codes = rows * NumLines(spec.k) * kLineValues / 2;
  const int64_t groups = CeilDiv(spec.n * spec.k, spec.group_size);
  const int64_t stored = GroupsStraddleRows(spec) ? groups : rows * (spec.k / spec.group_size);
  size.scales = stored * (spec.double_quant ? 1 : 4);
  if (spec.double_quant) size.nested = CeilDiv(groups, kNestedGroup) * 4 + 4;
  return size;
}

absl::Status PackFourBitMatrix(const FourBitMatrix& matrix, Weight* weight) {
  if (absl::Status status = CheckNf4(matrix, weight->spec); !status.ok()) return status;
  PackCodes(matrix, static_cast<uint32_t*>(weight->codes));
  if (!matrix.double_quant) {
    PackScales(weight->spec, matrix.absmax, static_cast<float*>(weight->scales));
    return absl::OkStatus();
  }
  PackScales(weight->spec, matrix.absmax_codes, static_cast<uint8_t*>(weight->scales));
  float* nested = static_cast<float*>(weight->nested);
  std::copy(matrix.nested_absmax.begin(), matrix.nested_absmax.end(), nested);
  nested[matrix.nested_absmax.size()] = matrix.nested_offset;
  return absl::OkStatus();
}

absl::Status Pack16Rows(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (!IsSixteenBit(spec.format) || first_row < 0 || count < 0 || first_row > spec.n - count) {
    return absl::InvalidArgumentError(
        absl::StrCat("pack: got 16-bit rows ", first_row, " … ", first_row + count - 1,
                     "; want rows of ", Name(spec.format), " [", spec.n, ",", spec.k, "]"));
  }
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
  task->codes = codes + place.first_panel * NumLines(spec.k) * kLineBytes;
  task->group_size = spec.group_size;
  task->double_quant = spec.double_quant ? 1 : 0;
  const int64_t scale_bytes = spec.double_quant ? 1 : 4;
  const int64_t skipped = GroupsStraddleRows(spec) ? 0 : task->first_n * (spec.k / spec.group_size);
  task->scales = static_cast<const char*>(weight.scales) + skipped * scale_bytes;
  if (!spec.double_quant) return;
  task->nested = static_cast<const float*>(weight.nested);
  const int64_t groups = CeilDiv(spec.n * spec.k, spec.group_size);
  task->nested_offset = task->nested[CeilDiv(groups, kNestedGroup)];
}

}  // namespace nibble
