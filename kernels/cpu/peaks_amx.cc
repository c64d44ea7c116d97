// What AMX can do at most: two tiles times two tiles into four sums. Compiled for that ISA alone,
// like peaks_avx2.cc. The process must have asked for tiles; their state is released at the end.
#include <immintrin.h>
#include <stdint.h>

#include "kernels/cpu/peak_loops.h"

namespace nibble {
namespace {

// The 64 bytes of LDTILECFG: palette 1, then at 16 the row bytes, at 48 the rows of each tile.
struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

void ConfigureTiles() {
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.row_bytes[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

int32_t ReleaseTiles() {
  alignas(64) int32_t sums[16 * 16];
  _tile_stored(0, sums, 64);
  _tile_release();
  return sums[0];
}

}  // namespace

int32_t Bf16PeakAmx(int64_t steps) {
  ConfigureTiles();
  for (int64_t n = 0; n < steps; ++n) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  return ReleaseTiles();
}

int32_t Int8PeakAmx(int64_t steps) {
  ConfigureTiles();
  for (int64_t n = 0; n < steps; ++n) {
    _tile_dpbusd(0, 4, 6);
    _tile_dpbusd(1, 4, 7);
    _tile_dpbusd(2, 5, 6);
    _tile_dpbusd(3, 5, 7);
  }
  return ReleaseTiles();
}

}  // namespace nibble
