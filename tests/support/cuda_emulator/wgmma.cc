// wgmma: products of a warpgroup that read shared memory and write registers some time between
// their issue and the wait for them. Until a lane has waited its sums are NaN.
#include <cstring>
#include <limits>
#include <memory>

#include "tests/support/cuda_emulator/block.h"
#include "tests/support/cuda_emulator/half_table.h"

namespace nibble::cuda::emulator {
namespace {

constexpr int kLanes = 128;
constexpr int kRows = 64;
constexpr int kDepth = 16;

struct WgmmaFrame {
  int n;
  float* d;
  const uint32_t* a;
  uint64_t b;
  uint32_t group;
};

}  // namespace

// The sums of one accumulator of a warpgroup, and what is still to be added to them.
struct Wgmma {
  struct Step {
    uint32_t group;
    float a[kRows][kDepth];
    uint64_t b;
  };
  int n = 0;
  float* lanes[kLanes] = {};
  std::vector<float> sums;  // [64, n]
  int users = kLanes;       // that have not taken their sums
  uint32_t last_group = 0;
  std::vector<Step> steps;
};

namespace {

// Where element i of a lane's accumulator stands.
int RowOf(int lane, int i) { return lane / 32 * 16 + lane % 32 / 4 + i / 2 % 2 * 8; }
int ColumnOf(int lane, int i) { return i / 4 * 8 + lane % 4 * 2 + i % 2; }
float& SumOf(Wgmma& product, int lane, int i) {
  const int at = RowOf(lane, i) * product.n + ColumnOf(lane, i);
  return product.sums[static_cast<size_t>(at)];
}

void ReadB(Block& block, uint64_t descriptor, int n, float (*b)[256]) {
  const auto field = [&](int shift) {
    return static_cast<uint32_t>(descriptor >> shift & 0x3fff) << 4;
  };
  for (int column = 0; column < n; ++column) {
    for (int half = 0; half < 2; ++half) {
      const uint32_t address = field(0) + static_cast<uint32_t>(half) * field(16) +
                               static_cast<uint32_t>(column / 8) * field(32) +
                               static_cast<uint32_t>(column % 8) * 16;
      const ptrdiff_t offset = SharedAt("WgmmaHalf", address, 16, 16) - block.shared;
      uint16_t values[8];
      std::memcpy(values, AsyncShared(block) + offset, sizeof(values));
      for (int i = 0; i < 8; ++i) b[half * 8 + i][column] = Widen(values[i]);
    }
  }
}

// sums[n] += a·b, rounded after each k.
__attribute__((target_clones("avx2", "default"))) void AddRow(const float (&a)[kDepth],
                                                              const float (*b)[256], int n,
                                                              float* sums) {
  constexpr int kWidth = 8;
  for (int begin = 0; begin < n; begin += kWidth) {
    float part[kWidth];
    for (int i = 0; i < kWidth; ++i) part[i] = sums[begin + i];
    for (int k = 0; k < kDepth; ++k) {
      for (int i = 0; i < kWidth; ++i) part[i] += a[k] * b[k][begin + i];
    }
    for (int i = 0; i < kWidth; ++i) sums[begin + i] = part[i];
  }
}

// Adds the steps of groups before `end`.
void AddSteps(Block& block, Wgmma& product, uint32_t end) {
  float b[kDepth][256];
  size_t num_done = 0;
  for (; num_done < product.steps.size() && product.steps[num_done].group < end; ++num_done) {
    const Wgmma::Step& step = product.steps[num_done];
    ReadB(block, step.b, product.n, b);
    for (int row = 0; row < kRows; ++row) {
      AddRow(step.a[row], b, product.n, product.sums.data() + row * product.n);
    }
  }
  product.steps.erase(product.steps.begin(),
                      product.steps.begin() + static_cast<ptrdiff_t>(num_done));
}

const WgmmaFrame& FrameOf(void* const* frames, int lane) {
  return *static_cast<const WgmmaFrame*>(frames[lane]);
}

// The product that these accumulators belong to; a new one begins with what the lanes hold.
Wgmma& FindOrBegin(Block& block, void* const* frames) {
  const uint32_t first = block.current->number / kLanes * kLanes;
  for (const std::unique_ptr<Wgmma>& product : block.wgmmas) {
    if (product->lanes[0] == FrameOf(frames, 0).d) return *product;
  }
  block.wgmmas.push_back(std::make_unique<Wgmma>());
  Wgmma& product = *block.wgmmas.back();
  product.n = FrameOf(frames, 0).n;
  product.sums.resize(size_t{kRows} * static_cast<size_t>(product.n));
  for (int lane = 0; lane < kLanes; ++lane) {
    product.lanes[lane] = FrameOf(frames, lane).d;
    for (int i = 0; i < product.n / 2; ++i) {
      SumOf(product, lane, i) = product.lanes[lane][i];
      product.lanes[lane][i] = std::numeric_limits<float>::quiet_NaN();
    }
    block.threads[first + static_cast<uint32_t>(lane)].wgmmas.push_back(&product);
  }
  return product;
}

// What m16n8k16 says of a warp's A holds for each warp's 16 of the 64 rows.
void ReadA(void* const* frames, Wgmma::Step* step) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t pair = FrameOf(frames, lane).a[i];
      float* const a = &step->a[RowOf(lane, i % 2 * 2)][lane % 4 * 2 + i / 2 * 8];
      a[0] = Widen(static_cast<uint16_t>(pair));
      a[1] = Widen(static_cast<uint16_t>(pair >> 16));
    }
  }
}

void IssueProduct(void* const* frames) {
  Block& block = Running();
  const uint32_t group = block.current->wgmma_groups;
  Wgmma& product = FindOrBegin(block, frames);
  for (int lane = 0; lane < kLanes; ++lane) {
    const WgmmaFrame& frame = FrameOf(frames, lane);
    if (frame.group != group || frame.n != product.n || frame.b != FrameOf(frames, 0).b ||
        frame.d != product.lanes[lane]) {
      Die("WgmmaHalf: the lanes of a warpgroup differ in groups, operands or accumulators");
    }
  }
  product.last_group = group;
  product.steps.emplace_back();
  product.steps.back().group = group;
  product.steps.back().b = FrameOf(frames, 0).b;
  ReadA(frames, &product.steps.back());
  if (DoNow(block)) AddSteps(block, product, group + 1);
}

}  // namespace

void FenceWgmma() { Running().current->wgmma_fenced = true; }

void StartWgmma(const Point& point, int n, float* d, const uint32_t* a, uint64_t b) {
  const Thread& thread = *Running().current;
  if (!thread.wgmma_fenced) Die("WgmmaHalf in a group that does not begin with WgmmaFence");
  WgmmaFrame frame = {n, d, a, b, thread.wgmma_groups};
  MeetWarpgroup(point, &frame, &IssueProduct);
}

void CommitWgmma() {
  Thread& thread = *Running().current;
  ++thread.wgmma_groups;
  thread.wgmma_fenced = false;
}

void WaitForWgmma(int pending) {
  Block& block = Running();
  Thread& thread = *block.current;
  const int lane = static_cast<int>(thread.number % kLanes);
  const uint32_t keep = static_cast<uint32_t>(pending);
  const uint32_t end = thread.wgmma_groups > keep ? thread.wgmma_groups - keep : 0;
  std::erase_if(thread.wgmmas, [&](Wgmma* product) {
    AddSteps(block, *product, end);
    if (product->last_group >= end) return false;
    for (int i = 0; i < product->n / 2; ++i) product->lanes[lane][i] = SumOf(*product, lane, i);
    if (--product->users == 0) {
      std::erase_if(block.wgmmas, [&](const auto& owned) { return owned.get() == product; });
    }
    return true;
  });
}

// Where Wgmma is complete.
Block::Block() = default;
Block::~Block() = default;

}  // namespace nibble::cuda::emulator
