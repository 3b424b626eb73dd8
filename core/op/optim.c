/* The optimisers' steps: sgd_step, adam_step, rmsprop_step. One call updates one
 * parameter and its state in one pass. Used in place (x:adam_step_(...)); what the
 * optimiser remembers (velocity, means) is updated in place in any case. The loops are in
 * kernels/cpu/optim.c, the policy (groups, schedules, defaults) in lua/nyx/optim. */
#include <math.h>
#include <nyx/parallel.h>
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "../../kernels/cpu/optim.h"
#include "../device/device.h"
#include "../tensor/tensor.h"
#include "ops.h"

enum { GRAIN = 1 << 14, MOST_STATE = 3 };

static nyx_status check_input(nyx_call *c, int i, const char *name) {
  const nyx_tensor *p = c->in[0], *t = c->in[i];
  if (!t) return NYX_OK;
  if (!nyx_dtype_is_float(t->dtype))
    return nyx__error(c->ctx, DTYPE_INPUT, name, nyx_dtype_name(t->dtype),
                      "a float dtype");
  bool same = t->ndim == p->ndim;
  for (int d = 0; same && d < p->ndim; d++) same = t->shape[d] == p->shape[d];
  if (same) return NYX_OK;
  return nyx__error(c->ctx, STEP_SHAPE, name, NYX__SHAPE(t), NYX__SHAPE(p));
}

/* The inputs of every step: parameter, gradient, state... The names are those of the op.
 */
static nyx_status infer_step(nyx_call *c) {
  static const char *const names[] = {"the parameter", "the gradient", "state 1",
                                      "state 2", "state 3"};
  for (int i = 0; i < c->n_in; i++) NYX_TRY(check_input(c, i, names[i]));
  nyx__spec(&c->spec[0], c->in[0]->dtype, c->in[0]->ndim, c->in[0]->shape);
  return NYX_OK;
}

typedef struct step_job {
  nyx_optim_job job;
  nyx_optim_fn fn;
} step_job;

/* Numbers too small to be normal cost a hundred times more, and a mean that decays to
 * zero stays among them for ever: a step rounds them to zero. Gives what to restore. */
static uint64_t flush_tiny(void) {
#if defined __SSE2__
  unsigned old = _mm_getcsr();
  _mm_setcsr(old | 0x8040); /* flush to zero, denormals are zero */
  return old;
#elif defined __aarch64__
  uint64_t old;
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" : : "r"(old | 1u << 24)); /* flush to zero */
  return old;
#else
  return 0;
#endif
}

static void restore_tiny(uint64_t old) {
#if defined __SSE2__
  _mm_setcsr((unsigned)old);
#elif defined __aarch64__
  __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
  (void)old;
#endif
}

static void step_range(void *arg, int64_t begin, int64_t end) {
  step_job *s = arg;
  uint64_t old = flush_tiny();
  s->fn(&s->job, begin, end);
  restore_tiny(old);
}

/* Runs a step over call->out[0], which holds the parameter. Tensors that the loops cannot
 * use directly (half types, gaps between elements) go through a copy. */
static nyx_status run_step(nyx_call *c, step_job *s, const nyx_optim_fn fn[2]) {
  nyx_tensor *user[2 + MOST_STATE] = {c->out[0], c->in[1]};
  nyx_tensor *plain[2 + MOST_STATE] = {NULL};
  nyx_dtype dtype = c->out[0]->dtype == NYX_FLOAT64 ? NYX_FLOAT64 : NYX_FLOAT32;
  nyx_status status = NYX_OK;
  for (int i = 2; i < c->n_in; i++) user[i] = c->in[i];
  for (int i = 0; status == NYX_OK && i < c->n_in; i++)
    if (user[i]) status = nyx__contiguous_as(c->ctx, user[i], dtype, &plain[i]);
  if (status == NYX_OK) {
    s->job.p = nyx__data(plain[0]);
    s->job.g = nyx__data(plain[1]);
    for (int i = 2; i < c->n_in; i++)
      s->job.state[i - 2] = plain[i] ? nyx__data(plain[i]) : NULL;
    s->fn = fn[dtype == NYX_FLOAT64];
    nyx_parallel_for(plain[0]->numel, GRAIN, step_range, s);
  }
  for (int i = 0; i < c->n_in; i++) {
    if (status == NYX_OK && i != 1 && plain[i]) {
      if (plain[i] != user[i]) status = nyx__copy_into(c->ctx, plain[i], user[i]);
      nyx_tensor_touch(user[i]);
    }
    nyx_tensor_release(plain[i]);
  }
  return status;
}

/* Attributes that all steps begin with. */
#define COMMON_ATTRS                                                                     \
  {"lr", NYX_ATTR_FLOAT, true, NYX_NONE, "the learning rate"},                           \
      {"weight_decay", NYX_ATTR_FLOAT, false, NYX_F(0), "decay towards zero"},           \
      {"maximize", NYX_ATTR_BOOL, false, NYX_I(0), "go up instead of down"}, {           \
    "grad_scale", NYX_ATTR_FLOAT, false, NYX_F(1), "multiplies the gradient, to clip it" \
  }
enum { A_LR, A_DECAY, A_MAXIMIZE, A_SCALE, A_OWN };

static void common(const nyx_call *c, step_job *s) {
  s->job = (nyx_optim_job){.lr = c->attr[A_LR].f,
                           .decay = c->attr[A_DECAY].f,
                           .sign = (c->attr[A_MAXIMIZE].i ? -1 : 1) * c->attr[A_SCALE].f,
                           .shrink = 1};
}

static nyx_status sgd_cpu(nyx_call *c) {
  const nyx_value *own = c->attr + A_OWN;
  step_job s;
  common(c, &s);
  s.job.momentum = own[0].f;
  s.job.keep = 1 - own[1].f;
  s.job.nesterov = own[2].i;
  return run_step(c, &s, nyx__cpu_kernels()->optim->sgd);
}

static const nyx_attr sgd_step_attrs[] = {
    COMMON_ATTRS,
    {"momentum", NYX_ATTR_FLOAT, false, NYX_F(0), "how much velocity stays"},
    {"dampening", NYX_ATTR_FLOAT, false, NYX_F(0), "what is held back of g"},
    {"nesterov", NYX_ATTR_BOOL, false, NYX_I(0), "look ahead (Nesterov 1983)"},
};

const nyx_op nyx__op_sgd_step = {
    .name = "sgd_step",
    .group = "optimiser",
    .doc =
        "One step of stochastic gradient descent. With a momentum_buffer v, updated in "
        "place: v = momentum v + (1 - dampening) g, and p - lr v, or p - lr (g + "
        "momentum v) "
        "with nesterov; without: p - lr g. g includes weight_decay p.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "parameter grad momentum_buffer",
    .min_in = 2,
    .max_in = 3,
    .updates = true,
    .attrs = sgd_step_attrs,
    .n_attrs = A_OWN + 3,
    .state_in = NYX_SAVE(2),
    .no_gradient = true,
    .n_out = 1,
    .infer = infer_step,
    .cpu = sgd_cpu,
    .domain = {0.1, 2},
    .cases =
        "parameter(3,4) grad(3,4); lr=0.1\n"
        "parameter(3,4) grad(3,4) momentum_buffer(3,4); lr=0.1 weight_decay=0.01 "
        "grad_scale=0.25 momentum=0.9 nesterov=true",
};

static nyx_status adam_cpu(nyx_call *c) {
  const nyx_value *own = c->attr + A_OWN;
  double beta1 = own[0].f, beta2 = own[1].f, step = (double)own[3].i;
  bool decoupled = own[4].i;
  step_job s;
  common(c, &s);
  if (decoupled) {
    s.job.shrink = 1 - s.job.lr * s.job.decay;
    s.job.decay = 0;
  }
  s.job.lr /= 1 - pow(beta1, step);
  s.job.keep = 1 - beta1;
  s.job.beta2 = beta2;
  s.job.root = 1 / sqrt(1 - pow(beta2, step));
  s.job.eps = own[2].f;
  return run_step(c, &s, nyx__cpu_kernels()->optim->adam);
}

static nyx_status adam_infer(nyx_call *c) {
  const nyx_value *own = c->attr + A_OWN;
  for (int i = 0; i < 2; i++)
    if (!(own[i].f >= 0 && own[i].f < 1))
      return nyx__error(c->ctx, STEP_BETA, i == 0 ? "beta1" : "beta2", own[i].f,
                        i == 0 ? "beta1" : "beta2");
  if (own[3].i < 1)
    return nyx__error(c->ctx, ATTR_RANGE, "step", (long long)own[3].i, "at least 1");
  return infer_step(c);
}

static const nyx_attr adam_step_attrs[] = {
    COMMON_ATTRS,
    {"beta1", NYX_ATTR_FLOAT, false, NYX_F(0.9), "how much of the mean stays"},
    {"beta2", NYX_ATTR_FLOAT, false, NYX_F(0.999), "how much of the square's stays"},
    {"eps", NYX_ATTR_FLOAT, false, NYX_F(1e-8), "added to the denominator"},
    {"step", NYX_ATTR_INT, true, NYX_NONE, "the number of this step, from 1"},
    {"decoupled", NYX_ATTR_BOOL, false, NYX_I(0), "decay p itself, not through g"},
};

const nyx_op nyx__op_adam_step = {
    .name = "adam_step",
    .group = "optimiser",
    .doc =
        "One step of Adam (Kingma and Ba 2015), of AdamW when decoupled (Loshchilov and "
        "Hutter 2019), of AMSGrad with max_exp_avg_sq. The means are updated in place.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "parameter grad exp_avg exp_avg_sq max_exp_avg_sq",
    .min_in = 4,
    .max_in = 5,
    .updates = true,
    .attrs = adam_step_attrs,
    .n_attrs = A_OWN + 5,
    .state_in = NYX_SAVE(2) | NYX_SAVE(3) | NYX_SAVE(4),
    .no_gradient = true,
    .n_out = 1,
    .infer = adam_infer,
    .cpu = adam_cpu,
    .domain = {0.1, 2},
    .cases =
        "parameter(3,4) grad(3,4) exp_avg(3,4) exp_avg_sq(3,4); lr=0.1 step=1\n"
        "parameter(3,4) grad(3,4) exp_avg(3,4) exp_avg_sq(3,4); lr=0.1 step=2 "
        "weight_decay=0.1 decoupled=true",
};

static nyx_status rmsprop_cpu(nyx_call *c) {
  const nyx_value *own = c->attr + A_OWN;
  step_job s;
  common(c, &s);
  s.job.keep = own[0].f;
  s.job.eps = own[1].f;
  s.job.momentum = own[2].f;
  return run_step(c, &s, nyx__cpu_kernels()->optim->rmsprop);
}

static const nyx_attr rmsprop_step_attrs[] = {
    COMMON_ATTRS,
    {"alpha", NYX_ATTR_FLOAT, false, NYX_F(0.99), "how much of the mean stays"},
    {"eps", NYX_ATTR_FLOAT, false, NYX_F(1e-8), "added to the denominator"},
    {"momentum", NYX_ATTR_FLOAT, false, NYX_F(0), "how much velocity stays"},
};

const nyx_op nyx__op_rmsprop_step = {
    .name = "rmsprop_step",
    .group = "optimiser",
    .doc =
        "One step of RMSprop (Hinton 2012): g divided by the root of its running mean "
        "square, of its variance with grad_avg. The means are updated in place.",
    .kind = NYX_OP_STRUCTURAL,
    .promotion = NYX_PROMOTE_NONE,
    .dtypes = NYX_DTYPES_FLOAT,
    .inputs = "parameter grad square_avg momentum_buffer grad_avg",
    .min_in = 3,
    .max_in = 5,
    .updates = true,
    .attrs = rmsprop_step_attrs,
    .n_attrs = A_OWN + 3,
    .state_in = NYX_SAVE(2) | NYX_SAVE(3) | NYX_SAVE(4),
    .no_gradient = true,
    .n_out = 1,
    .infer = infer_step,
    .cpu = rmsprop_cpu,
    .domain = {0.1, 2},
    .cases = "parameter(3,4) grad(3,4) square_avg(3,4); lr=0.1",
};
