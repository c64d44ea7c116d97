// Two loops over positions: scores, then weighted values. Knows the page layout only through Slot.
#include "kernels/reference/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/values.h"

namespace nibble::reference {
namespace {

// One KV head of one position of one sequence, in the layout of kv_layout.h.
class Slot {
 public:
  Slot(const KvCache& cache, int64_t layer, const SequenceRows& sequence, int64_t position,
       int64_t head)
      : cache_(cache), slot_(position % kPageSlots) {
    const int64_t page = sequence.pages[position / kPageSlots];
    head_ = static_cast<char*>(cache.data) +
            (layer * cache.num_pages + page) * cache.LayerPageBytes() +
            head * 2 * cache.head_dim * kPageSlots * SizeOf(cache.dtype);
  }

  double K(int64_t d) const { return Load(head_, cache_.dtype, KIndex(d)); }
  double V(int64_t d) const { return Load(head_, cache_.dtype, VIndex(d)); }
  void SetK(int64_t d, float value) const { Store(head_, cache_.dtype, KIndex(d), value); }
  void SetV(int64_t d, float value) const { Store(head_, cache_.dtype, VIndex(d), value); }

 private:
  int64_t KIndex(int64_t d) const { return d * kPageSlots + slot_; }
  int64_t VIndex(int64_t d) const { return (kPageSlots + slot_) * cache_.head_dim + d; }

  const KvCache& cache_;
  int64_t slot_;
  char* head_;
};

void Rotate(float* head, int64_t head_dim, int64_t position, std::span<const float> inv_freq) {
  const int64_t half = head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * inv_freq[static_cast<size_t>(i)];
    const double cosine = std::cos(static_cast<double>(angle));
    const double sine = std::sin(static_cast<double>(angle));
    const double a = static_cast<double>(head[i]);
    const double b = static_cast<double>(head[i + half]);
    head[i] = static_cast<float>(a * cosine - b * sine);
    head[i + half] = static_cast<float>(b * cosine + a * sine);
  }
}

// One query head against `count` keys and values: out[d] = Σ_p softmax_p(q·K[p]·scale) · V[p][d].
// key and value: (p, d) -> double.
template <typename Key, typename Value>
void Attend(const float* q, int64_t head_dim, int64_t count, double scale, const Key& key,
            const Value& value, float* out) {
  std::vector<double> weights(static_cast<size_t>(count));
  for (int64_t p = 0; p < count; ++p) {
    double score = 0;
    for (int64_t d = 0; d < head_dim; ++d) score += static_cast<double>(q[d]) * key(p, d);
    weights[static_cast<size_t>(p)] = score * scale;
  }
  const double largest = *std::max_element(weights.begin(), weights.end());
  double total = 0;
  for (double& weight : weights) {
    weight = std::exp(weight - largest);
    total += weight;
  }
  std::vector<double> sum(static_cast<size_t>(head_dim), 0.0);
  for (int64_t p = 0; p < count; ++p) {
    for (int64_t d = 0; d < head_dim; ++d) {
      sum[static_cast<size_t>(d)] += weights[static_cast<size_t>(p)] * value(p, d);
    }
  }
  for (int64_t d = 0; d < head_dim; ++d) {
    out[d] = static_cast<float>(sum[static_cast<size_t>(d)] / total);
  }
}

}  // namespace

void RopeAndStore(const Activations& q, const Activations& k, const Activations& v,
                  std::span<const float> inv_freq, std::span<const SequenceRows> sequences,
                  const KvCache& cache, int64_t layer) {
  const int64_t head_dim = cache.head_dim;
  for (const SequenceRows& sequence : sequences) {
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      const int64_t row = sequence.first_row + i;
      const int64_t position = sequence.start + i;
      for (int64_t column = 0; column < q.cols; column += head_dim) {
        Rotate(q.Row(row) + column, head_dim, position, inv_freq);
      }
      for (int64_t head = 0; head < cache.num_kv_heads; ++head) {
        float* key = k.Row(row) + head * head_dim;
        Rotate(key, head_dim, position, inv_freq);
        const Slot slot(cache, layer, sequence, position, head);
        for (int64_t d = 0; d < head_dim; ++d) {
          slot.SetK(d, key[d]);
          slot.SetV(d, v.Row(row)[head * head_dim + d]);
        }
      }
    }
  }
}

void PagedAttention(const Activations& q, std::span<const SequenceRows> sequences,
                    const KvCache& cache, int64_t layer, float scale, const Activations& out) {
  const int64_t head_dim = cache.head_dim;
  const int64_t num_heads = q.cols / head_dim;
  const int64_t queries_per_kv = num_heads / cache.num_kv_heads;
  for (const SequenceRows& sequence : sequences) {
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      const int64_t row = sequence.first_row + i;
      for (int64_t head = 0; head < num_heads; ++head) {
        const auto slot = [&](int64_t p) {
          return Slot(cache, layer, sequence, p, head / queries_per_kv);
        };
        Attend(
            q.Row(row) + head * head_dim, head_dim, sequence.start + i + 1,
            static_cast<double>(scale), [&](int64_t p, int64_t d) { return slot(p).K(d); },
            [&](int64_t p, int64_t d) { return slot(p).V(d); }, out.Row(row) + head * head_dim);
      }
    }
  }
}

void EncoderAttention(const Activations& q, const Activations& k, const Activations& v,
                      std::span<const SequenceRows> sequences, int64_t num_heads, float scale,
                      const Activations& out) {
  const int64_t head_dim = q.cols / num_heads;
  for (const SequenceRows& sequence : sequences) {
    for (int64_t i = 0; i < sequence.num_rows; ++i) {
      const int64_t row = sequence.first_row + i;
      for (int64_t head = 0; head < num_heads; ++head) {
        const auto element = [&](const Activations& x) {
          return [&x, &sequence, column = head * head_dim](int64_t p, int64_t d) {
            return static_cast<double>(x.Row(sequence.first_row + p)[column + d]);
          };
        };
        Attend(q.Row(row) + head * head_dim, head_dim, sequence.num_rows,
               static_cast<double>(scale), element(k), element(v), out.Row(row) + head * head_dim);
      }
    }
  }
}

}  // namespace nibble::reference
