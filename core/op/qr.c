/* qr, by Householder reflections. Read next: factor.h. */
#include <string.h>

#include "../device/device.h"
#include "factor.h"

typedef enum mode { REDUCED, COMPLETE, ONLY_R } mode;

static nyx_status read_mode(nyx_context *ctx, const nyx_value *attr, mode *out) {
  static const char *const names[] = {"reduced", "complete", "r"};
  for (int i = 0; i < 3; i++) {
    if (strcmp(attr->s, names[i]) != 0) continue;
    *out = (mode)i;
    return NYX_OK;
  }
  return nyx__error(ctx, ATTR_CHOICE, "mode", attr->s, "reduced, complete or r");
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static nyx_status qr_infer(nyx_call *c) {
  const nyx_tensor *a = c->in[0];
  mode how;
  NYX_TRY(read_mode(c->ctx, &c->attr[0], &how));
  NYX_TRY(nyx__matrix_check(c->ctx, "a", a, false));
  const int64_t m = nyx__rows(a), n = nyx__columns(a), none = 0;
  const int64_t between = how == COMPLETE ? m : least(m, n);
  nyx__spec(&c->spec[0], c->dtype, a->ndim, a->shape);
  nyx__spec(&c->spec[1], c->dtype, a->ndim, a->shape);
  c->spec[0].shape[a->ndim - 1] = between;
  c->spec[1].shape[a->ndim - 2] = between;
  for (int i = 0; i < 2; i++) nyx__spec_columns(&c->spec[i]);
  if (how == ONLY_R) nyx__spec(&c->spec[0], c->dtype, 1, &none);
  return NYX_OK;
}

/* A copy of A where it is to be factored: in Q's first columns where there is room, in R
 * where A is wide, else in memory of its own. */
static nyx_status place(nyx_call *c, bool has_q, nyx_tensor **a) {
  nyx_tensor *q = c->out[0], *r = c->out[1];
  nyx_spec spec;
  nyx_status status;
  nyx__spec(&spec, r->dtype, c->in[0]->ndim, c->in[0]->shape);
  nyx__spec_columns(&spec);
  const int64_t m = spec.shape[spec.ndim - 2], n = spec.shape[spec.ndim - 1];
  if (m < n || (m == n && !has_q)) {
    *a = nyx_tensor_retain(r);
    status = NYX_OK;
  } else if (has_q) {
    memcpy(spec.stride, q->stride, sizeof spec.stride);
    spec.offset = q->offset;
    status = nyx__tensor_view(c->ctx, q->storage, &spec, a);
  } else {
    status = nyx__tensor_of(c->ctx, c->device, &spec, a);
  }
  NYX_TRY(status);
  status = nyx__copy_into(c->ctx, c->in[0], *a);
  if (status != NYX_OK) nyx_tensor_release(*a);
  return status;
}

static nyx_status qr_cpu(nyx_call *c) {
  nyx_tensor *q = c->out[0], *r = c->out[1], *a;
  mode how;
  NYX_TRY(read_mode(c->ctx, &c->attr[0], &how));
  const bool has_q = how != ONLY_R;
  if (r->numel == 0 && (!has_q || q->numel == 0)) return NYX_OK;
  NYX_TRY(place(c, has_q, &a));
  const int64_t m = nyx__rows(c->in[0]), n = nyx__columns(c->in[0]);
  nyx__qr_job job = {.dtype = r->dtype,
                     .count = nyx__matrices(r),
                     .m = m,
                     .n = n,
                     .a = nyx__data(a),
                     .a_step = m * n,
                     .q = has_q ? nyx__data(q) : NULL,
                     .q_cols = has_q ? nyx__columns(q) : 0,
                     .r = nyx__data(r),
                     .r_rows = nyx__rows(r)};
  if (has_q && a->storage == q->storage) job.a_step = m * job.q_cols;
  nyx_status status = nyx__qr(c->ctx, &job);
  nyx_tensor_release(a);
  return status;
}

/* tril(m), mirrored. */
static nyx_status mirrored(nyx__steps *s, nyx_tensor *m, nyx_tensor **out) {
  nyx_tensor *t;
  NYX_TRY(nyx__step_triangle(s, m, false, 0, &m));
  NYX_TRY(nyx__step_triangle(s, m, false, -1, &t));
  NYX_TRY(nyx__step_turn(s, t, &t));
  return nyx__step(s, NYX__OP_add, m, t, NULL, out);
}

/* Walter, Lehmann: "On evaluating higher-order derivatives of the QR decomposition of
 * tall matrices" (2010): (G_Q + Q S) R^-T, S of the lower triangle of R G_R^T - G_Q^T Q,
 * mirrored. */
nyx_status nyx__step_qr_gradient(nyx__steps *s, nyx_tensor *q, nyx_tensor *r,
                                 nyx_tensor *gq, nyx_tensor *gr, nyx_tensor **out) {
  nyx_tensor *m = NULL, *t;
  if (gr) NYX_TRY(nyx__step_product(s, r, false, gr, true, &m));
  if (gq) {
    NYX_TRY(nyx__step_product(s, gq, true, q, false, &t));
    if (m)
      NYX_TRY(nyx__step(s, NYX__OP_sub, m, t, NULL, &m));
    else
      NYX_TRY(nyx__step(s, NYX__OP_neg, t, NULL, NULL, &m));
  }
  NYX_TRY(mirrored(s, m, &m));
  NYX_TRY(nyx__step_product(s, q, false, m, false, &t));
  if (gq) NYX_TRY(nyx__step(s, NYX__OP_add, gq, t, NULL, &t));
  return nyx__step_solve(s, r, (nyx__triangle){.turned = true, .right = true}, t, out);
}

/* Of a wide A = (A1, A2) = Q (R1, R2), A2 = Q R2 depends on Q, which is A1's (Roberts,
 * Roberts: "QR and LQ decomposition matrix backpropagation algorithms for square, wide,
 * and deep matrices", 2020). */
static nyx_status wide_gradient(nyx__steps *s, nyx_tensor *q, nyx_tensor *r,
                                nyx_tensor *gq, nyx_tensor *gr, nyx_tensor **out) {
  const int64_t m = nyx__rows(r), n = nyx__columns(r);
  nyx_tensor *r1, *r2, *gr1 = NULL, *gr2 = NULL, *t, *first, *last;
  NYX_TRY(nyx__step_part(s, r, -1, 0, m, &r1));
  if (!gr) { /* nothing depends on A2 */
    nyx_spec spec;
    NYX_TRY(nyx__step_qr_gradient(s, q, r1, gq, NULL, &first));
    nyx__spec(&spec, r->dtype, r->ndim, r->shape);
    NYX_TRY(nyx__grow_to(s->ctx, first, &spec, out));
    nyx__step_keep(s, *out);
    return NYX_OK;
  }
  NYX_TRY(nyx__step_part(s, r, -1, m, n - m, &r2));
  NYX_TRY(nyx__step_part(s, gr, -1, 0, m, &gr1));
  NYX_TRY(nyx__step_part(s, gr, -1, m, n - m, &gr2));
  NYX_TRY(nyx__step_product(s, r2, false, gr2, true, &t));
  NYX_TRY(nyx__step_product(s, q, false, t, false, &t));
  if (gq) NYX_TRY(nyx__step(s, NYX__OP_add, gq, t, NULL, &t));
  NYX_TRY(nyx__step_qr_gradient(s, q, r1, t, gr1, &first));
  NYX_TRY(nyx__step_product(s, q, false, gr2, false, &last));
  const nyx_value along = NYX_I(-1);
  return nyx__step(s, NYX__OP_cat, first, last, &along, out);
}

static nyx_status qr_gradient(nyx_backward *b) {
  nyx_tensor *gq = b->grad_out[0], *gr = b->grad_out[1], *g = NULL;
  nyx__steps s = {.ctx = b->ctx};
  mode how;
  if (!b->need[0] || (!gq && !gr)) return NYX_OK;
  NYX_TRY(read_mode(b->ctx, &b->attr[0], &how));
  const int ndim = b->in_spec[0].ndim;
  const int64_t m = b->in_spec[0].shape[ndim - 2], n = b->in_spec[0].shape[ndim - 1];
  if (how == ONLY_R)
    return nyx__error(b->ctx, GRAD_UNDEFINED, "qr",
                      " in mode r, which computes no q; use mode reduced");
  if (how == COMPLETE && m > n)
    return nyx__error(
        b->ctx, GRAD_UNDEFINED, "qr",
        " in mode complete of matrices with more rows than columns; use mode "
        "reduced");
  nyx_status status = m < n ? wide_gradient(&s, b->out[0], b->out[1], gq, gr, &g)
                            : nyx__step_qr_gradient(&s, b->out[0], b->out[1], gq, gr, &g);
  if (status == NYX_OK) b->grad_in[0] = nyx_tensor_retain(g);
  return nyx__steps_end(&s, status);
}

static const nyx_attr qr_attrs[] = {
    {"mode",
     NYX_ATTR_STRING,
     false,
     {.s = "reduced", .given = true},
     "\"reduced\": q (m, k), r (k, n), k the less of m and n; \"complete\": q (m, m), r "
     "(m, n); \"r\": r of the reduced one and an empty q"}};

const nyx_op nyx__op_qr = {
    .name = "qr",
    .group = "linear algebra",
    .doc =
        "a = q r for matrices a (..., m, n): q with orthonormal columns and an upper "
        "triangular r, whose diagonal may have either sign, by Householder reflections. "
        "A "
        "gradient needs the first k columns of a to be independent; there is none in "
        "mode "
        "r, and none in mode complete where m > n.",
    .kind = NYX_OP_STRUCTURAL,
    .autocast = NYX_AUTOCAST_FLOAT32,
    .dtypes = NYX__FACTOR_DTYPES,
    .inputs = "a",
    .min_in = 1,
    .max_in = 1,
    .attrs = qr_attrs,
    .n_attrs = 1,
    .n_out = 2,
    .infer = qr_infer,
    .cpu = qr_cpu,
    .gradient = qr_gradient,
    .save_out = NYX_SAVE(0) | NYX_SAVE(1),
    .batch = nyx__batch_leading,
    .cases =
        "a(3,3)<regular\na(2,5,3)<regular\na(2,3,5)<regular\n"
        "a(3,4)<regular; mode=complete\na(3,0)",
    .domain = {-2, 2},
};
