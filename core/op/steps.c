/* Steps of gradients, as ops: see steps.h. */
#include "steps.h"

#include "../grad/graph.h"
#include "../tensor/tensor.h"

nyx_tensor *nyx__step_keep(nyx__steps *s, nyx_tensor *t) {
  return s->made[s->n++] = t;
}

nyx_status nyx__steps_end(nyx__steps *s, nyx_status status) {
  for (int i = 0; i < s->n; i++) nyx_tensor_release(s->made[i]);
  s->n = 0;
  return status;
}

nyx_status nyx__stepn(nyx__steps *s, nyx__op_id id, nyx_tensor *const *in, int n,
                      const nyx_value *attrs, nyx_tensor **out) {
  nyx_tensor *made[NYX_MAX_OUTPUTS] = {NULL};
  NYX_TRY(nyx_apply(s->ctx, nyx__op(id), in, n, attrs, made));
  for (int i = 1; i < NYX_MAX_OUTPUTS; i++) nyx_tensor_release(made[i]);
  *out = nyx__step_keep(s, made[0]);
  return NYX_OK;
}

nyx_status nyx__step(nyx__steps *s, nyx__op_id id, nyx_tensor *a, nyx_tensor *b,
                     const nyx_value *attrs, nyx_tensor **out) {
  return nyx__stepn(s, id, (nyx_tensor *[]){a, b}, b ? 2 : 1, attrs, out);
}

nyx_status nyx__step_text(nyx__steps *s, const char *text, nyx_tensor *x, nyx_tensor *y,
                          double p, nyx_tensor **out) {
  nyx_tensor *value[5] = {NULL, x, y};
  NYX_TRY(nyx__evaluate(s->ctx, text, value, (double[]){p, 0}, out));
  nyx__step_keep(s, *out);
  return NYX_OK;
}

nyx_status nyx__step_turn(nyx__steps *s, nyx_tensor *x, nyx_tensor **out) {
  const nyx_value attrs[] = {NYX_I(-2), NYX_I(-1)};
  return nyx__step(s, NYX__OP_transpose, x, NULL, attrs, out);
}

nyx_status nyx__step_triangle(nyx__steps *s, nyx_tensor *x, bool upper, int64_t diagonal,
                              nyx_tensor **out) {
  const nyx_value attr = NYX_I(diagonal);
  return nyx__step(s, upper ? NYX__OP_triu : NYX__OP_tril, x, NULL, &attr, out);
}

nyx_status nyx__step_part(nyx__steps *s, nyx_tensor *x, int dim, int64_t first,
                          int64_t length, nyx_tensor **out) {
  *out = x;
  if (first == 0 && length == x->shape[x->ndim + dim]) return NYX_OK;
  const nyx_value attrs[] = {NYX_I(dim), NYX_I(first), NYX_I(length), NYX_I(1)};
  return nyx__step(s, NYX__OP_narrow, x, NULL, attrs, out);
}

nyx_status nyx__step_product(nyx__steps *s, nyx_tensor *a, bool turn_a, nyx_tensor *b,
                             bool turn_b, nyx_tensor **out) {
  if (turn_a) NYX_TRY(nyx__step_turn(s, a, &a));
  if (turn_b) NYX_TRY(nyx__step_turn(s, b, &b));
  return nyx__step(s, NYX__OP_matmul, a, b, NULL, out);
}

nyx_status nyx__step_solve(nyx__steps *s, nyx_tensor *a, nyx__triangle how, nyx_tensor *b,
                           nyx_tensor **out) {
  const nyx_value attrs[] = {NYX_I(how.upper), NYX_I(!how.right), NYX_I(how.unit),
                             NYX_I(0)};
  if (how.turned) NYX_TRY(nyx__step_turn(s, a, &a));
  return nyx__step(s, NYX__OP_solve_triangular, a, b, attrs, out);
}
