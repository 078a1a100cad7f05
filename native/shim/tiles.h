/* Whether this process may use tiles of AMX: Linux gives their memory to a process that asks for it. */
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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
