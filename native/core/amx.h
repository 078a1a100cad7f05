// Products in tiles of AMX.
//
// Operands are of bfloat16, or of float in three parts of it (split.h). A product in bfloat16 of 16 rows and weights of
// 384 x 256 takes 1/6 of the time of FMAs of float (Intel Xeon, family 6, model 167, November 2026), by
// vectors of bfloat16 1 to 2 times that of FMAs.
#pragma once

#include "amx_registers.h"

namespace {

// An object with tiles has the passes for bfloat16 and for float in parts.
#if defined(JRNN_AMX)
constexpr bool HAS_TILES = true;
#else
constexpr bool HAS_TILES = false;
#endif
constexpr int TILE_ROWS = 16;
constexpr int TILE_TERMS = 16;  // pairs of numbers in a row
constexpr int TILE_SUMS = 4;    // tiles 0 to 3 hold sums, those from LEFT on the parts of rows, the others weights
constexpr int LEFT = 4;

// The rows that the tiles of this thread have since a task set them; 0: none has.
thread_local int shaped_for = 0;

// Other code in this thread may have its own shapes: they come back at the end.
struct KeptTiles {
  alignas(64) TileShapes kept;
  KeptTiles() {
    read_shapes(kept);
    shaped_for = 0;
  }
  ~KeptTiles() { set_shapes(kept); }
};

// Sums and left operands of so many rows. A new shape takes 170 cycles.
template <class Stored>
INLINE void shape_tiles(int rows) {
  if (rows == shaped_for) return;
  shaped_for = rows;
  alignas(64) TileShapes shapes{};
  shapes.palette = 1;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = VECTOR_BYTES;
    shapes.rows[i] = uint8_t(i < LEFT + PARTS<Stored> ? rows : TILE_TERMS);
  }
  set_shapes(shapes);
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

// The left operand; `row`: from a row to the next.
template <class Stored>
INLINE void load_left(const Stored* at, int64_t row) {
  for_numbers<PARTS<Stored>>([&](auto i) __attribute__((always_inline)) {
    load_tile<LEFT + i.value>(at + i.value * W<Stored>, row);
  });
}

// Work beside products of tiles, which leave the units for vectors idle: pieces of it.
struct Beside {
  void (*piece)(void* work) = nullptr;
  void* work = nullptr;
};
// There is room for a piece after every second vector of the weights, whose first part is multiplied last; and for
// so many of them after nv vectors.
constexpr bool leaves_room(int v, int part) { return part == 0 && v % 2 == 0; }
constexpr int rooms_of(int nv) {
  int rooms = 0;
  for (int v = 0; v < nv; ++v) rooms += leaves_room(v, 0);
  return rooms;
}

// f(begin, end) for parts of [0, count), one after the other: `some` in each piece.
template <class F>
struct Pieces {
  F f;
  int64_t count = 0, done = 0, some = 0;
  explicit Pieces(F f) : f(f) {}

  void run(int64_t most) {
    const int64_t end = smaller(done + most, count);
    if (done < end) f(done, end);
    done = end;
  }
  void begin(int64_t of) { count = of, done = 0; }
  void end() { run(count - done); }
  // Beside products with room for so many pieces, all of it.
  Beside beside(int64_t rooms) {
    if (!rooms) end();
    if (done == count) return {};
    some = RIGHT_OR_FAULT((count - done + rooms - 1) / rooms, 50, (count - done) / rooms);
    return {[](void* work) { ((Pieces*)work)->run(((Pieces*)work)->some); }, this};
  }
};

// Sum To::of(v) += the left tile x tile v of the right operand, for v < NV. `row`: bytes from a row to the next;
// `next`, `next_part`: numbers from a tile to the next, and from a part of it. Of numbers in parts each part of the
// right operand, from the smallest on, with those of the left that count: see split.h.
template <class Stored, int NV, class To>
INLINE void add_products_of_tiles(const Stored* right, int64_t row, int64_t next, int64_t next_part,
                                  Beside beside = {}) {
  constexpr int parts = PARTS<Stored>, first = LEFT + parts, tiles = 8 - first;
  for_numbers<NV * parts>([&](auto n) __attribute__((always_inline)) {
    constexpr int v = n.value / parts, part = parts - 1 - n.value % parts;
    constexpr int tile = first + n.value % tiles;  // the next one is loaded while this one is used
    load_tile<tile>(right + v * next + part * next_part, row);
    for_numbers<parts - part>([&](auto i) __attribute__((always_inline)) {
      add_tile_products<To::of(v), LEFT + parts - 1 - part - i.value, tile>();
    });
    if (leaves_room(v, part) && beside.piece) beside.piece(beside.work);
  });
}

// Columns 0 to 3 of 16 rows of 16 numbers. Blocks of 4 x 4 meet while they are loaded: all 16 columns take 13 ns, by
// exchanges between registers alone, of which this needs half, 66 (same machine).
INLINE void four_columns(const float* rows, Vector<float> (&columns)[4]) {
#if defined(JRNN_AMX)
  __m512 r[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    auto block = [&](int n) __attribute__((always_inline)) { return _mm_load_ps(rows + (4 * n + i) * W<float>); };
    r[i] = _mm512_insertf32x4(_mm512_castps128_ps512(block(0)), block(1), 1);
    r[i] = _mm512_insertf32x4(_mm512_insertf32x4(r[i], block(2), 2), block(3), 3);
  }
  // With a mask, because compilers warn of the names without.
  auto low = [](__m512 a, __m512 b) { return (__m512d)_mm512_maskz_unpacklo_ps(-1, a, b); };
  auto high = [](__m512 a, __m512 b) { return (__m512d)_mm512_maskz_unpackhi_ps(-1, a, b); };
  const __m512d first[2] = {low(r[0], r[1]), low(r[2], r[3])}, last[2] = {high(r[0], r[1]), high(r[2], r[3])};
  columns[0] = (Vector<float>)_mm512_maskz_unpacklo_pd(-1, first[0], first[1]);
  columns[1] = (Vector<float>)_mm512_maskz_unpackhi_pd(-1, first[0], first[1]);
  columns[2] = (Vector<float>)_mm512_maskz_unpacklo_pd(-1, last[0], last[1]);
  columns[3] = (Vector<float>)_mm512_maskz_unpackhi_pd(-1, last[0], last[1]);
#else
  (void)rows, (void)columns;
#endif
}

// Whether one of n vectors has NaN.
INLINE bool has_nan(const float* at, int64_t n) {
#if defined(JRNN_AMX)
  __mmask16 found = 0;
  for (int64_t i = 0; i < n; i += 2) {  // two in one comparison
    const float *one = at + i * W<float>, *other = i + 1 < n ? one + W<float> : one;
    found |= _mm512_cmp_ps_mask(_mm512_load_ps(one), _mm512_load_ps(other), _CMP_UNORD_Q);
  }
  return found;
#else
  (void)at, (void)n;
  return false;
#endif
}

}  // namespace
