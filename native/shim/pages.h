/* Huge pages for large results.

   XLA allocates the results of a program and its temporaries anew for each run, and the C library maps what is larger
   than 32 MB anew. The system clears these pages when they are first written: those of 2 MB need 1/500 of the
   interrupts of those of 4 KB. NumPy asks for them, too. The gradient of an LSTM takes 0.87 of the time, of a GRU
   0.86, of an Elman network of 67 MB 0.97 (T, B, I, H = 512, 32, 128, 256 and 64, 256, 512, 1024). Memory that stays
   mapped gains nothing: Elman gradients of 17 and 26 MB would take 1.04 (Intel Xeon, family 6, model 167, November
   2026). */
#pragma once

#include <cstdint>

#include "xla/ffi/api/ffi.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* A system that has none refuses, and nothing changes. */
inline void ask_for_huge_pages(xla::ffi::RemainingRets results) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kMapped = 32 << 20, kPage = 4096;
  auto for_results = [&](auto f) {
    for (size_t i = 0; i < results.size(); ++i) {
      auto buffer = results.get<xla::ffi::AnyBuffer>(i);
      if (buffer.has_value()) f(reinterpret_cast<uintptr_t>((*buffer)->untyped_data()), (*buffer)->size_bytes());
    }
  };
  uintptr_t all = 0;
  for_results([&](uintptr_t, size_t bytes) { all += bytes; });
  if (all < kMapped) return;
  for_results([&](uintptr_t at, size_t bytes) {
    uintptr_t begin = at & ~(kPage - 1);
    if (bytes) madvise(reinterpret_cast<void*>(begin), at + bytes - begin, MADV_HUGEPAGE);
  });
#else
  (void)results;
#endif
}
