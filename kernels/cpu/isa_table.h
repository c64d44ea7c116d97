// The arithmetic of one ISA as a row of function pointers with plain C types; each isa_*.cc fills
// one row from the same source (lanes_*.inl), over 16 virtual lanes in one fixed order of
// operations, so that every row gives the same bits. Knows no backend, no thread and no shape
// check.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace nibble {

// Number types by value, as kernels/tensor.h counts them.
enum LaneType : int32_t { kLaneF32 = 0, kLaneF16 = 1, kLaneBF16 = 2 };

constexpr int64_t kLanes = 16;
// Panels (16 output rows each) that lie side by side in memory; see packing.h.
constexpr int64_t kMaxPanels = 8;
// Values of a row of logits that are summed together.
constexpr int64_t kSumBlock = 1024;
// Queries that one attention call may hold, and the pages after which partial sums are merged.
constexpr int64_t kMaxQueries = 48;
constexpr int64_t kSplitPages = 32;

// Some values of one vector, or null.
struct LaneVector {
  const void* data;
  LaneType type;
};

// Rows of x as LLM.int8() multiplies them; see Int8Input in lanes_int8.inl.
struct Int8Rows {
  int16_t* codes;  // [rows][stride]: as lanes_bytes_by_pairs.inl or lanes_bytes_by_vnni.inl says,
                   // zeros beyond K up to 16
  uint64_t* outliers;  // [rows][stride / 64]: bit i of mask j stands for k = 64·j + i
  float* stats;        // [rows]: the largest magnitude that is no outlier
  int32_t* counts;     // [rows]: outliers
  int64_t stride;      // Int8Stride(K)
};
constexpr int64_t kMaskBits = 64;
constexpr int64_t Int8Stride(int64_t k) { return (k + kMaskBits - 1) / kMaskBits * kMaskBits; }

// Rows of x as the bf16 mode multiplies them; see lanes_bf16.inl. A row is an odd number of cache
// lines, so that a column of rows does not fall into one set of a cache.
struct Bf16Rows {
  uint32_t* pairs;  // [rows][stride]: zeros beyond K up to a multiple of 32
  int64_t stride;   // Bf16Stride(K)
};
constexpr int64_t kBf16Line = 32;  // k
constexpr int64_t Bf16Stride(int64_t k) {
  return ((k + kBf16Line - 1) / kBf16Line | 1) * (kBf16Line / 2);
}

// Rows of x as the int8 mode multiplies them with 4-bit weights; see lanes_bytes.inl. `block` k
// share a scale: 64, or 32 for groups of 32; blocks begin at multiples of it.
struct ByteRows {
  int8_t* codes;   // [rows][stride]: of every 8 k first the 4 even ones, then the 4 odd ones; zeros
                   // beyond K
  float* scales;   // [rows][stride / block]: what a product of codes is worth
  int32_t* sums;   // [rows][stride / block]: -127 · the sum of the block's codes
  int64_t stride;  // ByteStride(K)
  int64_t block;
};
constexpr int64_t kByteBlock = 64, kShortByteBlock = 32;
// An odd number of cache lines, so that neighbouring rows do not fall on the same sets of a cache.
constexpr int64_t ByteStride(int64_t k) {
  return ((k + kByteBlock - 1) / kByteBlock | 1) * kByteBlock;
}

// out[m, first_n + i] (+)= Σ_k x[m,k]·w + bias for the lanes of one super panel; see packing.h.
struct MatMulTask {
  const float* x;
  int64_t x_stride;
  int64_t rows;
  float* out;  // column 0 of the whole matrix
  int64_t out_stride;
  LaneVector bias;  // whole matrix
  int32_t accumulate;

  int64_t n;  // of the whole matrix
  int64_t k;
  int64_t first_n;  // of this super panel
  int64_t panels;
  const void* codes;  // of this super panel

  // 4 bits and INT8: of this super panel, or of the whole matrix when groups straddle rows.
  const void* scales;

  // 4 bits only.
  int64_t group_size;
  int32_t double_quant;
  const float* nested;  // of the whole matrix
  float nested_offset;
  const float* map;       // [256]
  const float* codebook;  // [16]

  // INT8 only.
  Int8Rows int8;
  // bf16 mode, and bf16 weights in the int8 mode.
  Bf16Rows bf16;
  // 4 bits in the int8 mode only.
  ByteRows bytes;
};

// Keys and values of one KV head as pages of 16 slots.
struct KvPages {
  const char* k;  // page p: [head_dim][16] at k + p * k_page_bytes
  int64_t k_page_bytes;
  const char* v;  // page p, slot s: [head_dim] at v + p * v_page_bytes + s * v_slot_bytes
  int64_t v_page_bytes;
  int64_t v_slot_bytes;
  const int32_t* pages;  // page of each 16 positions; null: 0, 1, 2 …
  LaneType type;
};

// Queries of one KV head; state i at states + i * StateFloats(head_dim).
struct AttentionTask {
  KvPages kv;
  int64_t head_dim;
  float scale;
  int64_t num_queries;  // <= kMaxQueries
  const float* q[kMaxQueries];
  int64_t positions[kMaxQueries];  // the last position that the query sees
  int64_t first_page, end_page;
  float* states;
};

// Floats of a softmax under way: its sum and maximum, then head_dim value sums rounded up to 16.
constexpr int64_t StateFloats(int64_t head_dim) {
  return 2 * kLanes + (head_dim + kLanes - 1) / kLanes * kLanes;
}

struct IsaTable {
  const char* name;

  // 4 bits whose groups do not straddle rows; 4 bits whose groups do; 16-bit weights of `type`;
  // INT8.
  void (*four_bit)(const MatMulTask* task);
  void (*four_bit_straddling)(const MatMulTask* task);
  void (*half)(const MatMulTask* task, LaneType type);
  void (*int8)(const MatMulTask* task);
  // Row `row` of *rows from x: [k]. threshold 0: no finite value is an outlier.
  void (*int8_input)(const float* x, int64_t k, float threshold, int64_t row, const Int8Rows* rows);
  // The bf16 mode: 4 bits whose groups do not straddle rows; bf16 weights. Row `row` of *rows from
  // x: [k].
  void (*four_bit_bf16)(const MatMulTask* task);
  void (*half_bf16)(const MatMulTask* task);
  void (*bf16_input)(const float* x, int64_t k, int64_t row, const Bf16Rows* rows);
  // The int8 mode: 4 bits whose groups do not straddle rows. Row `row` of *rows from x: [k].
  void (*four_bit_int8)(const MatMulTask* task);
  void (*byte_input)(const float* x, int64_t k, int64_t row, const ByteRows* rows);

  // One row of n values each. `out` may be `x`.
  void (*rms_norm)(const float* x, LaneVector weight, int64_t n, float eps, float* out);
  void (*layer_norm)(const float* x, const float* residual, LaneVector weight, LaneVector bias,
                     int64_t n, float eps, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*gelu)(float* x, int64_t n, int32_t tanh_form);
  void (*convert)(const uint16_t* x, LaneType type, int64_t n, int32_t accumulate, float* out);
  void (*store)(const float* x, int64_t n, LaneType type, void* out);

  // cos and sin of position · inv_freq[i]; then the rotation of x[i] with x[i + half].
  void (*rope_angles)(float position, const float* inv_freq, int64_t half, float* cosines,
                      float* sines);
  void (*rope_rotate)(float* x, const float* cosines, const float* sines, int64_t half);

  // Sets every state to the softmax over pages [first_page, end_page); queries that see none of
  // them keep an empty state (sum 0).
  void (*attend)(const AttentionTask* task);
  // total = total merged with part, which may be empty.
  void (*attend_merge)(float* total, const float* part, int64_t head_dim);
  void (*attend_finish)(const float* total, int64_t head_dim, float* out);

  // sum += x; x /= divisor; Σ x².
  void (*add)(const float* x, int64_t n, float* sum);
  void (*divide)(float* x, int64_t n, float divisor);
  float (*sum_squares)(const float* x, int64_t n);

  // The largest of n >= 1 values, NaN skipped (-inf when there is no other).
  float (*max_value)(const float* x, int64_t n);
  // The lowest index i with x[i] == value, or n.
  int64_t (*find)(const float* x, int64_t n, float value);
  // out[i] = exp((x[i] - max) · factor); sums[b] = Σ out of values [1024·b, 1024·(b + 1)). out may
  // be x.
  void (*exp_sums)(const float* x, int64_t n, float max, float factor, float* out, float* sums);
  // out[16·b + i] = the largest of values 1024·b + i, 1024·b + i + 16 …: 16 for each 1024, NaN
  // skipped.
  void (*lane_maxima)(const float* x, int64_t n, float* out);
  // Writes the indices i with x[i] >= threshold, ascending; returns how many.
  int64_t (*select)(const float* x, int64_t n, float threshold, int32_t* indices);
};

extern const IsaTable kScalarTable;
extern const IsaTable kAvx2Table;
extern const IsaTable kAvx2VnniTable;
extern const IsaTable kAvx512Table;
extern const IsaTable kAvx512VnniTable;
extern const IsaTable kAvx512Bf16Table;
extern const IsaTable kAmxTable;

}  // namespace nibble
