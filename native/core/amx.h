// Tiles of AMX: registers of 16 rows of 64 bytes. One instruction adds the products of 16 rows of 32
// numbers of bfloat16 and 32 rows of 16 to 16 x 16 sums of float, as vdpbf16ps adds those of one row.
//
// The layouts of gemm.h are those of the tiles: a panel of rows has 32 numbers in a row, and packed
// weights have two rows beside each other in every column. A product of 16 rows and weights of 384 x
// 256 takes 1/6 of the time of FMAs of float (Intel Xeon, family 6, model 167, November 2026), by
// vectors of bfloat16 1 to 2 times that of FMAs.
#pragma once

#include "vector.h"

namespace {

// An object with tiles has the passes for bfloat16 alone.
#if defined(JRNN_AMX)
constexpr bool HAS_TILES = true;
#else
constexpr bool HAS_TILES = false;
#endif
constexpr int TILE_ROWS = 16;
constexpr int TILE_TERMS = 16;  // pairs of numbers in a row
constexpr int TILE_SUMS = 4;    // tiles 0 to 3 hold sums, tile LEFT rows, RIGHT and the next one weights
constexpr int LEFT = 4, RIGHT = 5;

// The shapes of all tiles, as the processor loads them; all zero: no tile is in use.
struct TileShapes {
  uint8_t palette, start, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

// Other code in this thread may have its own shapes: they come back at the end.
struct KeptTiles {
  alignas(64) TileShapes kept;
  KeptTiles() { asm volatile("sttilecfg %0" : "=m"(kept)); }
  ~KeptTiles() { asm volatile("ldtilecfg %0" : : "m"(kept)); }
};

// Sums and left operands of so many rows.
INLINE void shape_tiles(int rows) {
  alignas(64) TileShapes shapes{};
  shapes.palette = 1;
  for (int i = 0; i < RIGHT + 2; ++i) {
    shapes.row_bytes[i] = VECTOR_BYTES;
    shapes.rows[i] = uint8_t(i < RIGHT ? rows : TILE_TERMS);
  }
  asm volatile("ldtilecfg %0" : : "m"(shapes));
}

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

// f(0), ..., f(N - 1), of numbers that the compiler knows.
template <int I>
struct Number {
  static constexpr int value = I;
};
template <int N, class F>
INLINE void for_numbers(F f) {
  if constexpr (N > 0) {
    for_numbers<N - 1>(f);
    f(Number<N - 1>{});
  }
}

// Sums 0 to NV - 1 from memory, each `next` bytes behind the last, and to it; `row`: from a row to the next.
template <int NV>
INLINE void load_sums(const float* at, int64_t row, int64_t next) {
  for_numbers<NV>([&](auto v) __attribute__((always_inline)) {
    load_tile<v.value>((const char*)at + v.value * next, row);
  });
}
template <int NV>
INLINE void store_sums(float* at, int64_t row, int64_t next) {
  for_numbers<NV>([&](auto v) __attribute__((always_inline)) {
    store_tile<v.value>((char*)at + v.value * next, row);
  });
}

// Sum TO::of(v) += the left tile x tile v of the right operand, for v < NV.
template <int NV, class To>
INLINE void add_products_of_tiles(const void* right, int64_t row, int64_t next) {
  for_numbers<NV>([&](auto v) __attribute__((always_inline)) {
    constexpr int tile = RIGHT + v.value % 2;  // the next one is loaded while this one is used
    load_tile<tile>((const char*)right + v.value * next, row);
    add_tile_products<To::of(v.value), LEFT, tile>();
  });
}

// A tile of pairs of numbers, transposed in its place.
INLINE void transpose_tile(Bfloat16* tile) {
#if defined(JRNN_AMX)
  Bits<float> rows[TILE_ROWS], low, high;
  for (int i = 0; i < TILE_ROWS; ++i) rows[i] = (Bits<float>)load<float>((const float*)(tile + i * W<Bfloat16>));
#pragma GCC unroll 4
  for (int half = TILE_ROWS / 2; half; half /= 2) {  // blocks of half x half change places
    for (int i = 0; i < TILE_ROWS; ++i) {
      low[i] = i & half ? TILE_ROWS + i - half : i;
      high[i] = i & half ? TILE_ROWS + i : i + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; ++i)
      if (!(i & half)) {
        const __m512i a = (__m512i)rows[i], b = (__m512i)rows[i + half];
        rows[i] = (Bits<float>)_mm512_permutex2var_epi32(a, (__m512i)low, b);
        rows[i + half] = (Bits<float>)_mm512_permutex2var_epi32(a, (__m512i)high, b);
      }
  }
  for (int i = 0; i < TILE_ROWS; ++i) store<float>((float*)(tile + i * W<Bfloat16>), (Vector<float>)rows[i]);
#else
  (void)tile;
#endif
}

}  // namespace
