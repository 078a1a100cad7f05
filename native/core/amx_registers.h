// The registers of AMX: tiles of 16 rows of 64 bytes. One instruction adds the products of 16 rows of 32
// numbers of bfloat16 and 32 rows of 16 to 16 x 16 sums of float, as vdpbf16ps adds those of one row.
//
// With -DJRNN_AMX_EMULATED arrays are in their place, so that a processor without AMX tests what is computed with
// them, and the sanitizers see every byte that is read or written.
#pragma once

#include "vector.h"

namespace {

// The shapes of all tiles, as the processor loads them; all zero: no tile is in use.
struct TileShapes {
  uint8_t palette, start, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

#if !defined(JRNN_AMX_EMULATED)
INLINE void read_shapes(TileShapes& shapes) { asm volatile("sttilecfg %0" : "=m"(shapes)); }
INLINE void set_shapes(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
template <int TILE>
INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(TILE));
}
// `stride`: from a row to the next, in bytes.
template <int TILE>
INLINE void load_tile(const void* at, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(at), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
INLINE void store_tile(void* at, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(at), "r"(stride), "i"(TILE) : "memory");
}
template <int SUM, int A, int B>
INLINE void add_tile_products() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(SUM), "i"(A), "i"(B));
}
#else
struct EmulatedTile {
  uint8_t row[16][64];
};
thread_local TileShapes shapes_in_use{};
thread_local EmulatedTile tiles_in_use[8]{};

inline void read_shapes(TileShapes& shapes) { shapes = shapes_in_use; }
inline void set_shapes(const TileShapes& shapes) {  // which clears all tiles
  shapes_in_use = shapes;
  memset(tiles_in_use, 0, sizeof tiles_in_use);
}
template <int TILE>
void clear_tile() {
  memset(&tiles_in_use[TILE], 0, sizeof(EmulatedTile));
}
template <int TILE>
void load_tile(const void* at, int64_t stride) {
  clear_tile<TILE>();
  for (int r = 0; r < shapes_in_use.rows[TILE]; ++r)
    memcpy(tiles_in_use[TILE].row[r], (const char*)at + r * stride, shapes_in_use.row_bytes[TILE]);
}
template <int TILE>
void store_tile(void* at, int64_t stride) {
  for (int r = 0; r < shapes_in_use.rows[TILE]; ++r)
    memcpy((char*)at + r * stride, tiles_in_use[TILE].row[r], shapes_in_use.row_bytes[TILE]);
}
template <int SUM, int A, int B>
void add_tile_products() {
  const TileShapes& shapes = shapes_in_use;
  const int terms = shapes.row_bytes[A] / 2;
  // Number i of a row of bfloat16.
  auto number = [](const uint8_t* row, int i) {
    const uint32_t bits = uint32_t(row[2 * i]) << 16 | uint32_t(row[2 * i + 1]) << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
  };
  float b[32][16];  // its terms, each a half of the pairs of a row
  for (int k = 0; k < terms; ++k)
    for (int c = 0; c < 16; ++c) b[k][c] = number(tiles_in_use[B].row[k / 2], 2 * c + k % 2);
  for (int r = 0; r < shapes.rows[SUM]; ++r) {
    float sums[16], halves[2][16]{};  // of the first numbers of pairs and of the second, as the processor adds them
    memcpy(sums, tiles_in_use[SUM].row[r], sizeof sums);
    for (int k = 0; k < terms; ++k) {
      const float a = number(tiles_in_use[A].row[r], k);
      for (int c = 0; c < 16; ++c) halves[k % 2][c] += a * b[k][c];
    }
    for (int c = 0; c < 16; ++c) sums[c] += halves[0][c] + halves[1][c];
    memcpy(tiles_in_use[SUM].row[r], sums, shapes.row_bytes[SUM]);
  }
}
#endif

}  // namespace
