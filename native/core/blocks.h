// What a cell has. The blocks of a pre-activation (23), H numbers each, in the order of the core: x feeds
// the first, h the last.
//
//     Elman, leaky   a          x and h feed it
//     LSTM           i f g o    x and h feed all
//     GRU            n r z u    x feeds n r z, h feeds r z u; the users' order is r z n u
#pragma once

#include "core.h"

namespace {

struct CellBlocks {
  int all, each;  // each: the blocks that x feeds, and that h feeds
  bool gru;

  constexpr int first_of_h() const { return all - each; }
  // The place of block g in w_ih, the bias and the gates; and in w_hh.
  constexpr int64_t place(int g) const { return gru && g < 3 ? (g + 2) % 3 : g; }
  constexpr int64_t place_in_w_hh(int g) const { return g - first_of_h(); }
};
constexpr CellBlocks blocks_of(int32_t cell) {
  if (cell == JRNN_LSTM) return {4, 4, false};
  if (cell == JRNN_GRU) return {4, 3, true};
  return {1, 1, false};
}
constexpr int gates_of(int32_t cell) {
  return cell == JRNN_LSTM || cell == JRNN_GRU ? 4 : cell == JRNN_LEAKY_STATE ? 1 : 0;
}
constexpr bool leaks(int32_t cell) { return cell == JRNN_LEAKY_INPUT || cell == JRNN_LEAKY_STATE; }
// Whether a state is kept beside hs; `rounds`: hs is rounded.
constexpr bool keeps(int32_t cell, bool rounds) {
  return cell == JRNN_LSTM || cell == JRNN_LEAKY_INPUT || (rounds && cell != JRNN_ELMAN);
}

}  // namespace
