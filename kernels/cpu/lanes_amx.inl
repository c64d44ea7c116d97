// Products of the bf16 and the int8 mode on AMX tiles: up to 16 rows of x by 16 output rows. The
// tile instructions come from whoever includes this: tiles_amx.inl, or the tests' twin in plain
// C++.
//
// K is cut into pieces, the same for any number of rows. acc = fma(t, scale, acc), pieces
// ascending from 0, where t is the piece's sum of products and scale
//   int8: as lanes_bytes.inl defines both, a piece being one block; all ISA rows give the same bits
//   bf16: a piece is a group, but at most 256 k. t = 0; for every 32 k, ascending,
//         t += lower + upper: each a chain of fused multiply-adds from zero over the lower, the
//         upper halves of x's dwords (lanes_bf16.inl), ascending, subnormals being zero.
//         bf16 weights have scale 1
//
// A chunk (some pieces of two panels) becomes tiles in the nearest cache and is multiplied by every
// row of the block; sums of the block wait in memory, so that the codes are one forward stream.
#pragma once

#include "kernels/cpu/lanes_table.inl"

namespace nibble {
namespace {

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileFloats = kTileRows * kLanes;
constexpr int64_t kTileRowBytes = 64;
constexpr int64_t kDwordBytes = 4;
constexpr int64_t kMaxPiece = 256;   // k
constexpr int64_t kMaxPieces = 4;    // of a chunk
constexpr int64_t kMaxSteps = 8;     // tiles of a panel in a chunk
constexpr int64_t kBlockTiles = 16;  // of rows of x
constexpr int64_t kBlockRows = kBlockTiles * kTileRows;
// Up to so many rows a chunk is one piece: reading the next one then hides behind its products.
constexpr int64_t kFewRows = 2 * kTileRows;

constexpr int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// Tiles by number: sums of row tile m and panel p, two of x, two of weights.
constexpr int SumTile(int m, int p) { return 2 * m + p; }
constexpr int kXTile = 4;
constexpr int kWeightTile = 6;

// Rows of x as tiles of equal height. The last one ends at the last row, so it may repeat rows of
// the one before.
struct RowTiles {
  int64_t rows;
  int64_t Height() const { return Least(rows, kTileRows); }
  int64_t Count() const { return (rows + kTileRows - 1) / kTileRows; }
  int64_t First(int64_t tile) const { return Least(tile * kTileRows, rows - Height()); }
};

// Weights of up to two panels as tiles, and what the sums of their pieces are multiplied by.
struct Chunk {
  alignas(kTileRowBytes) float tiles[kMaxSteps][2][kTileFloats];
  V16 scales[2][kMaxPieces];
  int64_t pieces;
  int64_t steps;  // of a piece
};

// Sums of one chunk: piece, tile.
using PieceSums = float[kMaxPieces][4][kTileFloats];

// x in bf16, 32 k in a tile.
class Bf16Factors {
 public:
  static constexpr int64_t kValueBytes = 2;

  explicit Bf16Factors(const MatMulTask& task) : rows_(task.bf16) {}

  int64_t step() const { return kBf16Line; }  // k of a tile
  int64_t stride() const { return rows_.stride * static_cast<int64_t>(sizeof(uint32_t)); }
  const char* Row(int64_t row) const {
    return reinterpret_cast<const char*>(rows_.pairs + row * rows_.stride);
  }
  // What else a product is multiplied by, piece by piece from first_k, and from row to row.
  const float* Scales(int64_t, int64_t) const { return nullptr; }
  int64_t scale_stride() const { return 0; }

  template <int kSum, int kX, int kWeights>
  static void Dot() {
    TileDotBf16<kSum, kX, kWeights>();
  }
  // acc + the sums of piece i in one row of x, whose scales are given.
  static V16 Add(const float* sums, V16 scale, const float*, int64_t, V16 acc) {
    return Fma(Load(sums), scale, acc);
  }

 private:
  const Bf16Rows rows_;
};

// x in bytes, one block in a tile.
class ByteFactors {
 public:
  static constexpr int64_t kValueBytes = 1;

  explicit ByteFactors(const MatMulTask& task) : rows_(task.bytes) {}

  int64_t step() const { return rows_.block; }
  int64_t stride() const { return rows_.stride; }
  const char* Row(int64_t row) const {
    return reinterpret_cast<const char*>(rows_.codes + row * rows_.stride);
  }
  const float* Scales(int64_t row, int64_t first_k) const {
    return rows_.scales + row * scale_stride() + first_k / rows_.block;
  }
  int64_t scale_stride() const { return rows_.stride / rows_.block; }

  template <int kSum, int kX, int kWeights>
  static void Dot() {
    TileDotBytes<kSum, kX, kWeights>();
  }
  static V16 Add(const float* sums, V16 scale, const float* x_scales, int64_t i, V16 acc) {
    return Fma(ToFloat(LoadI(sums)), Mul(Set1(x_scales[i]), scale), acc);
  }

 private:
  const ByteRows rows_;
};

template <int kRowTiles, int kPanels>
inline void ZeroSums() {
  TileZero<SumTile(0, 0)>();
  if constexpr (kPanels == 2) TileZero<SumTile(0, 1)>();
  if constexpr (kRowTiles == 2) TileZero<SumTile(1, 0)>();
  if constexpr (kRowTiles == 2 && kPanels == 2) TileZero<SumTile(1, 1)>();
}

template <int kRowTiles, int kPanels>
inline void StoreSums(float (&sums)[4][kTileFloats]) {
  TileStore<SumTile(0, 0)>(sums[SumTile(0, 0)], kTileRowBytes);
  if constexpr (kPanels == 2) TileStore<SumTile(0, 1)>(sums[SumTile(0, 1)], kTileRowBytes);
  if constexpr (kRowTiles == 2) TileStore<SumTile(1, 0)>(sums[SumTile(1, 0)], kTileRowBytes);
  if constexpr (kRowTiles == 2 && kPanels == 2) {
    TileStore<SumTile(1, 1)>(sums[SumTile(1, 1)], kTileRowBytes);
  }
}

// One tile of each row tile of x, at x0 and x1, by one tile of each panel.
template <typename Factors, int kRowTiles, int kPanels>
inline void MultiplyStep(const char* x0, const char* x1, int64_t x_stride,
                         const float (&w)[2][kTileFloats]) {
  TileLoad<kWeightTile>(w[0], kTileRowBytes);
  TileLoad<kXTile>(x0, x_stride);
  Factors::template Dot<SumTile(0, 0), kXTile, kWeightTile>();
  if constexpr (kPanels == 2) {
    TileLoad<kWeightTile + 1>(w[1], kTileRowBytes);
    Factors::template Dot<SumTile(0, 1), kXTile, kWeightTile + 1>();
  }
  if constexpr (kRowTiles == 2) {
    TileLoad<kXTile + 1>(x1, x_stride);
    Factors::template Dot<SumTile(1, 0), kXTile + 1, kWeightTile>();
    if constexpr (kPanels == 2) {
      Factors::template Dot<SumTile(1, 1), kXTile + 1, kWeightTile + 1>();
    }
  }
}

// One block of rows of x, at most kTiles tiles, by all panels of a task.
template <typename Factors, int64_t kTiles>
class TileProduct {
 public:
  TileProduct(const MatMulTask& task, int64_t first_row, int64_t rows)
      : task_(task), factors_(task), first_row_(first_row), tiles_{rows} {
    for (int64_t tile = 0; tile < tiles_.Count(); ++tile) {
      for (int64_t p = 0; p < task.panels; ++p) {
        for (int64_t i = 0; i < tiles_.Height() * kLanes; ++i) acc_[tile][p][i] = 0;
      }
    }
    const int64_t x_bytes = factors_.step() * Factors::kValueBytes;
    const TileShape sum = {tiles_.Height(), kTileRowBytes}, x = {tiles_.Height(), x_bytes},
                    weights = {x_bytes / kDwordBytes, kTileRowBytes};
    TileConfigure({sum, sum, sum, sum, x, x, weights, weights});
  }

  // Adds the products of a chunk of kPanels panels whose first k is first_k.
  template <int kPanels>
  void Add(const Chunk& chunk, int64_t first_k, int64_t panel) {
    int64_t tile = 0;
    for (; tile + 1 < tiles_.Count(); tile += 2) AddTiles<2, kPanels>(chunk, first_k, panel, tile);
    if (tile < tiles_.Count()) AddTiles<1, kPanels>(chunk, first_k, panel, tile);
  }

  // Writes every row once, times `factor`.
  void Finish(V16 factor) const {
    TileRelease();
    for (int64_t p = 0; p < task_.panels; ++p) {
      const PanelOut out(task_, p);
      for (int64_t row = 0; row < tiles_.rows; ++row) {
        const int64_t tile = row / kTileRows;
        const int64_t at = (row - tiles_.First(tile)) * kLanes;
        out.Finish(first_row_ + row, Mul(Load(acc_[tile][p] + at), factor));
      }
    }
  }

 private:
  template <int kRowTiles, int kPanels>
  void AddTiles(const Chunk& chunk, int64_t first_k, int64_t panel, int64_t tile) {
    const char* x[2];
    for (int m = 0; m < kRowTiles; ++m) {
      x[m] = factors_.Row(first_row_ + tiles_.First(tile + m)) + first_k * Factors::kValueBytes;
    }
    // Copies, since a tile instruction might change what lies in memory.
    const int64_t pieces = chunk.pieces, steps = chunk.steps, stride = factors_.stride(),
                  step_bytes = factors_.step() * Factors::kValueBytes;
    alignas(kTileRowBytes) PieceSums sums;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      ZeroSums<kRowTiles, kPanels>();
      for (int64_t step = piece * steps; step < (piece + 1) * steps; ++step) {
        MultiplyStep<Factors, kRowTiles, kPanels>(x[0] + step * step_bytes,
                                                  x[kRowTiles - 1] + step * step_bytes, stride,
                                                  chunk.tiles[step]);
      }
      StoreSums<kRowTiles, kPanels>(sums[piece]);
    }
    for (int m = 0; m < kRowTiles; ++m) {
      const float* x_scales = factors_.Scales(first_row_ + tiles_.First(tile + m), first_k);
      for (int p = 0; p < kPanels; ++p) {
        AddPieces<kMaxPieces>(pieces, chunk.scales[p], x_scales, sums, SumTile(m, p),
                              acc_[tile + m][panel + p]);
      }
    }
  }

  // Adds the pieces of a chunk, at most kPieces, to the rows of one tile.
  template <int kPieces>
  void AddPieces(int64_t pieces, const V16* scales, const float* x_scales, const PieceSums& sums,
                 int tile, float* acc) const {
    if constexpr (kPieces > 1) {
      if (pieces < kPieces) {
        return AddPieces<kPieces - 1>(pieces, scales, x_scales, sums, tile, acc);
      }
    }
    V16 scale[kPieces];
    for (int i = 0; i < kPieces; ++i) scale[i] = scales[i];
    const int64_t height = tiles_.Height(), scale_stride = factors_.scale_stride();
    for (int64_t row = 0; row < height; ++row) {
      const int64_t at = row * kLanes;
      V16 sum = Load(acc + at);
#pragma GCC unroll 4
      for (int i = 0; i < kPieces; ++i) {
        sum = Factors::Add(sums[i][tile] + at, scale[i], x_scales, row * scale_stride + i, sum);
      }
      Store(acc + at, sum);
    }
  }

  const MatMulTask& task_;
  const Factors factors_;
  const int64_t first_row_;
  const RowTiles tiles_;
  alignas(kTileRowBytes) float acc_[kTiles][kMaxPanels][kTileFloats];
};

// Lines of 4-bit codes as rows of a tile: 8 k are 4 rows of pairs.
class PairLines {
 public:
  using Factors = Bf16Factors;
  static constexpr int64_t kTileRowsOfLine = kLinePairs;

  explicit PairLines(const MatMulTask& task) : codebook_(LoadBf16Codebook(task.codebook)) {}

  static int64_t Piece(const MatMulTask& task) { return Least(kMaxPiece, task.group_size); }
  V16 factor() const { return Set1(1.0f); }
  void Read(I16 line, float* tile_rows) const {
#pragma GCC unroll 4
    for (int64_t j = 0; j < kLinePairs; ++j) {
      Store(tile_rows + j * kLanes, FromBits(LookupBf16(codebook_, line)));
      line = ShiftHalvesRight<4>(line);
    }
  }

 private:
  const Bf16Codebook codebook_;
};

// The same in bytes: 8 k are a row of the even ones and a row of the odd ones.
class ByteLines {
 public:
  using Factors = ByteFactors;
  static constexpr int64_t kTileRowsOfLine = 2;

  explicit ByteLines(const MatMulTask& task) : ByteLines(ByteCodesOf(task.codebook)) {}

  static int64_t Piece(const MatMulTask& task) { return task.bytes.block; }
  V16 factor() const { return Set1(largest_); }
  void Read(I16 line, float* tile_rows) const {
    Store(tile_rows, FromBits(LookupBytes(table_, AndI(line, SetI(kNibbles)))));
    Store(tile_rows + kLanes,
          FromBits(LookupBytes(table_, AndI(ShiftRight<4>(line), SetI(kNibbles)))));
  }

 private:
  explicit ByteLines(const ByteCodes& codes)
      : table_(LoadByteTable(codes.codes)), largest_(codes.largest) {}

  const ByteTable table_;
  const float largest_;
};

// 4-bit weights whose groups do not straddle rows, chunk by chunk.
template <typename Lines>
class FourBitTiles {
 public:
  using Factors = typename Lines::Factors;

  FourBitTiles(const MatMulTask& task, int64_t rows)
      : task_(task),
        lines_(task),
        scales_(task, 0),
        piece_(Lines::Piece(task)),
        chunk_(rows <= kFewRows ? piece_ : Least(kMaxPiece, piece_ * kMaxPieces)),
        step_lines_(Factors(task).step() / kLineValues) {}

  V16 factor() const { return lines_.factor(); }

  // Fills the chunk that begins at first_k; returns where the next one does.
  template <int kPanels>
  int64_t Read(int64_t first_k, int64_t panel, Chunk* chunk) {
    const int64_t end = Least(first_k + chunk_, task_.k);
    chunk->pieces = (end - first_k) / piece_;
    chunk->steps = piece_ / (step_lines_ * kLineValues);
    for (int64_t i = 0; i < chunk->pieces; ++i) {
      scales_.Read((first_k + i * piece_) / task_.group_size, panel, kPanels);
      for (int64_t p = 0; p < kPanels; ++p) chunk->scales[p][i] = scales_.At(panel + p);
    }
    const int64_t line_stride = task_.panels * kLineBytes;
    const char* line = static_cast<const char*>(task_.codes) + first_k / kLineValues * line_stride +
                       panel * kLineBytes;
    for (int64_t step = 0; step < chunk->pieces * chunk->steps; ++step) {
      for (int64_t i = 0; i < step_lines_; ++i, line += line_stride) {
#pragma GCC unroll 2
        for (int64_t p = 0; p < kPanels; ++p) {
          const char* at = line + p * kLineBytes;
          Prefetch(at + kPrefetchBytes);
          lines_.Read(LoadI(at), chunk->tiles[step][p] + i * Lines::kTileRowsOfLine * kLanes);
        }
      }
    }
    return end;
  }

 private:
  const MatMulTask& task_;
  const Lines lines_;
  PanelScales scales_;
  const int64_t piece_, chunk_;  // k
  const int64_t step_lines_;     // lines of a tile
};

// bf16 weights: a chunk is one piece.
class Bf16Tiles {
 public:
  using Factors = Bf16Factors;

  Bf16Tiles(const MatMulTask& task, int64_t) : task_(task) {}

  V16 factor() const { return Set1(1.0f); }

  template <int kPanels>
  int64_t Read(int64_t first_k, int64_t panel, Chunk* chunk) const {
    const int64_t end = Least(first_k + kMaxPiece, task_.k);
    chunk->pieces = 1;
    chunk->steps = (end - first_k + kBf16Line - 1) / kBf16Line;
    for (int64_t p = 0; p < kPanels; ++p) {
      chunk->scales[p][0] = Set1(1.0f);
      for (int64_t pair = 0; pair < chunk->steps * kTileRows; ++pair) {
        const int64_t k = first_k + pair / kLinePairs * kLineValues + pair % kLinePairs;
        Store(chunk->tiles[pair / kTileRows][p] + pair % kTileRows * kLanes,
              FromBits(Pair(k, panel + p)));
      }
    }
    return end;
  }

 private:
  // Weights of k and k + 4, zeros beyond K.
  I16 Pair(int64_t k, int64_t panel) const {
    if (k >= task_.k) return SetI(0);
    const int64_t stride = task_.panels * kLanes;
    const uint16_t* lower = static_cast<const uint16_t*>(task_.codes) + k * stride + panel * kLanes;
    const uint16_t* upper = lower + kLinePairs * stride;
    Prefetch(upper + kPrefetchBytes / 2);
    return InterleaveHalves(lower, k + kLinePairs < task_.k ? upper : nullptr);
  }

  const MatMulTask& task_;
};

template <typename Weights, int64_t kTiles>
void TileBlock(const MatMulTask& task, int64_t first_row, int64_t rows) {
  Weights weights(task, rows);
  TileProduct<typename Weights::Factors, kTiles> product(task, first_row, rows);
  Chunk chunk;
  for (int64_t k = 0, next = 0; k < task.k; k = next) {
    for (int64_t panel = 0; panel < task.panels; panel += 2) {
      if (panel + 1 < task.panels) {
        next = weights.template Read<2>(k, panel, &chunk);
        product.template Add<2>(chunk, k, panel);
      } else {
        next = weights.template Read<1>(k, panel, &chunk);
        product.template Add<1>(chunk, k, panel);
      }
    }
  }
  product.Finish(weights.factor());
}

// The fewest blocks, as even as they can be. A few rows take a small piece of the stack.
template <typename Weights>
void TileBlocks(const MatMulTask* task) {
  if (0 < task->rows && task->rows <= kFewRows) {
    return TileBlock<Weights, kFewRows / kTileRows>(*task, 0, task->rows);
  }
  const int64_t blocks = (task->rows + kBlockRows - 1) / kBlockRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = b * task->rows / blocks;
    TileBlock<Weights, kBlockTiles>(*task, row, (b + 1) * task->rows / blocks - row);
  }
}

constexpr IsaTable MakeAmxTable(const char* name) {
  IsaTable table = MakeIsaTable(name);
  table.four_bit_bf16 = TileBlocks<FourBitTiles<PairLines>>;
  table.half_bf16 = TileBlocks<Bf16Tiles>;
  table.four_bit_int8 = TileBlocks<FourBitTiles<ByteLines>>;
  return table;
}

}  // namespace
}  // namespace nibble
