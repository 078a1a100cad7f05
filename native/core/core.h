/* The whole time loop of a recurrent network in one call: its interface.

   A pass (forward or backward) is some phases; a phase is a number of tasks. The tasks of a phase
   may run in any order and at the same time, on any threads; a phase begins when the phase before it
   has ended. A task waits for nothing, but two tasks of one sequence do for each other, for some steps at most
   (pair.h). It allocates nothing, and keeps nothing: all memory comes in by the arguments. So the caller owns the
   threads, and a pass is

       for (phase = 0; (n = pass->tasks(&args.sizes, phase)) >= 0; ++phase)
         parallel for (task = 0; task < n; ++task)
           pass->run(&args, phase, task);

   `slices` fixes how the batch is cut and in which order everything is summed: for the same sizes
   and slices a result has the same bits, however many threads ran the tasks.

   Arrays are dense, row-major, in JAX's layouts and of one floating type, float or double, which
   the pass in the table names. They need no alignment but that of their elements; outputs and the
   scratch overlap nothing. Steps come in the order in which they are read, and the padding of a
   sequence comes last.

   In the passes for bfloat16 every operand of a matmul is rounded to it: x_t, m * h_e, the weights and
   delta_t, from which all weight gradients and dx are made. hs and dhs are of bfloat16, all other
   arrays are float, and so are the sums. What a step or an adjoint reads beside a matmul is not rounded,
   but for the h of an Elman cell and of an LSTM, which is hs.

   The caller sets the flags of the floating-point unit (XLA: denormals are flushed).

   T steps, B sequences, I inputs, H units. A pre-activation has G blocks of H; X of them are fed by
   the input, Y by the state. Equations: jrnn/kernel/__init__.py, step.py, masking.py, jrnn/cells. */
#ifndef JRNN_NATIVE_CORE_H
#define JRNN_NATIVE_CORE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where nothing else is said, the state is h, which is hs, and G = X = Y = 1. */
enum JrnnCell {
  JRNN_ELMAN = 0,       /* (2) */
  JRNN_LEAKY_INPUT = 1, /* (29): the state is v, hs = phi(v); `kept` is v */
  JRNN_LEAKY_STATE = 2, /* (28): gates: phi(a_t) */
  JRNN_LSTM = 3,        /* (24): states h and c; `kept` is c; G = X = Y = 4, gates: i f g o */
  JRNN_GRU = 4          /* (26): G = 4, gates: r z n and the block u; x feeds r z n, h feeds r z u */
};

enum { JRNN_CELLS = 5 }; /* numbers of JrnnCell */

enum JrnnPhi { JRNN_TANH = 0, JRNN_RELU = 1, JRNN_SIGMOID = 2, JRNN_IDENTITY = 3 };

enum JrnnInput {
  JRNN_VECTORS = 0, /* xs [T, B, I] */
  JRNN_IDS = 1,     /* xs int32 [T, B]; an id outside [0, I) gives NaN, and adds to no gradient */
  JRNN_ADDED = 2    /* xs [T, B, X*H] are added to the pre-activation as they are; w_ih null, I 0 */
};

/* Results of the backward pass that need further scratch; their pointers must be null if the bit is
   not set. All other results may be null freely. */
enum JrnnWanted { JRNN_WANT_DX = 1, JRNN_WANT_DALPHA = 2 };

enum { JRNN_STATES = 2 }; /* states of a cell, at most: arrays of states; an LSTM has h, c, others [0] alone */
enum { JRNN_GATES = 4 };  /* gates of a cell, at most: in the order of `JrnnCell`; null where it has none */

/* The static part of a call: it decides the scratch and the tasks. T, B, H >= 1; I >= 1, or 0. */
typedef struct {
  int64_t T, B, I, H;
  int32_t slices; /* >= 1; more than B count as B, but of one sequence two are halves of its units */
  int32_t cell;   /* JrnnCell */
  int32_t phi;    /* JrnnPhi, of Elman and leaky cells */
  int32_t input;  /* JrnnInput */
  int32_t wanted; /* bits of JrnnWanted; the forward pass ignores it */
} JrnnSizes;

/* What both passes read. Null is said to be what it stands for; what has no such note must be
   there. Nothing that xs holds in the padding matters, NaN and ids out of range included. */
typedef struct {
  const void *xs;                       /* see JrnnInput */
  const void *w_ih;                     /* [I, X*H]; null if JRNN_ADDED */
  const void *w_hh;                     /* [H, Y*H] */
  const void *b;                        /* [G*H]; null: zeros */
  const void *start[JRNN_STATES];       /* [B, H] h_0 (v_0); null: zeros */
  const void *reset_state[JRNN_STATES]; /* [B, H] h_r (v_r); null: zeros */
  const void *recurrent_mask;           /* [B, H] m; null: ones */
  const void *alpha;                    /* [B, H]; leaky cells alone */
  const int32_t *lengths;               /* [B], clipped to [0, T]; null: T */
  const uint8_t *resets;                /* [T, B] 0 or 1, r_t; null: no resets */
} JrnnInputs;

typedef struct {
  JrnnSizes sizes;
  JrnnInputs in;
  void *hs;                /* [T, B, H] the outputs; 0 in the padding */
  void *kept;              /* [T, B, H] for the backward, see JrnnCell, and with bfloat16 the state of all
                              cells but Elman's; held in the padding */
  void *gates[JRNN_GATES]; /* [T, B, H] for the backward; 0 in the padding; null: not wanted, all of them */
  void *last[JRNN_STATES]; /* [B, H] h_last (v_T); null: not wanted */
  void *scratch;           /* of scratch_bytes(&sizes) */
} JrnnForward;

/* Each result is written, never added to; null: not computed. */
typedef struct {
  JrnnSizes sizes;
  JrnnInputs in;
  const void *hs;                  /* [T, B, H] of the forward pass */
  const void *kept;                /* [T, B, H] of the forward pass */
  const void *gates[JRNN_GATES];   /* [T, B, H] of the forward pass */
  const void *dhs;                 /* [T, B, H]; null: zeros. In the padding it does not matter */
  const void *d_last[JRNN_STATES]; /* [B, H]; null: zeros */
  double clip_delta;               /* delta_t is clipped to [-clip_delta, clip_delta]; < 0: it is not */
  void *dw_ih;                     /* [I, X*H] summed over steps and sequences, as the next two */
  void *dw_hh;                     /* [H, Y*H] */
  void *db;                        /* [G*H] */
  void *dx;                        /* [T, B, I], or [T, B, X*H] if JRNN_ADDED; not for ids; 0 in the padding */
  void *d_start[JRNN_STATES];       /* [B, H] */
  void *d_reset_state[JRNN_STATES]; /* [B, H] summed over the steps, as the next two */
  void *d_mask;                    /* [B, H] */
  void *d_alpha;                   /* [B, H] */
  void *scratch;                   /* of scratch_bytes(&sizes) */
} JrnnBackward;

typedef struct {
  size_t (*scratch_bytes)(const JrnnSizes *);
  int32_t (*tasks)(const JrnnSizes *, int32_t phase); /* may be 0; -1: there is no such phase */
  void (*run)(const JrnnForward *, int32_t phase, int32_t task);
} JrnnForwardPass;

typedef struct {
  size_t (*scratch_bytes)(const JrnnSizes *);
  int32_t (*tasks)(const JrnnSizes *, int32_t phase);
  void (*run)(const JrnnBackward *, int32_t phase, int32_t task);
} JrnnBackwardPass;

/* --- readout and softmax cross-entropy, see loss.h --- */

/* N positions, H units, O classes; all >= 1. `slices`: as in JrnnSizes, of positions. */
typedef struct {
  int64_t N, H, O;
  int32_t slices;
} JrnnLossSizes;

typedef struct {
  JrnnLossSizes sizes;
  const void *hs;        /* [N, H] */
  const void *w_ho;      /* [H, O] */
  const void *b_o;       /* [O]; null: zeros */
  const int32_t *labels; /* [N]; one outside [0, O) gives NaN */
  void *losses;          /* [N] J_n */
  void *deltas;          /* [N, O] p_n - y_n, for the gradient; null: not wanted */
  void *scratch;
} JrnnLoss;

typedef struct {
  JrnnLossSizes sizes;
  const void *hs;      /* [N, H] */
  const void *w_ho;    /* [H, O] */
  const void *deltas;  /* [N, O] */
  const void *dlosses; /* [N] the cotangents of the losses */
  void *dhs;           /* [N, H]; null: not wanted */
  void *dw_ho;         /* [H, O] */
  void *db_o;          /* [O]; null: not wanted */
  void *scratch;
} JrnnLossGradient;

typedef struct {
  size_t (*scratch_bytes)(const JrnnLossSizes *);
  int32_t (*tasks)(const JrnnLossSizes *, int32_t phase);
  void (*run)(const JrnnLoss *, int32_t phase, int32_t task);
} JrnnLossPass;

typedef struct {
  size_t (*scratch_bytes)(const JrnnLossSizes *);
  int32_t (*tasks)(const JrnnLossSizes *, int32_t phase);
  void (*run)(const JrnnLossGradient *, int32_t phase, int32_t task);
} JrnnLossGradientPass;

/* One floating type; null: the object does not have it. That of bfloat16 has no losses. */
typedef struct {
  JrnnForwardPass forward;
  JrnnBackwardPass backward;
  JrnnLossPass loss;
  JrnnLossGradientPass loss_gradient;
  void (*phi)(int32_t phi, const void *x, void *y, int64_t n); /* elementwise; for tests */
} JrnnReal;

typedef struct {
  const char *isa; /* "avx512", "avx2", "avx512bf16", "avx512amx" */
  JrnnReal f32, f64, bf16;
} JrnnCore;

/* One object file each. The caller chooses by what the processor has: avx512 needs x86-64-v4
   (AVX-512 F, BW, CD, DQ, VL), avx2 needs x86-64-v3 (AVX2, FMA). They have f32 and f64. The others have bf16
   and need AVX512_BF16 as well; avx512amx also has f32, in three parts of bfloat16 (split.h), and needs AMX_BF16,
   with the system's leave. */
extern const JrnnCore jrnn_core_avx512;
extern const JrnnCore jrnn_core_avx2;
extern const JrnnCore jrnn_core_avx512bf16;
extern const JrnnCore jrnn_core_avx512amx;

#ifdef __cplusplus
}
#endif

#endif
