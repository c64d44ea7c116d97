// Products of the bf16 mode on AMX tiles: up to 16 rows of x by 16 output rows. The tile
// instructions come from whoever includes this: tiles_amx.inl, or the tests' twin in plain C++.
//
// K is cut into pieces: a group, but at most 256 k; all of it the same for any number of rows.
//   t = 0; for every 32 k of a piece, ascending, t += lower + upper: each a chain of fused
//   multiply-adds from zero over the lower, the upper halves of x's dwords (lanes_bf16.inl),
//   ascending, subnormals being zero; then acc = fma(t, scale, acc), pieces ascending
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
constexpr int64_t kStepPairs = 16;                         // dwords of x in one tile
constexpr int64_t kStepValues = 2 * kStepPairs;            // k
constexpr int64_t kStepLines = kStepValues / kLineValues;  // of codes
constexpr int64_t kMaxPiece = 256;                         // k
constexpr int64_t kChunkSteps = kMaxPiece / kStepValues;   // at most, of all its pieces
constexpr int64_t kMaxPieces = 4;                          // of a chunk
constexpr int64_t kBlockTiles = 16;                        // of rows of x
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

// Weights of up to two panels, and what the sums of their pieces are multiplied by.
struct Chunk {
  alignas(kTileRowBytes) float tiles[kChunkSteps][2][kTileFloats];
  V16 scales[2][kMaxPieces];
  int64_t pieces;
  int64_t steps;  // of a piece
};

// Sums of one chunk: piece, tile.
using PieceSums = float[kMaxPieces][4][kTileFloats];

inline void ConfigureTiles(int64_t height) {
  const uint8_t rows = static_cast<uint8_t>(height);
  TileConfigure({rows, rows, rows, rows, rows, rows, kTileRows, kTileRows});
}

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

// 64 bytes of each row of x, at x0 and x1, by one tile of each panel.
template <int kRowTiles, int kPanels>
inline void MultiplyStep(const char* x0, const char* x1, int64_t x_stride,
                         const float (&w)[2][kTileFloats]) {
  TileLoad<kWeightTile>(w[0], kTileRowBytes);
  TileLoad<kXTile>(x0, x_stride);
  TileDotBf16<SumTile(0, 0), kXTile, kWeightTile>();
  if constexpr (kPanels == 2) {
    TileLoad<kWeightTile + 1>(w[1], kTileRowBytes);
    TileDotBf16<SumTile(0, 1), kXTile, kWeightTile + 1>();
  }
  if constexpr (kRowTiles == 2) {
    TileLoad<kXTile + 1>(x1, x_stride);
    TileDotBf16<SumTile(1, 0), kXTile + 1, kWeightTile>();
    if constexpr (kPanels == 2) TileDotBf16<SumTile(1, 1), kXTile + 1, kWeightTile + 1>();
  }
}

// acc = fma(t, scale, acc) over the pieces of a chunk, for the rows of one tile.
template <int kPieces>
inline void AddPieces(const Chunk& chunk, int64_t panel, int64_t tile, int64_t height,
                      const PieceSums& sums, float* acc) {
  if constexpr (kPieces > 1) {
    if (chunk.pieces < kPieces) {
      return AddPieces<kPieces - 1>(chunk, panel, tile, height, sums, acc);
    }
  }
  V16 scales[kPieces];
  for (int i = 0; i < kPieces; ++i) scales[i] = chunk.scales[panel][i];
  for (int64_t at = 0; at < height * kLanes; at += kLanes) {
    V16 sum = Load(acc + at);
#pragma GCC unroll 4
    for (int i = 0; i < kPieces; ++i) sum = Fma(Load(sums[i][tile] + at), scales[i], sum);
    Store(acc + at, sum);
  }
}

// One block of rows of x by all panels of a task.
class TileProduct {
 public:
  TileProduct(const MatMulTask& task, int64_t first_row, int64_t rows)
      : task_(task),
        first_row_(first_row),
        tiles_{rows},
        x_(reinterpret_cast<const char*>(task.bf16.pairs + first_row * task.bf16.stride)),
        x_stride_(task.bf16.stride * static_cast<int64_t>(sizeof(uint32_t))) {
    for (int64_t tile = 0; tile < tiles_.Count(); ++tile) {
      for (int64_t p = 0; p < task.panels; ++p) {
        for (int64_t i = 0; i < tiles_.Height() * kLanes; ++i) acc_[tile][p][i] = 0;
      }
    }
  }

  // Adds the products of a chunk whose first k is first_k.
  template <int kPanels>
  void Add(const Chunk& chunk, int64_t first_k, int64_t panel) {
    int64_t tile = 0;
    for (; tile + 1 < tiles_.Count(); tile += 2) AddTiles<2, kPanels>(chunk, first_k, panel, tile);
    if (tile < tiles_.Count()) AddTiles<1, kPanels>(chunk, first_k, panel, tile);
  }

  // Writes every row once.
  void Store() const {
    for (int64_t row = 0; row < tiles_.rows; ++row) {
      const int64_t tile = row / kTileRows;
      const int64_t at = (row - tiles_.First(tile)) * kLanes;
      for (int64_t p = 0; p < task_.panels; ++p) {
        Finish(task_, p, first_row_ + row, Load(acc_[tile][p] + at));
      }
    }
  }

 private:
  template <int kRowTiles, int kPanels>
  void AddTiles(const Chunk& chunk, int64_t first_k, int64_t panel, int64_t tile) {
    const char* x0 = x_ + tiles_.First(tile) * x_stride_ + first_k / kStepValues * kTileRowBytes;
    const char* x1 =
        x0 + (kRowTiles - 1) * (tiles_.First(tile + 1) - tiles_.First(tile)) * x_stride_;
    alignas(kTileRowBytes) PieceSums sums;
    for (int64_t piece = 0; piece < chunk.pieces; ++piece) {
      ZeroSums<kRowTiles, kPanels>();
      for (int64_t step = piece * chunk.steps; step < (piece + 1) * chunk.steps; ++step) {
        MultiplyStep<kRowTiles, kPanels>(x0 + step * kTileRowBytes, x1 + step * kTileRowBytes,
                                         x_stride_, chunk.tiles[step]);
      }
      StoreSums<kRowTiles, kPanels>(sums[piece]);
    }
    for (int m = 0; m < kRowTiles; ++m) {
      for (int p = 0; p < kPanels; ++p) {
        AddPieces<kMaxPieces>(chunk, p, SumTile(m, p), tiles_.Height(), sums,
                              acc_[tile + m][panel + p]);
      }
    }
  }

  const MatMulTask& task_;
  const int64_t first_row_;
  const RowTiles tiles_;
  const char* const x_;
  const int64_t x_stride_;  // bytes
  alignas(kTileRowBytes) float acc_[kBlockTiles][kMaxPanels][kTileFloats];
};

// 4-bit weights whose groups do not straddle rows, chunk by chunk.
class FourBitTiles {
 public:
  FourBitTiles(const MatMulTask& task, int64_t rows)
      : task_(task),
        codebook_(LoadBf16Codebook(task.codebook)),
        scales_(task, 0),
        piece_(Least(kMaxPiece, task.group_size)),
        chunk_(rows <= kFewRows ? piece_ : Least(kMaxPiece, piece_ * kMaxPieces)) {}

  // Fills the chunk that begins at first_k; returns where the next one does.
  template <int kPanels>
  int64_t Read(int64_t first_k, int64_t panel, Chunk* chunk) {
    const int64_t end = Least(first_k + chunk_, task_.k);
    chunk->pieces = (end - first_k) / piece_;
    chunk->steps = piece_ / kStepValues;
    for (int64_t p = 0; p < kPanels; ++p) {
      for (int64_t i = 0; i < chunk->pieces; ++i) {
        chunk->scales[p][i] = scales_.At(panel + p, (first_k + i * piece_) / task_.group_size);
      }
    }
    const int64_t line_stride = task_.panels * kLineBytes;
    const char* line = static_cast<const char*>(task_.codes) + first_k / kLineValues * line_stride +
                       panel * kLineBytes;
    for (int64_t step = 0; step < chunk->pieces * chunk->steps; ++step) {
      for (int64_t i = 0; i < kStepLines; ++i, line += line_stride) {
#pragma GCC unroll 2
        for (int64_t p = 0; p < kPanels; ++p) {
          ReadLine(line + p * kLineBytes, chunk->tiles[step][p] + i * kLinePairs * kLanes);
        }
      }
    }
    return end;
  }

 private:
  // A line's codes of 8 k are 4 rows of a tile.
  void ReadLine(const char* line, float* tile_rows) const {
    I16 code = LoadI(line);
    Prefetch(line + kPrefetchBytes);
#pragma GCC unroll 4
    for (int64_t j = 0; j < kLinePairs; ++j) {
      Store(tile_rows + j * kLanes, FromBits(LookupBf16(codebook_, code)));
      code = ShiftHalvesRight<4>(code);
    }
  }

  const MatMulTask& task_;
  const Bf16Codebook codebook_;
  PanelScales scales_;
  const int64_t piece_, chunk_;  // k
};

// bf16 weights: a chunk is one piece.
class Bf16Tiles {
 public:
  Bf16Tiles(const MatMulTask& task, int64_t) : task_(task) {}

  template <int kPanels>
  int64_t Read(int64_t first_k, int64_t panel, Chunk* chunk) const {
    const int64_t end = Least(first_k + kMaxPiece, task_.k);
    chunk->pieces = 1;
    chunk->steps = (end - first_k + kStepValues - 1) / kStepValues;
    for (int64_t p = 0; p < kPanels; ++p) {
      chunk->scales[p][0] = Set1(1.0f);
      for (int64_t pair = 0; pair < chunk->steps * kStepPairs; ++pair) {
        const int64_t k = first_k + pair / kLinePairs * kLineValues + pair % kLinePairs;
        Store(chunk->tiles[pair / kStepPairs][p] + pair % kStepPairs * kLanes,
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

template <typename Weights>
void TileBlock(const MatMulTask& task, int64_t first_row, int64_t rows) {
  Weights weights(task, rows);
  TileProduct product(task, first_row, rows);
  Chunk chunk;
  ConfigureTiles(RowTiles{rows}.Height());
  for (int64_t k = 0, next = 0; k < task.k; k = next) {
    for (int64_t panel = 0; panel < task.panels; panel += 2) {
      if (panel + 1 < task.panels) {
        next = weights.template Read<2>(k, panel, &chunk);
        product.Add<2>(chunk, k, panel);
      } else {
        next = weights.template Read<1>(k, panel, &chunk);
        product.Add<1>(chunk, k, panel);
      }
    }
  }
  TileRelease();
  product.Store();
}

// The fewest blocks, as even as they can be.
template <typename Weights>
void TileBlocks(const MatMulTask* task) {
  const int64_t blocks = (task->rows + kBlockRows - 1) / kBlockRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = b * task->rows / blocks;
    TileBlock<Weights>(*task, row, (b + 1) * task->rows / blocks - row);
  }
}

constexpr IsaTable MakeAmxTable(const char* name) {
  IsaTable table = MakeIsaTable(name);
  table.four_bit_bf16 = TileBlocks<FourBitTiles>;
  table.half_bf16 = TileBlocks<Bf16Tiles>;
  return table;
}

}  // namespace
}  // namespace nibble
