// What products of all kinds share: how weights lie, what becomes of a sum, and the scales of 4-bit
// weights.
#pragma once

#include "kernels/cpu/lanes_math.inl"

namespace nibble {
namespace {

constexpr int64_t kLineValues = 8;  // k values of one line of codes
constexpr int64_t kLineBytes = 64;  // 16 dwords of 8 codes
constexpr int64_t kHalfStep = 64;   // k of one step with 16-bit weights
constexpr int64_t kPrefetchBytes = 8192;

// Adds the old value, and stores the `count` lanes from output n on that exist.
inline void StoreOut(const MatMulTask& task, int64_t n, int64_t count, int64_t row, V16 sum) {
  float* out = task.out + row * task.out_stride + n;
  if (task.accumulate != 0) sum = Add(LoadN(out, count), sum);
  StoreN(out, sum, count);
}

inline V16 BiasOf(const MatMulTask& task, int64_t panel) {
  const int64_t n = task.first_n + panel * kLanes;
  return LoadVector(task.bias, n, AtMostLanes(task.n - n));
}

// Where the sums of one panel go.
class PanelOut {
 public:
  PanelOut(const MatMulTask& task, int64_t panel)
      : task_(task),
        n_(task.first_n + panel * kLanes),
        count_(AtMostLanes(task.n - n_)),
        bias_(task.bias.data != nullptr ? BiasOf(task, panel) : Zero()) {}

  // Adds bias and the old value to a row's sum, and stores the lanes that exist.
  inline void Finish(int64_t row, V16 sum) const {
    StoreOut(task_, n_, count_, row, task_.bias.data != nullptr ? Add(sum, bias_) : sum);
  }

 private:
  const MatMulTask& task_;
  const int64_t n_;
  const int64_t count_;
  const V16 bias_;
};

// The scales of some neighbouring panels, group by group, un-nested on the way.
class PanelScales {
 public:
  PanelScales(const MatMulTask& task, int64_t first_panel)
      : task_(task),
        first_panel_(first_panel),
        groups_(task.k / task.group_size),
        map_(LoadScaleMap(task.double_quant != 0 ? task.map : nullptr)) {
    for (int64_t& next : next_nested_) next = 0;
  }

  // Goes to group g (of each panel asked for ascending) of `count` panels from
  // `first_panel + panel` on.
  inline void Read(int64_t g, int64_t panel, int64_t count) {
    const int64_t line = (g * task_.panels + first_panel_) * kLanes;
    if (task_.double_quant == 0) {
      at_ = static_cast<const float*>(task_.scales) + line;
      return;
    }
    at_ = plain_;
    Unnest(static_cast<const uint8_t*>(task_.scales) + line, g, panel, count);
  }
  // The 16 scales of panel `first_panel + p`, one of those that Read was asked for.
  inline V16 At(int64_t p) const { return Load(at_ + p * kLanes); }

 private:
  // Two panels at a time. A function of its own, so that it finds registers for its tables.
  __attribute__((noinline)) void Unnest(const uint8_t* codes, int64_t g, int64_t panel,
                                        int64_t count) {
    const int64_t end = panel + count;
    for (; panel < end; panel += 2) {
      const int64_t second = panel + 1 < end ? panel + 1 : panel;
      V16 mapped[2];
      LookupScales(map_, codes + panel * kLanes, codes + second * kLanes, mapped);
      Place(panel, g, mapped[0]);
      if (second != panel) Place(second, g, mapped[1]);
    }
  }
  inline void Place(int64_t p, int64_t g, V16 mapped) {
    if (g == next_nested_[p]) LoadNested(p, g);
    Store(plain_ + p * kLanes, Add(Mul(mapped, Load(nested_[p])), Set1(task_.nested_offset)));
  }

  // Group g of row n is number n·groups + g of the matrix, and 256 numbers share a nested scale.
  void LoadNested(int64_t p, int64_t g) {
    int64_t next = groups_;
    for (int64_t i = 0; i < kLanes; ++i) {
      int64_t n = task_.first_n + (first_panel_ + p) * kLanes + i;
      if (n >= task_.n) n = task_.n - 1;
      const int64_t number = n * groups_ + g;
      nested_[p][i] = task_.nested[number >> 8];
      const int64_t change = g + 256 - (number & 255);
      next = change < next ? change : next;
    }
    next_nested_[p] = next;
  }

  const MatMulTask& task_;
  const int64_t first_panel_;
  const int64_t groups_;
  const ScaleMap map_;
  const float* at_ = nullptr;        // of first_panel, the group that was read last
  int64_t next_nested_[kMaxPanels];  // the group at which a lane's nested scale changes
  float nested_[kMaxPanels][kLanes];
  float plain_[kMaxPanels * kLanes];
};

}  // namespace
}  // namespace nibble
