// The command line.
#include <cstdlib>
#include <cstring>

#include "../shim/tiles.h"
#include "programs.h"

namespace test {
namespace {

// The first core that is named, or that the processor has; whether it has it.
bool core_named(const char* isa, const JrnnCore** found) {
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512cd");
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool bf16 = v4 && __builtin_cpu_supports("avx512bf16");
  const JrnnCore* const cores[] = {&jrnn_core_avx512, &jrnn_core_avx2, &jrnn_core_avx512bf16, &jrnn_core_avx512amx,
                                   &jrnn_core_avx2bf16, &jrnn_core_amxemulated};
  const bool has[] = {v4, v3, bf16, bf16 && may_use_tiles(), v3, v4};
  for (int i = 0; i < 6; ++i)
    if (isa ? !strcmp(isa, cores[i]->isa) : has[i]) {
      *found = cores[i];
      return has[i];
    }
  return false;
}

}  // namespace

bool Options::parse(int argc, char** argv) {
  const char* isa = nullptr;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const bool has_value = i + 1 < argc && argv[i + 1][0] != '-';
    auto value = [&] { return has_value ? atoll(argv[++i]) : -1; };
    if (name == "--isa" && has_value) isa = argv[++i];
    else if (name == "--cases") cases = value();
    else if (name == "--first") first = value();
    else if (name == "--case") one = value();
    else if (name == "--threads") threads = int(value());
    else if (name == "--cell") cell = int(value());
    else if (name == "--all-floats") all_floats = true;
    else if (name == "--bench") {
      bench = true;
      if (has_value) rounds = int(value());
    } else if (name == "--rows")
      while (i + 1 < argc && argv[i + 1][0] != '-') rows.push_back(atoi(argv[++i]));
    else return false;
  }
  can_run = core_named(isa, &core);
  return core && cases >= 0 && first >= 0 && threads > 0 && rounds > 0 && cell >= 0 && cell < JRNN_CELLS;
}

}  // namespace test
