// Rotary embedding, the KV store, paged and encoder attention: against the reference by derived
// bounds, and bit by bit over ISA rows, threads, chunks of prefill and neighbours.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/cpu/cpu_testing.h"

namespace nibble {
namespace {

struct Heads {
  int64_t query = 0, kv = 0, dim = 0;
};
std::ostream& operator<<(std::ostream& os, const Heads& h) {
  return os << h.query << " heads on " << h.kv << ", head_dim " << h.dim;
}
const Heads kHeads[] = {{9, 3, 64}, {4, 4, 8}, {6, 2, 12}, {8, 1, 80}, {2, 2, 128}, {3, 3, 32}};

BackendLimits LimitsOf(const Heads& heads, int64_t rows, int64_t context) {
  BackendLimits limits;
  limits.max_rows = rows;
  limits.max_context = context;
  limits.max_heads = heads.query;
  limits.max_head_dim = heads.dim;
  limits.max_k = heads.query * heads.dim;
  return limits;
}

// A cache of two layers whose every value is NaN until it is written.
class PoisonedCache {
 public:
  PoisonedCache(const Heads& heads, DType dtype, int64_t num_pages) {
    cache_ = {nullptr, dtype, 2, num_pages, heads.kv, heads.dim};
    memory_.assign(static_cast<size_t>(cache_.Bytes()), 0xff);  // NaN in all three types
    cache_.data = memory_.data();
  }
  const KvCache& view() const { return cache_; }

 private:
  KvCache cache_;
  std::vector<uint8_t> memory_;
};

// The whole life of some sequences: tokens' q, k and v, how they are cut into steps.
struct World {
  Heads heads;
  std::vector<int64_t> lengths;
  Matrix q, k, v;  // rows of all sequences, one after the other
  std::vector<float> inv_freq;

  World(const Heads& h, std::vector<int64_t> sequence_lengths, uint32_t seed)
      : World(h, std::move(sequence_lengths), Random(seed)) {}

  int64_t Rows() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t NumPages() const {
    int64_t pages = 0;
    for (const int64_t length : lengths) pages += (length + kPageSlots - 1) / kPageSlots;
    return pages + 3;
  }
  // Scattered pages, never the same twice.
  std::vector<std::vector<int32_t>> PageTables() const {
    std::vector<int32_t> order(static_cast<size_t>(NumPages()));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(99));
    std::vector<std::vector<int32_t>> tables;
    size_t next = 0;
    for (const int64_t length : lengths) {
      const auto count = static_cast<size_t>((length + kPageSlots - 1) / kPageSlots);
      tables.emplace_back(order.begin() + static_cast<int64_t>(next),
                          order.begin() + static_cast<int64_t>(next + count));
      next += count;
    }
    return tables;
  }

 private:
  World(const Heads& h, std::vector<int64_t> sequence_lengths, Random random)
      : heads(h),
        lengths(std::move(sequence_lengths)),
        q(Rows(), h.query * h.dim, random),
        k(Rows(), h.kv * h.dim, random),
        v(Rows(), h.kv * h.dim, random) {
    for (int64_t i = 0; i < h.dim / 2; ++i) {
      inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(h.dim)));
    }
  }
};

Matrix SomeRows(const Matrix& all, const std::vector<int64_t>& rows) {
  Matrix some(static_cast<int64_t>(rows.size()), all.cols());
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(all.View().Row(rows[i]), all.cols(), some.View().Row(static_cast<int64_t>(i)));
  }
  return some;
}

// Runs the world in steps of at most `chunk` rows of each sequence and returns all rows' outputs.
Matrix Live(Backend& backend, const World& world, DType dtype, int64_t chunk) {
  const LentScratch scratch(backend, LimitsOf(world.heads, world.Rows(), 2048));
  const PoisonedCache cache(world.heads, dtype, world.NumPages());
  const std::vector<std::vector<int32_t>> tables = world.PageTables();
  Matrix result(world.Rows(), world.q.cols());
  const float scale = 1 / std::sqrt(static_cast<float>(world.heads.dim));
  bool more = true;
  for (int64_t start = 0; more; start += chunk) {
    std::vector<SequenceRows> sequences;
    std::vector<int64_t> rows;
    int64_t first = 0;
    for (size_t s = 0; s < world.lengths.size(); ++s) {
      const int64_t count = std::min(chunk, world.lengths[s] - start);
      if (count > 0) {
        sequences.push_back({static_cast<int64_t>(rows.size()), count, start, tables[s].data()});
        for (int64_t i = 0; i < count; ++i) rows.push_back(first + start + i);
      }
      first += world.lengths[s];
    }
    more = !sequences.empty();
    if (!more) break;
    Matrix q = SomeRows(world.q, rows), k = SomeRows(world.k, rows), v = SomeRows(world.v, rows);
    Matrix out(q.rows(), q.cols());
    backend.RopeAndStore(q.View(), k.View(), v.View(), world.inv_freq, sequences, cache.view(), 1);
    backend.PagedAttention(q.View(), sequences, cache.view(), 1, scale, out.View());
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(out.View().Row(static_cast<int64_t>(i)), out.cols(), result.View().Row(rows[i]));
    }
  }
  return result;
}

// Scores: chains of head_dim over values of about 1, so |score| <= ~head_dim^½·16; their absolute
// error moves every weight by a factor e^error. Then averages of |v| <= 5 with weights that sum to
// 1 and as many additions as positions.
double AttentionBound(const Heads& heads, int64_t positions, DType dtype) {
  const double score_error = (static_cast<double>(heads.dim) + 8) * kUlp * 32;
  const double sum_error = (static_cast<double>(positions) + 16) * kUlp;
  // The cache rounds sines' last bits differently where RoPE's result lies on a rounding boundary.
  const double cache = dtype == DType::kF32 ? 0 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
  return 5 * (2 * score_error + sum_error) + 0.5 * cache;
}

class PagedAttention : public testing::TestWithParam<std::tuple<Heads, DType>> {};

TEST_P(PagedAttention, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  const auto [heads, dtype] = GetParam();
  const World world(heads, {1, 37, 16, 70}, 3);
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Live(*reference, world, dtype, 1000);
  const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
  const Matrix first = Live(*backends[0], world, dtype, 1000);
  const double bound = AttentionBound(heads, 70, dtype);
  ExpectWithin(
      first, want, [&](int64_t, int64_t) { return bound; }, "scalar");
  for (const auto& backend : backends) {
    ExpectSameBits(Live(*backend, world, dtype, 1000), first, NameOf(*backend));
  }
}

TEST_P(PagedAttention, ChunksOfPrefillGiveTheBitsOfAllAtOnce) {
  const auto [heads, dtype] = GetParam();
  const World world(heads, {41, 90, 3}, 4);
  const std::unique_ptr<Backend> cpu = Cpu("", 2);
  const Matrix whole = Live(*cpu, world, dtype, 1000);
  for (const int64_t chunk : {1, 7, 16, 33}) {
    ExpectSameBits(Live(*cpu, world, dtype, chunk), whole, absl::StrCat("chunks of ", chunk));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttention,
                         testing::Combine(testing::ValuesIn(kHeads),
                                          testing::Values(DType::kF32, DType::kF16, DType::kBF16)));

TEST(PagedAttentionSplits, LongSequencesGiveTheSameBitsHoweverTheyAreShared) {
  const Heads heads = {2, 1, 16};
  const World world(heads, {1300}, 5);  // three splits of 512 positions
  const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
  const Matrix want = Live(*reference, world, DType::kF32, 2000);
  const std::unique_ptr<Backend> one = Cpu("", 1);
  const Matrix whole = Live(*one, world, DType::kF32, 2000);
  const double bound = AttentionBound(heads, 1300, DType::kF32);
  ExpectWithin(
      whole, want, [&](int64_t, int64_t) { return bound; }, "one thread");
  // Few rows and many threads share the splits of a row; many rows do not.
  for (const int threads : {2, 3}) {
    const std::unique_ptr<Backend> cpu = Cpu("", threads);
    for (const int64_t chunk : {1, 100}) {
      ExpectSameBits(Live(*cpu, world, DType::kF32, chunk), whole,
                     absl::StrCat(threads, " threads, chunks of ", chunk));
    }
  }
}

TEST(PagedAttentionCrowd, ASequenceAloneEqualsItselfAmongOthers) {
  const Heads heads = {6, 2, 32};
  const World crowd(heads, {20, 55, 9, 130}, 6);
  const std::unique_ptr<Backend> cpu = Cpu("", 2);
  const Matrix together = Live(*cpu, crowd, DType::kF16, 64);
  int64_t first = 0;
  for (const int64_t length : crowd.lengths) {
    World alone(heads, {length}, 6);
    for (int64_t i = 0; i < length; ++i) {
      std::copy_n(crowd.q.View().Row(first + i), crowd.q.cols(), alone.q.View().Row(i));
      std::copy_n(crowd.k.View().Row(first + i), crowd.k.cols(), alone.k.View().Row(i));
      std::copy_n(crowd.v.View().Row(first + i), crowd.v.cols(), alone.v.View().Row(i));
    }
    std::vector<int64_t> rows;
    for (int64_t i = 0; i < length; ++i) rows.push_back(first + i);
    ExpectSameBits(Live(*cpu, alone, DType::kF16, 11), SomeRows(together, rows),
                   absl::StrCat("length ", length));
    first += length;
  }
}

TEST(PagedAttentionPoison, StaleSlotsAndOtherPagesNeverReachAResult) {
  // The cache is NaN wherever nothing was written, so the tests above already fail on a leak; here
  // slots after the position hold another sequence's finite values, then NaN.
  const Heads heads = {4, 2, 24};
  const World world(heads, {21}, 7);
  const std::unique_ptr<Backend> cpu = Cpu("", 1);
  const LentScratch scratch(*cpu, LimitsOf(heads, 64, 64));
  const std::vector<int32_t> pages = {1, 0};
  const auto attend = [&](float stale) {
    PoisonedCache cache(heads, DType::kF32, 2);
    float* values = static_cast<float*>(cache.view().data);
    std::fill_n(values, cache.view().Bytes() / 4, stale);
    Matrix q = world.q, k = world.k, v = world.v, out(21, q.cols());
    const SequenceRows sequence = {0, 21, 0, pages.data()};
    cpu->RopeAndStore(q.View(), k.View(), v.View(), world.inv_freq, {&sequence, 1}, cache.view(),
                      0);
    cpu->PagedAttention(q.View(), {&sequence, 1}, cache.view(), 0, 0.2f, out.View());
    return out;
  };
  const Matrix clean = attend(0);
  ExpectSameBits(attend(kNan), clean, "NaN");
  ExpectSameBits(attend(std::numeric_limits<float>::infinity()), clean, "infinity");
  ExpectSameBits(attend(3e38f), clean, "huge");
}

TEST(PagedAttentionScores, HugeScoresStayFinite) {
  const Heads heads = {1, 1, 16};
  World world(heads, {40}, 8);
  for (int64_t r = 0; r < 40; ++r) {
    for (int64_t c = 0; c < 16; ++c) world.q.At(r, c) *= 1e4f;
  }
  for (const auto& backend : EveryCpu()) {
    const Matrix out = Live(*backend, world, DType::kF32, 40);
    for (int64_t r = 0; r < 40; ++r) {
      for (int64_t c = 0; c < 16; ++c) ASSERT_TRUE(std::isfinite(out.At(r, c))) << r << " " << c;
    }
  }
}

TEST(RopeAndStore, RotatesAsTheReferenceAndStoresWhatItRotated) {
  for (const Heads& heads : kHeads) {
    const World world(heads, {19}, 9);
    const std::vector<int32_t> pages = {63, 63, 2, 0, 1};  // positions 30 … 48
    const SequenceRows sequence = {0, 19, 30, pages.data()};
    const auto rotate = [&](Backend& backend, Matrix* q, Matrix* k) {
      const LentScratch scratch(backend, LimitsOf(heads, 64, 64));
      const PoisonedCache cache(heads, DType::kF32, 64);
      Matrix v = world.v;
      *q = world.q;
      *k = world.k;
      backend.RopeAndStore(q->View(), k->View(), v.View(), world.inv_freq, {&sequence, 1},
                           cache.view(), 1);
      return std::vector<float>(
          static_cast<const float*>(cache.view().data),
          static_cast<const float*>(cache.view().data) + cache.view().Bytes() / 4);
    };
    Matrix want_q(1, 1), want_k(1, 1), q(1, 1), k(1, 1);
    const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
    rotate(*reference, &want_q, &want_k);
    std::vector<float> first;
    for (const auto& backend : EveryCpu()) {
      const std::vector<float> stored = rotate(*backend, &q, &k);
      // sin and cos within 2^-23, two products and a sum of values of at most 5.
      const auto bound = [](int64_t, int64_t) { return 5 * (2 * 0x1p-23 + 4 * kUlp); };
      ExpectWithin(q, want_q, bound, NameOf(*backend));
      ExpectWithin(k, want_k, bound, NameOf(*backend));
      const int64_t head_floats = 2 * heads.dim * kPageSlots;
      for (int64_t i = 0; i < 19; ++i) {
        const int64_t page = pages[static_cast<size_t>((30 + i) / kPageSlots)];
        const int64_t slot = (30 + i) % kPageSlots;
        for (int64_t h = 0; h < heads.kv; ++h) {
          const float* head = stored.data() + ((64 + page) * heads.kv + h) * head_floats;
          for (int64_t d = 0; d < heads.dim; ++d) {
            ASSERT_EQ(head[d * kPageSlots + slot], k.At(i, h * heads.dim + d));
            ASSERT_EQ(head[heads.dim * kPageSlots + slot * heads.dim + d],
                      world.v.At(i, h * heads.dim + d));
          }
        }
      }
      if (first.empty()) first = stored;
      EXPECT_EQ(std::memcmp(first.data(), stored.data(), first.size() * 4), 0) << NameOf(*backend);
    }
  }
}

Matrix Encode(Backend& backend, const Matrix& q, const Matrix& k, const Matrix& v,
              std::span<const SequenceRows> sequences, const Heads& heads) {
  const LentScratch scratch(backend, LimitsOf(heads, q.rows(), q.rows()));
  Matrix out(q.rows(), q.cols());
  backend.EncoderAttention(q.View(), k.View(), v.View(), sequences, heads.query,
                           1 / std::sqrt(static_cast<float>(heads.dim)), out.View());
  return out;
}

TEST(EncoderAttention, MatchesTheReferenceAndItselfOnEveryRowAndThreadCount) {
  for (const Heads& heads : {Heads{12, 12, 32}, Heads{2, 2, 64}, Heads{3, 3, 10}}) {
    Random random(10);
    const int64_t width = heads.query * heads.dim;
    const Matrix q(87, width, random), k(87, width, random), v(87, width, random);
    const SequenceRows sequences[] = {
        {0, 1, 0, nullptr}, {1, 17, 0, nullptr}, {18, 69, 0, nullptr}};
    const std::unique_ptr<Backend> reference = std::move(*MakeReferenceBackend());
    const Matrix want = Encode(*reference, q, k, v, sequences, heads);
    const std::vector<std::unique_ptr<Backend>> backends = EveryCpu();
    const Matrix first = Encode(*backends[0], q, k, v, sequences, heads);
    const double bound = AttentionBound(heads, 69, DType::kF32);
    ExpectWithin(
        first, want, [&](int64_t, int64_t) { return bound; }, "scalar");
    for (const auto& backend : backends) {
      ExpectSameBits(Encode(*backend, q, k, v, sequences, heads), first, NameOf(*backend));
    }
  }
}

TEST(EncoderAttention, ATextAloneEqualsItselfAmongOthers) {
  const Heads heads = {4, 4, 32};
  Random random(11);
  const Matrix q(50, 128, random), k(50, 128, random), v(50, 128, random);
  const SequenceRows sequences[] = {{0, 20, 0, nullptr}, {20, 30, 0, nullptr}};
  const std::unique_ptr<Backend> cpu = Cpu("", 2);
  const Matrix together = Encode(*cpu, q, k, v, sequences, heads);
  std::vector<int64_t> rows(30);
  std::iota(rows.begin(), rows.end(), 20);
  const SequenceRows alone = {0, 30, 0, nullptr};
  ExpectSameBits(
      Encode(*cpu, SomeRows(q, rows), SomeRows(k, rows), SomeRows(v, rows), {&alone, 1}, heads),
      SomeRows(together, rows), "alone");
}

}  // namespace
}  // namespace nibble
