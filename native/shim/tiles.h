/* Tiles of AMX: whether this process may use them, and where they serve float32. */
#pragma once

#include "../core/core.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Linux gives their memory to a process that asks for it. */
inline bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool may = [] {
    constexpr long kAskForFeature = 0x1023, kTileData = 18; /* of arch_prctl */
    constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24; /* of cpuid */
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & kBf16) || !(d & kTiles)) return false;
    return syscall(SYS_arch_prctl, kAskForFeature, kTileData) == 0;
  }();
  return may;
#else
  return false;
#endif
}

/* Whether they are faster than FMAs for float32: where matmuls take most of the time, and a slice fills enough of
   its tiles of 16 rows. The gradient by tiles takes 0.90 to 0.94 of the time by FMAs at H = 128 (LSTM 0.84), mostly
   0.7 to 0.9 at 256 to 1024 (B = 32 to 256); 0.99 to 1.04 at H = 128, B = 24 and 40; 1.0 to 1.3 with 8 or fewer
   rows of a slice, or H = 64 (I = H / 2 or less, two cores, Intel Xeon, family 6, model 167, November 2026). */
inline bool suits_tiles(const JrnnSizes& s) {
  int64_t slices = s.slices < s.B ? s.slices : s.B, rows = (s.B + slices - 1) / slices;
  int64_t filled = (rows + 15) / 16 * 16;
  return 10 * rows >= 6 * filled && s.H * rows >= 112 * filled;
}

/* Losses with their gradients by FMAs take 1.06 of the time by tiles at N, H, O = 2048, 256, 104, 1.15 at 2048, 512,
   104, 1.3 at 2048, 256, 1000, and 0.97 at H = 128 (same machine). */
inline bool suits_tiles(const JrnnLossSizes& s) { return s.H >= 192 && s.N >= 64 * s.slices; }
