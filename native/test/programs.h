// The parts of the test program, and its options.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core.h"

/* For tests: bfloat16 by the instructions of AVX2; tiles of AMX by arrays. */
extern "C" const JrnnCore jrnn_core_avx2bf16;
extern "C" const JrnnCore jrnn_core_amxemulated;

namespace test {

struct Options {
  const JrnnCore* core = nullptr;
  bool can_run = false;  // the processor has its instructions
  int64_t cases = 10000, first = 0, one = -1;
  int threads = 2, rounds = 50, cell = JRNN_ELMAN;
  std::vector<int> rows;
  bool all_floats = false, bench = false;
  bool parse(int argc, char** argv);
};

// f(what is wrong) for special values and for floats and doubles all over the line.
void check_phi(const JrnnCore& core, const std::function<void(const std::string&)>& fail);
// 0 if tanh and sigmoid are within their bounds for every float.
int all_floats(const JrnnCore& core, int threads);
// What is wrong with a random loss and its gradient, or with special values; "" if nothing is.
std::string check_loss(const JrnnCore& core, uint64_t number);
std::string check_special_losses(const JrnnCore& core);
int bench(const JrnnCore& core, const Options& options);

}  // namespace test
