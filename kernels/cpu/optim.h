/* The optimisers' update loops, one table per instruction-set path. Called from
 * core/op/optim.c, which checks the tensors and computes the coefficients. */
#ifndef NYX_KERNELS_CPU_OPTIM_H
#define NYX_KERNELS_CPU_OPTIM_H

#include "cpu.h"

/* One parameter; elements are float or double, all arrays of the same type and distinct.
 */
typedef struct nyx_optim_job {
  void *p;        /* the parameter, updated */
  const void *g;  /* its gradient */
  void *state[3]; /* per optimiser, below; NULL where not in use; updated */
  double lr;      /* adam: the rate after bias correction */
  double decay;   /* added to the gradient as decay * p */
  double sign; /* what the gradient is multiplied by: its scale, negative to maximise */
  double momentum; /* sgd, rmsprop */
  double keep;     /* sgd: 1 - dampening; adam: 1 - beta1; rmsprop: alpha */
  double beta2;    /* adam */
  double shrink;   /* adam: what p is multiplied by first, 1 - lr * weight_decay */
  double root;     /* adam: 1 / sqrt(1 - beta2^step) */
  double eps;
  bool nesterov;
} nyx_optim_job;

/* Updates elements begin..end-1. */
typedef void (*nyx_optim_fn)(const nyx_optim_job *job, int64_t begin, int64_t end);

/* [0] float, [1] double. */
typedef struct nyx_optim_kernels {
  nyx_optim_fn sgd[2];     /* state: velocity */
  nyx_optim_fn adam[2];    /* state: mean, mean of squares, largest mean of squares */
  nyx_optim_fn rmsprop[2]; /* state: mean of squares, velocity, mean */
} nyx_optim_kernels;

#endif
